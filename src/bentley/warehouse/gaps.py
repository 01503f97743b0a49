"""Bars that the grid expects and the table lacks, recorded as spans and never filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain import intervals
from bentley.warehouse.ledger import Range
from bentley.warehouse.schema import binance_ohlcv, gaps


@dataclass(frozen=True)
class Gap:
    """Missing bars: open times of the first and the last, both inclusive, and their number."""

    symbol: str
    interval: str
    first_open: int
    last_open: int
    bars: int

    @property
    def end(self) -> int:
        """When the last missing bar would have ended, exclusive."""
        return self.last_open + intervals.millis(self.interval)


def _of_series(table: sa.Table) -> list[sa.ColumnElement[bool]]:
    return [table.c[name] == sa.bindparam(name) for name in ("symbol", "interval")]


# Made once: see the ledger's.
_OPENED = binance_ohlcv.c.open_time
_BARS = sa.select(binance_ohlcv).where(*_of_series(binance_ohlcv))
_BEFORE = _BARS.where(sa.bindparam("first_open") > _OPENED)
_AFTER = _BARS.where(sa.bindparam("last_open") < _OPENED)
_NEIGHBOURS = sa.select(
    _BEFORE.with_only_columns(sa.func.max(_OPENED)).scalar_subquery(),
    _AFTER.with_only_columns(sa.func.min(_OPENED)).scalar_subquery(),
)
_FORGET = gaps.delete().where(
    *_of_series(gaps),
    gaps.c.first_open > sa.bindparam("first"),
    gaps.c.first_open < sa.bindparam("last"),
)


def record(connection: Connection, touched: Range, *, batch_id: int) -> None:
    """Derive the gaps again around the bars that a batch touched."""
    step = intervals.millis(touched.interval)
    before, after = connection.execute(_NEIGHBOURS, vars(touched)).one()
    first = touched.first_open if before is None else before
    last = touched.last_open if after is None else after
    found = _holes(connection, touched, first, last)
    series = {"symbol": touched.symbol, "interval": touched.interval}
    connection.execute(_FORGET, {**series, "first": first, "last": last})
    if found:
        connection.execute(
            gaps.insert(),
            [
                {
                    **series,
                    "first_open": previous + step,
                    "last_open": opened - step,
                    "bars": (opened - previous) // step - 1,
                    "batch_id": batch_id,
                }
                for previous, opened in found
            ],
        )


def _holes(
    connection: Connection, touched: Range, first: int, last: int
) -> Sequence[tuple[int, int]]:
    """List the neighbours with bars missing between them, of those from `first` to `last`."""
    step = intervals.millis(touched.interval)
    if touched.rows == (touched.last_open - touched.first_open) // step + 1:
        # It has every bar of its own, as nearly always in bulk: only its ends are of interest.
        ends = ((first, touched.first_open), (touched.last_open, last))
        return [(before, after) for before, after in ends if after - before > step]
    c = binance_ohlcv.c
    series = (c.symbol == touched.symbol, c.interval == touched.interval)
    previous = sa.func.lag(c.open_time).over(order_by=c.open_time).label("previous")
    steps = (
        sa.select(c.open_time, previous)
        .where(*series, c.open_time >= first, c.open_time <= last)
        .subquery()
    )
    found = connection.execute(
        sa.select(steps.c.previous, steps.c.open_time).where(
            steps.c.open_time - steps.c.previous > step
        )
    )
    return [(int(before), int(after)) for before, after in found]


def of_series(
    connection: Connection,
    symbol: str,
    interval: str,
    *,
    since: int | None = None,
    until: int | None = None,
) -> list[Gap]:
    """List the recorded gaps of a series that touch the bars since <= open_time < until."""
    g = gaps.c
    query = (
        sa.select(g.symbol, g.interval, g.first_open, g.last_open, g.bars)
        .where(g.symbol == symbol, g.interval == interval)
        .order_by(g.first_open)
    )
    if since is not None:
        query = query.where(g.last_open >= since)
    if until is not None:
        query = query.where(g.first_open < until)
    return [Gap(*row) for row in connection.execute(query)]
