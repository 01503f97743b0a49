"""Options that several commands have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter

from bentley.settings import Settings, load

Symbols = Annotated[
    list[str] | None,
    Parameter(consume_multiple=True, negative="", help="Symbols, like BTCUSDT ETHUSDT."),
]
Intervals = Annotated[
    list[str] | None,
    Parameter(consume_multiple=True, negative="", help="Bar intervals, like 1h."),
]

AsJson = Annotated[
    bool, Parameter(name="--json", negative="", help="Print one JSON document and nothing else.")
]


@Parameter(name="*")
@dataclass(frozen=True)
class Selection:
    """Which bars a command is about."""

    symbols: Symbols = None
    interval: Intervals = None
    since: Annotated[
        str | None,
        Parameter(help="First open time, UTC, inclusive: 2024-01-31, or 2024-01-31T12:00."),
    ] = None
    until: Annotated[str | None, Parameter(help="End of the open times, UTC, exclusive.")] = None

    @property
    def given(self) -> bool:
        """Whether the command line selects anything."""
        return self != Selection()

    def settings(self, **more: Any) -> Settings:
        """Read the settings, with what was given on the command line over them."""
        return load(
            symbols=self.symbols,
            intervals=self.interval,
            since=self.since,
            until=self.until,
            **more,
        )


ALL = Selection()
