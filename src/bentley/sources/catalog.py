"""Every source of stocks that is listed: each is a module here of the name that the list has."""

from __future__ import annotations

from importlib import import_module

from bentley.domain.errors import ConfigurationError
from bentley.domain.market import STOCK_SOURCES
from bentley.sources.source import Source

SOURCES: tuple[Source, ...] = tuple(
    import_module(f"{__package__}.{name}").SOURCE for name in STOCK_SOURCES
)


def named(name: str) -> Source:
    """Find a source; ConfigurationError for a name that none has."""
    for source in SOURCES:
        if source.name == name:
            return source
    msg = f"no source {name!r}: there are {', '.join(source.name for source in SOURCES)}"
    raise ConfigurationError(msg)
