"""The names that settings may speak of."""

from __future__ import annotations

STOCK_SOURCES = ("tiingo", "polygon", "alpha_vantage", "yahoo", "stocktwits")
"""The sources of stocks, in the order in which the consensus prefers them."""
