"""Figures of a processed batch, measured from the tables and the ledger."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import polars as pl
import sqlalchemy as sa

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


@dataclass(frozen=True)
class Measured:
    """One series as a batch left it.

    `frame` holds the processed bars that the statistics are of; `span` is the batch's own.
    """

    span: Span
    frame: pl.DataFrame
    gaps: Sequence[Gap]
    expected: int
    present: int
    last_close: int | None

    @property
    def label(self) -> str:
        """How the series is called in metrics and files."""
        return f"{self.span.symbol}-{self.span.interval}"

    def freshness_hours(self, exchange_time: int) -> float | None:
        """Age of the newest closed bar by the exchange's clock."""
        return None if self.last_close is None else (exchange_time - self.last_close) / _HOUR_MS

    def statistics(self) -> dict[str, float]:
        """Return and volatility of the close, volatility as the sample deviation of log returns."""
        returns = self.frame["log_return"].drop_nulls()
        closes = self.frame["close"]
        found: dict[str, float] = {}
        if len(closes):
            found["return_total"] = float(closes[-1] / closes[0] - 1)
        if len(returns) > 1:
            deviation = float(returns.std())  # type: ignore[arg-type]
            per_year = _YEAR_MS / intervals.millis(self.span.interval)
            found["log_return_mean"] = float(returns.mean())  # type: ignore[arg-type]
            found["volatility"] = deviation
            found["volatility_annual"] = deviation * math.sqrt(per_year)
            found["log_return_min"] = float(returns.min())  # type: ignore[arg-type]
            found["log_return_max"] = float(returns.max())  # type: ignore[arg-type]
        return found


def series(warehouse: Warehouse, batch: Batch) -> Iterator[Measured]:
    """Measure each series of a batch, one at a time to bound memory."""
    for piece in batch.ranges:
        yield _measure(warehouse, piece)


def _measure(warehouse: Warehouse, piece: Range) -> Measured:
    step = intervals.millis(piece.interval)
    span = Span(piece.symbol, piece.interval, piece.first_open, piece.last_open + step)
    since = min(piece.first_open, piece.last_open - (STATISTICS_BARS - 1) * step)
    frame = frames.read(
        warehouse,
        piece.symbol,
        piece.interval,
        since=since,
        until=span.until,
        table="knime_processed",
        columns=("open_time", "open", "high", "low", "close", "volume", "log_return"),
    )
    c = knime_processed.c
    with warehouse.reading() as connection:
        missing = gaps.of_series(
            connection, piece.symbol, piece.interval, since=since, until=span.until
        )
        present = connection.scalar(sa.select(sa.func.count()).where(span.of(knime_processed)))
        last_close = connection.scalar(
            sa.select(sa.func.max(c.close_time)).where(
                c.symbol == piece.symbol, c.interval == piece.interval
            )
        )
    expected = intervals.expected(span.since, span.until, piece.interval)
    return Measured(span, frame, missing, expected, present or 0, last_close)


def quality(measured: Sequence[Measured]) -> float:
    """Share of the grid's expected bars that are present, closed and unrejected, 0 to 1."""
    expected = sum(one.expected for one in measured)
    return sum(one.present for one in measured) / expected if expected else 1.0
