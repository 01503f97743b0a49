"""Whether what a source says of a ticker hangs together: its events, adjusted and raw prices."""

from __future__ import annotations

from datetime import date

import polars as pl

from bentley.domain import adjustment, sessions
from bentley.domain.errors import DataError
from bentley.domain.words import counted
from bentley.sources.source import Source

_BEARS_EVENT = pl.any_horizontal(
    pl.col("div_cash").cast(pl.Float64, strict=False) != 0,
    pl.col("split_factor").cast(pl.Float64, strict=False) != 1,
)
"""Whether a row in RAW_SCHEMA tells of a split or dividend; null where it doesn't say."""


def nothing_followed(last: date, forming: pl.DataFrame, *, now: int) -> bool:
    """Whether nothing can have gone ex since the last session that is stored.

    Each later one that has begun by `now` must be told, among the `forming` rows, as being without
    an event: a source may have adjusted what lies before it from its morning on.
    """
    quiet = forming.filter(~_BEARS_EVENT)["session"].to_list()
    return all(day.isoformat() in quiet for day in sessions.begun(last, now))


def every_event_is_stored(rejected: pl.DataFrame) -> None:
    """Refuse a split or dividend whose session has no price: what lies before it can't be adjusted."""
    events = rejected.filter(
        _BEARS_EVENT, ~pl.col("reason").str.ends_with("does not fit the column")
    )
    if events.height:
        day, reason = events.select("session", "reason").row(0)
        msg = f"a split or dividend was told of {day}, whose row was refused ({reason})"
        raise DataError(msg)


def tied(source: Source, prices: pl.DataFrame, *, newest: bool) -> None:
    """Check that the adjusted prices follow from the raw ones; DataError names the first that don't."""
    wrong = adjustment.mismatches(prices, newest=newest)
    if wrong.height:
        day, column, by, expected, found = wrong.row(0)
        msg = (
            f"the adjusted prices of {source.title} don't follow from its raw ones at "
            f"{counted(wrong['session'].n_unique(), 'session')}: on {day} {by} a factor of "
            f"{expected:.8g} for {column}, and it bears one of {found:.8g}. Take raw prices there, or "
            "those of another source"
        )
        raise DataError(msg)
