"""Builds a candle that is still forming from what had happened by then, and from nothing else.

A recording holds only final values. What the exchange would have shown half-way follows from
the finished bars of shorter intervals inside the candle; where there are none, its open alone
is certain.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal, InvalidOperation
from typing import Protocol

from bentley.services.exchange.market import CLOSE_TIME, OPEN_TIME, Row

_ZERO = "0.00000000"
_EXACT = Context(prec=100)
_SUMMED = (5, 7, 9, 10)
_TRADES = 8


class Series(Protocol):
    """Final rows of one symbol and interval, for building the candles that hold them."""

    @property
    def step(self) -> int:
        """Length of the interval in milliseconds."""

    def between(self, start: int, end: int) -> list[Row]:
        """Rows with start <= open_time < end, in order."""

    def covers(self, start: int, end: int) -> bool:
        """Whether bars were recorded from `start` on and past `end`."""

    def opened(self, start: int, end: int) -> bool:
        """Whether a bar opened at start <= open_time <= end."""


def as_seen(row: Row, step: int, finer: Sequence[Series], now: int) -> Row | None:
    """`row`, of an interval of `step` milliseconds, as it was seen at `now` before its close.

    `finer` holds the shorter intervals of the same symbol, the longest first. None where
    the shortest of them shows that the candle had not yet traded.
    """
    start = row[OPEN_TIME]
    if _untraded(start, finer, now):
        return None
    finished = _tiles(start, min(start + step, now + 1), start + step, finer, now)
    try:
        return _combined(start, step, row[1], finished)
    except InvalidOperation:  # a cell of the recording is no number
        return _combined(start, step, row[1], [])


def _untraded(start: int, finer: Sequence[Series], now: int) -> bool:
    covering = [series for series in finer if series.covers(start, now)]
    return bool(covering) and not covering[-1].opened(start, now)


def _tiles(start: int, seen: int, end: int, finer: Sequence[Series], now: int) -> list[Row]:
    """Finished rows that tile [start, end): long ones first, shorter ones in what they leave."""
    if not finer or start >= seen:
        return []
    series, *rest = finer
    rows: list[Row] = []
    at = start
    for row in series.between(start, seen):
        after = row[OPEN_TIME] + series.step
        if row[CLOSE_TIME] >= now or after > end:
            continue
        rows += _tiles(at, min(row[OPEN_TIME], seen), row[OPEN_TIME], rest, now)
        rows.append(row)
        at = after
    return rows + _tiles(at, seen, end, rest, now)


def _combined(start: int, step: int, opened: str, finished: list[Row]) -> Row:
    close_time = start + step - 1
    if not finished:
        return (
            *(start, opened, opened, opened, opened, _ZERO),
            *(close_time, _ZERO, 0, _ZERO, _ZERO, "0"),
        )
    opened = finished[0][1] if finished[0][OPEN_TIME] == start else opened
    sums = {cell: _total([row[cell] for row in finished]) for cell in _SUMMED}
    return (
        start,
        opened,
        max([opened, *(row[2] for row in finished)], key=Decimal),
        min([opened, *(row[3] for row in finished)], key=Decimal),
        finished[-1][4],
        sums[5],
        close_time,
        sums[7],
        int(sum(Decimal(row[_TRADES]) for row in finished)),
        sums[9],
        sums[10],
        "0",
    )


def _total(cells: Sequence[str]) -> str:
    total = Decimal(0)
    for cell in cells:
        total = _EXACT.add(total, Decimal(cell))
    return f"{total:f}"
