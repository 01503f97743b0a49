"""Every source of stocks, in one place: to add one, write its module and name it here.

Its name goes into `domain.market.STOCK_SOURCES`, too, which says what a universe may name.
"""

from __future__ import annotations

from bentley.domain.errors import ConfigurationError
from bentley.sources import alpha_vantage, polygon, stocktwits, tiingo, yahoo
from bentley.sources.source import Source

SOURCES: tuple[Source, ...] = (
    tiingo.SOURCE,
    polygon.SOURCE,
    alpha_vantage.SOURCE,
    yahoo.SOURCE,
    stocktwits.SOURCE,
)


def named(name: str) -> Source:
    """Find a source; ConfigurationError for a name that none has."""
    for source in SOURCES:
        if source.name == name:
            return source
    msg = f"no source {name!r}: there are {', '.join(source.name for source in SOURCES)}"
    raise ConfigurationError(msg)
