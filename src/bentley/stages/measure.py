"""Figures of a processed batch, measured from the tables and the ledger; docs/mlflow.md defines each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain import intervals
from bentley.warehouse import frames, gaps
from bentley.warehouse.gaps import Gap
from bentley.warehouse.ledger import Batch, Range
from bentley.warehouse.processed import Span
from bentley.warehouse.schema import knime_processed
from bentley.warehouse.warehouse import Warehouse

STATISTICS_BARS = 720
"""Returns are measured over the batch's bars, and over at least so many up to its last."""

_HOUR_MS = 3_600_000
_YEAR_MS = 365 * 24 * _HOUR_MS
_MEASURED = ("close", "log_return")
_DRAWN = ("open_time", "open", "high", "low", "close", "volume", "log_return")


@dataclass(frozen=True)
class Measured:
    """One series as a batch left it; `gaps` are those of the grid, cut at its ends."""

    piece: Range
    grid: Span
    gaps: Sequence[Gap]
    present: int
    freshness_hours: float | None
    statistics: Mapping[str, float]

    @property
    def label(self) -> str:
        """How the series is called in metrics and files."""
        return f"{self.piece.symbol}-{self.piece.interval}"

    @property
    def expected(self) -> int:
        """How many bars the grid has."""
        return intervals.expected(self.grid.since, self.grid.until, self.grid.interval)


def clock(parents: Iterable[Batch], until: int | None) -> int | None:
    """Find the moment up to which a batch should have bars: the exchange's time, as ingested.

    An ingest that was told to end earlier ends there; `until` is for those that died before they
    could note it. None where no ingest knew the time.
    """
    ends = [
        min(parent.exchange_time, parent.details.get("until", until) or parent.exchange_time)
        for parent in parents
        if parent.exchange_time
    ]
    return max(ends, default=None)


def series(
    warehouse: Warehouse, piece: Range, now: int | None, *, drawn: bool
) -> tuple[Measured, pl.DataFrame, list[Gap]]:
    """Measure one series of a batch as of the moment `now`.

    The frame holds the bars that the statistics are of, with what a picture needs where it is
    to be `drawn`; the gaps are all that touch those bars or the grid.
    """
    step = intervals.millis(piece.interval)
    end = piece.last_open + step
    since = min(piece.first_open, piece.last_open - (STATISTICS_BARS - 1) * step)
    frame = frames.read(
        warehouse,
        piece.symbol,
        piece.interval,
        since=since,
        until=end,
        table="knime_processed",
        columns=_DRAWN if drawn else _MEASURED,
    )
    until = end if now is None else max(end, intervals.floor(now, piece.interval))
    with warehouse.reading() as connection:
        missing = gaps.of_series(
            connection,
            piece.symbol,
            piece.interval,
            since=min(since, piece.first_open - step),
            until=until,
        )
        # An outage that ended with this batch's first bar belongs to no batch before it.
        first = next(
            (gap.first_open for gap in missing if gap.end == piece.first_open), piece.first_open
        )
        grid = Span(piece.symbol, piece.interval, first, until)
        present = connection.scalar(sa.select(sa.func.count()).where(grid.of(knime_processed)))
        age = None if now is None else _age(connection, piece, now)
    measured = Measured(
        piece=piece,
        grid=grid,
        gaps=[_cut(gap, grid) for gap in missing if gap.end > first],
        present=present or 0,
        freshness_hours=age,
        statistics=_statistics(frame, step),
    )
    return measured, frame, missing


def quality(measured: Sequence[Measured]) -> float:
    """Share of the grid's expected bars that are present, closed and unrejected, 0 to 1."""
    expected = sum(one.expected for one in measured)
    return sum(one.present for one in measured) / expected if expected else 1.0


def _age(connection: Connection, piece: Range, now: int) -> float | None:
    """Age in hours of the newest bar that had closed at `now`: later batches may wait behind."""
    c = knime_processed.c
    newest = connection.scalar(
        sa.select(c.close_time)
        .where(c.symbol == piece.symbol, c.interval == piece.interval, c.close_time < now)
        .order_by(c.open_time.desc())  # along the key: close times grow with it
        .limit(1)
    )
    return None if newest is None else (now - newest) / _HOUR_MS


def _cut(gap: Gap, grid: Span) -> Gap:
    step = intervals.millis(grid.interval)
    first, last = max(gap.first_open, grid.since), min(gap.last_open, grid.until - step)
    return replace(gap, first_open=first, last_open=last, bars=(last - first) // step + 1)


def _statistics(frame: pl.DataFrame, step: int) -> dict[str, float]:
    """Return and volatility of the close, volatility as the sample deviation of log returns."""
    returns = frame["log_return"].drop_nulls()
    closes = frame["close"]
    found: dict[str, float] = {}
    if len(closes):
        found["return_total"] = float(closes[-1] / closes[0] - 1)
    if len(returns) > 1:
        deviation = float(returns.std())  # type: ignore[arg-type]
        found["log_return_mean"] = float(returns.mean())  # type: ignore[arg-type]
        found["volatility"] = deviation
        found["volatility_annual"] = deviation * math.sqrt(_YEAR_MS / step)
        found["log_return_min"] = float(returns.min())  # type: ignore[arg-type]
        found["log_return_max"] = float(returns.max())  # type: ignore[arg-type]
    return found
