"""What the sources say of each session into `stock_consensus`, one price each, and the gaps.

It takes every batch of prices that it has not consumed, and decides the sessions anew that those
touched: so a correction of any source, whenever it comes, changes what follows from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import sqlalchemy as sa

from bentley.domain import consensus as domain
from bentley.domain import sessions
from bentley.settings import Settings
from bentley.stages.closing import DEAD, without_rows
from bentley.stages.report import StageReport, of_batch
from bentley.warehouse import ledger
from bentley.warehouse import stocks as stored
from bentley.warehouse.ledger import CONSENSUS, STOCK_EVENT, Range
from bentley.warehouse.schema import stock_prices
from bentley.warehouse.warehouse import Warehouse

ENGINE = "bentley"

_LOCK_SECONDS = 900.0
_EVER = (sessions.start_of(date.min), sessions.start_of(date.max))


def decide(settings: Settings, *, again: bool = False, dag_run: str | None = None) -> StageReport:
    """Decide every session that a batch of prices touched; with `again`, all that are stored."""
    with (
        Warehouse.open(settings) as warehouse,
        warehouse.alone(CONSENSUS, wait_seconds=_LOCK_SECONDS),
    ):
        with warehouse.reading() as connection:
            dead = ledger.running(connection, CONSENSUS)
        for batch in dead:  # each all one transaction: nothing is written, or it is committed now
            without_rows(warehouse, batch.id, DEAD)
        with warehouse.reading() as connection:
            taken = ledger.unconsumed(connection, CONSENSUS)
            tickers = connection.scalars(sa.select(stock_prices.c.ticker).distinct()).all()
        touched = _touched(span for batch in taken for span in batch.ranges)
        if again:
            touched |= dict.fromkeys(tickers, _EVER)
        if not touched:
            return StageReport(stage=CONSENSUS, engine=ENGINE, origin=settings.origin)
        with warehouse.writing() as connection:
            batch_id = ledger.begin(
                connection,
                CONSENSUS,
                engine=ENGINE,
                parents=[batch.id for batch in taken],
                dag_run=dag_run,
            )
        try:
            batch = _write(settings, warehouse, batch_id, touched, [one.id for one in taken])
        except BaseException as error:
            without_rows(warehouse, batch_id, error)
            raise
    return of_batch(batch, origin=settings.origin, details=batch.details)


def announcement(settings: Settings) -> dict[str, Any] | None:
    """Sum up what was decided and not announced yet, by whomever; None where nothing is new."""
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        waiting = ledger.unconsumed(connection, STOCK_EVENT)
    if not waiting:
        return None
    return {
        "batch_id": waiting[-1].id,
        "rows": sum(batch.rows_news for batch in waiting),
        "watermark": max(batch.watermark or 0 for batch in waiting),
        "origin": settings.origin,
    }


def announced(settings: Settings, batch_id: int) -> None:
    """Note that the event of a batch, and of all before it, was emitted."""
    with Warehouse.open(settings) as warehouse, warehouse.writing() as connection:
        waiting = ledger.unconsumed(connection, STOCK_EVENT)
        taken = [batch.id for batch in waiting if batch.id <= batch_id]
        ledger.consume(connection, STOCK_EVENT, taken, by=batch_id)


def _touched(ranges: Iterable[Range]) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for span in ranges:
        first, last = found.get(span.symbol, (span.first_open, span.last_open))
        found[span.symbol] = (min(first, span.first_open), max(last, span.last_open))
    return found


def _write(
    settings: Settings,
    warehouse: Warehouse,
    batch_id: int,
    touched: dict[str, tuple[int, int]],
    taken: list[int],
) -> ledger.Batch:
    flags: dict[str, int] = {}
    missing: dict[str, int] = {}
    watermark: int | None = None
    with warehouse.writing() as connection:
        for ticker, (first, last) in sorted(touched.items()):
            days = (sessions.day_of(first), sessions.day_of(last))
            prices = stored.prices(connection, ticker, first=days[0], last=days[1])
            fresh = domain.decide(prices, order=settings.sources, bound_bps=settings.consensus_bps)
            ranges = stored.settle(connection, fresh, batch_id=batch_id)
            rows = sum(span.rows for span in ranges)
            ledger.add(
                connection, batch_id, read=prices.height, written=rows, news=rows, ranges=ranges
            )
            for flag, count in fresh["quality_flag"].value_counts().iter_rows():
                flags[flag] = flags.get(flag, 0) + count
            if gaps := stored.record_gaps(connection, ticker, batch_id=batch_id):
                missing[ticker] = gaps
            for span in ranges:
                watermark = max(watermark or 0, span.last_open)
        details = {"flags": flags, "missing_sessions": missing}
        ledger.consume(connection, CONSENSUS, taken, by=batch_id)
        ledger.close(connection, batch_id, checksum=None, watermark=watermark, details=details)
    with warehouse.reading() as connection:
        closed = ledger.get(connection, batch_id)
    assert closed is not None  # noqa: S101
    return closed
