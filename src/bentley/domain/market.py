"""How the market's names are written, and which sources of stocks there are."""

from __future__ import annotations

import re

from bentley.domain import intervals
from bentley.domain.errors import ConfigurationError

STOCK_SOURCES = ("tiingo", "polygon", "alpha_vantage", "yahoo", "stocktwits")
"""Every source of stock data, the one trusted most first: each names a module of `sources`.

They are listed here, below the settings, which refuse any other before a source is loaded.
"""

_SYMBOL = re.compile(r"[A-Za-z0-9]{2,20}")
_TICKER = re.compile(r"[A-Za-z][A-Za-z0-9]{0,9}([.-][A-Za-z0-9]{1,3})?")


def symbol(text: str) -> str:
    """Return a pair of the exchange's in upper case; ConfigurationError for what can't be one."""
    return _written(text, "symbol", _SYMBOL, "BTCUSDT")


def ticker(text: str) -> str:
    """Return a stock's ticker in upper case; ConfigurationError for what can't be one.

    A class of shares is written with a point, whichever way it was given: BF-B is BF.B.
    """
    return _written(text, "ticker", _TICKER, "AAPL or BRK.B").replace("-", ".")


def _written(text: str, what: str, form: re.Pattern[str], example: str) -> str:
    if form.fullmatch(text) is None:
        msg = f"{what} {text!r} is not written like {example}"
        raise ConfigurationError(msg)
    return text.upper()


def interval(text: str) -> str:
    """Return an interval's name; ConfigurationError for one that is not served."""
    intervals.millis(text)
    return text


def source(text: str) -> str:
    """Return the name of a source of stocks; ConfigurationError for one that there is not."""
    if text not in STOCK_SOURCES:
        msg = f"source {text!r} is not one of {', '.join(STOCK_SOURCES)}"
        raise ConfigurationError(msg)
    return text
