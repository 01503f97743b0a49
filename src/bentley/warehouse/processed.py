"""Processed bars: from a batch's landing rows into `knime_processed`, all or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain.bars import FIELDS
from bentley.domain.clock import iso
from bentley.domain.errors import FatalError
from bentley.warehouse import bulk, quarantine
from bentley.warehouse.ledger import PROCESS, Range
from bentley.warehouse.quarantine import Brief
from bentley.warehouse.schema import (
    binance_ohlcv,
    consumption,
    knime_landing,
    knime_processed,
)

_REJECT_COLUMNS = (*FIELDS, "source_batch_id", "reject_reason")


@dataclass(frozen=True)
class Span:
    """Bars of one series: since <= open_time < until."""

    symbol: str
    interval: str
    since: int
    until: int

    def of(self, table: sa.Table) -> sa.ColumnElement[bool]:
        """Select the span's rows in a table of bars."""
        c = table.c
        return sa.and_(
            c.symbol == self.symbol,
            c.interval == self.interval,
            c.open_time >= self.since,
            c.open_time < self.until,
        )


@dataclass(frozen=True)
class Folded:
    """What became of the closed bars of a span: read = written + rejected."""

    read: int
    written: int
    rejected: int
    range: Range | None
    rejects: list[Brief]
    """The first of those that were rejected."""


def clear_landing(connection: Connection, batch_ids: Iterable[int]) -> None:
    """Drop the landing rows of batches that are over."""
    connection.execute(knime_landing.delete().where(knime_landing.c.batch_id.in_(list(batch_ids))))


def fold(connection: Connection, span: Span, *, batch_id: int, taken: Sequence[int]) -> Folded:
    """Replace the processed bars of a span by what landed for `batch_id`.

    `taken` are the ingest batches that this one consumes. Bars of a batch that nobody has
    consumed yet are the next run's, even where some of them are in the table already.
    The workflow lands every bar, those that it refuses with a reason: one without a landing
    row was lost, whatever the workflow's exit said. Raises FatalError for that, and for
    landing rows beyond the bars that went in.
    """
    landed = sa.and_(span.of(knime_landing), knime_landing.c.batch_id == batch_id)
    due = _due(span, batch_id, taken)
    raw = binance_ohlcv.c
    read, first, last = connection.execute(
        sa.select(sa.func.count(), sa.func.min(raw.open_time), sa.func.max(raw.open_time)).where(
            due
        )
    ).one()
    _all_landed(connection, span, due, batch_id, read=read)
    rejected, rejects = _reject(connection, landed, batch_id)
    replaced = span.of(knime_processed)
    connection.execute(knime_processed.delete().where(replaced))
    names = [column.name for column in knime_processed.c]
    good = sa.select(*(knime_landing.c[name] for name in names)).where(
        landed, knime_landing.c.reject_reason.is_(None)
    )
    connection.execute(knime_processed.insert().from_select(names, good))
    written = connection.scalar(sa.select(sa.func.count()).where(replaced)) or 0
    if read != written + rejected:
        msg = (
            f"{span.symbol} {span.interval}: {read} closed bars went into the workflow, but {written} "
            f"came out and {rejected} were rejected; nothing was stored"
        )
        raise FatalError(msg)
    touched = Range(span.symbol, span.interval, first, last, read) if read else None
    return Folded(read, written, rejected, touched, rejects)


def _landed(batch_id: int) -> sa.Exists:
    raw, land = binance_ohlcv.c, knime_landing.c
    return sa.exists().where(
        land.batch_id == batch_id,
        land.symbol == raw.symbol,
        land.interval == raw.interval,
        land.open_time == raw.open_time,
    )


def _due(span: Span, batch_id: int, taken: Sequence[int]) -> sa.ColumnElement[bool]:
    """Select the closed bars that this batch must account for."""
    raw = binance_ohlcv.c
    consumed = sa.exists().where(
        consumption.c.consumer == PROCESS, consumption.c.batch_id == raw.batch_id
    )
    return sa.and_(
        span.of(binance_ohlcv),
        raw.is_closed == 1,
        sa.or_(raw.batch_id.in_(taken), consumed, _landed(batch_id)),
    )


def _all_landed(
    connection: Connection, span: Span, due: sa.ColumnElement[bool], batch_id: int, *, read: int
) -> None:
    raw = binance_ohlcv.c
    lost, first = connection.execute(
        sa.select(sa.func.count(), sa.func.min(raw.open_time)).where(due, ~_landed(batch_id))
    ).one()
    if lost:
        msg = (
            f"{span.symbol} {span.interval}: the workflow ended as if it had worked, but {lost} of "
            f"{read} bars are not in {knime_landing.name}, the first of {iso(first)}; nothing was "
            "stored: look at the workflow's writer, its filters and its variables"
        )
        raise FatalError(msg)


def _reject(
    connection: Connection, landed: sa.ColumnElement[bool], batch_id: int
) -> tuple[int, list[Brief]]:
    rows = connection.execute(
        sa.select(*(knime_landing.c[name] for name in _REJECT_COLUMNS)).where(
            landed, knime_landing.c.reject_reason.is_not(None)
        )
    ).all()
    names = [*FIELDS, "source_batch_id", "reason"]
    text = [[None if cell is None else str(cell) for cell in row] for row in rows]
    rejected = pl.DataFrame(text, schema=dict.fromkeys(names, pl.String), orient="row")
    return len(rows), quarantine.put(connection, rejected, batch_id=batch_id, stage=PROCESS)


def of_batch(
    connection: Connection, batch_id: int, ranges: Iterable[Range], *, step: int = 25_000
) -> Iterator[pl.DataFrame]:
    """Read FIELDS of the bars that bear `batch_id`, in key order, in bounded pieces."""
    c = knime_processed.c
    for piece in sorted(ranges, key=lambda piece: (piece.symbol, piece.interval)):
        span = Span(piece.symbol, piece.interval, piece.first_open, piece.last_open + 1)
        query = sa.select(*(c[name] for name in FIELDS)).where(
            span.of(knime_processed), c.batch_id == batch_id
        )
        yield from bulk.pages(connection, query, c.open_time, size=step)
