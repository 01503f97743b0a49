"""Bentley Budget Bot: a market-data and trading pipeline that is real at every stage."""

__version__ = "0.1.0"
