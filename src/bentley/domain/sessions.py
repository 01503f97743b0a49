"""When the New York Stock Exchange trades: its sessions, from the exchange_calendars library.

Each session has the date of its day in New York, and opens and closes in UTC milliseconds; early
closes are in it.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

EXCHANGE = "XNYS"
FIRST_YEAR = 1962
"""Before it no source has prices of a day; the calendar itself begins in 1885."""

SETTLES_MS = 3 * 3_600_000
"""So long after its close a session may still change: late trades, delayed feeds, cancelled prints."""

_NEW_YORK = ZoneInfo("America/New_York")
_NANOS = 1_000_000
_LONGEST_BREAK = timedelta(days=14)
"""The exchange has been closed for longer only in 1914."""

SCHEMA = pl.Schema({"session": pl.Date, "opens": pl.Int64, "closes": pl.Int64})


def begun(after: date, now: int) -> list[date]:
    """The sessions behind a day whose own day has begun in New York, by `now` in UTC milliseconds.

    What goes ex on a session has done so from its midnight on, before anything is traded.
    """
    today = datetime.fromtimestamp(now / 1000, tz=_NEW_YORK).date()
    return between(after + timedelta(days=1), today)["session"].to_list()


def between(start: date, end: date) -> pl.DataFrame:
    """The sessions from `start` to `end`, both inclusive, in SCHEMA and in order."""
    start = max(start, date(FIRST_YEAR, 1, 1))
    if start > end:
        return SCHEMA.to_frame()
    return _years(start.year, end.year).filter(pl.col("session").is_between(start, end))


def latest(now: int) -> date:
    """The last session that had closed and settled by `now`, in UTC milliseconds."""
    today = day_of(now)
    settled = pl.col("closes") <= now - SETTLES_MS
    recent = between(today - _LONGEST_BREAK, today).filter(settled)
    found: date = recent["session"][-1]
    return found


def before(day: date, count: int) -> date:
    """The session that lies `count` sessions before a day."""
    days = timedelta(days=2 * count) + _LONGEST_BREAK
    found: date = between(day - days, day - timedelta(days=1))["session"][-count]
    return found


def start_of(day: date) -> int:
    """Midnight of a day in UTC milliseconds: by it the ledger names a session."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def day_of(moment: int) -> date:
    """The day in UTC of a time in UTC milliseconds."""
    return datetime.fromtimestamp(moment / 1000, tz=UTC).date()


@lru_cache(maxsize=8)
def _years(first: int, last: int) -> pl.DataFrame:
    schedule = _calendar(first, last).schedule
    return pl.DataFrame(
        {
            "session": [day.date() for day in schedule.index],
            "opens": [int(moment.value) // _NANOS for moment in schedule["open"]],
            "closes": [int(moment.value) // _NANOS for moment in schedule["close"]],
        },
        schema=SCHEMA,
    )


def _calendar(first: int, last: int) -> Any:
    # It takes a second, for pandas comes with it, and most commands need no session.
    from exchange_calendars import get_calendar  # noqa: PLC0415

    return get_calendar(EXCHANGE, start=f"{first}-01-01", end=f"{last}-12-31")
