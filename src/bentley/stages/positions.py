"""How far each series has been read, kept with the rows that it covers."""

from __future__ import annotations

from sqlalchemy.engine import Connection

from bentley.domain import intervals
from bentley.stages.reading import Mark, Series
from bentley.warehouse import bars, states

SOURCE = "source-binance"
"""Whose rows and states these are."""

_FORMING_BARS = 1_000
"""So far back a bar that never closed is looked for, and read again: one page."""


def load(connection: Connection, series: Series) -> Mark | None:
    """How far a series has been read, but never beyond the last bar that is there.

    Nor beyond one that is still forming there: the row that closed it may have been refused.
    """
    state = states.load(connection, SOURCE, "/".join(series))
    if state is None:
        return None
    since = state["since"]
    last = bars.last_open(connection, *series)
    cursor = min(state["cursor"], since if last is None else last)
    recent = cursor - _FORMING_BARS * intervals.millis(series[1])
    forming = bars.first_forming(connection, *series, since=recent, until=cursor)
    return Mark(since, max(since, cursor if forming is None else min(cursor, forming)))


def forget(connection: Connection, series: Series) -> None:
    """Let a series be read from its beginning."""
    states.remove(connection, SOURCE, "/".join(series))


def save(connection: Connection, series: Series, mark: Mark, *, batch_id: int) -> None:
    """Replace how far a series has been read."""
    state = {"since": mark.since, "cursor": mark.cursor}
    states.save(connection, SOURCE, "/".join(series), state, batch_id=batch_id)
