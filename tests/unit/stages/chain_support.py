"""What the tests of the chain share: bars to put in, a digest of what came out, processes."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping
from typing import Any

import polars as pl
import sqlalchemy as sa

from bentley.domain.bars import BAR_SCHEMA, RAW_SCHEMA, sift
from bentley.stages import intake
from bentley.stages.intake import Intake
from bentley.warehouse import bars, gaps, ledger
from bentley.warehouse.ledger import INGEST
from bentley.warehouse.schema import (
    binance_ohlcv,
    consumption,
    knime_landing,
    knime_processed,
)
from bentley.warehouse.schema import gaps as gaps_table
from bentley.warehouse.schema import quarantine as quarantine_table
from bentley.warehouse.warehouse import Warehouse

HOUR = 3_600_000
START = 1_600_000_000_000 // HOUR * HOUR
"""The open time of the first bar of every made series."""

LATER = START + 100_000 * HOUR
"""A clock that has seen every made bar close."""

_UNSTABLE = {"batch_id", "source_batch_id", "updated_at"}


def bar(at: int, close: str = "100.00000000", **changes: object) -> dict[str, str]:
    """A sound hourly bar, `at` hours after START, as the exchange writes it."""
    opened = START + at * HOUR
    row: dict[str, object] = {
        "symbol": "BTCUSDT",
        "interval": "1h",
        "open_time": opened,
        "open": close,
        "high": "900.00000000",
        "low": "0.10000000",
        "close": close,
        "volume": "10.00000000",
        "close_time": opened + HOUR - 1,
        "quote_volume": "1000.50000000",
        "trades": 7,
        "taker_buy_base_volume": "4.25000000",
        "taker_buy_quote_volume": "400.00000000",
    }
    return {name: str(cell) for name, cell in (row | changes).items()}


def series(count: int, *, seed: int = 1, first: int = 0, **changes: object) -> list[dict[str, str]]:
    """Bars of one series with random closes, the same for the same seed."""
    rng = random.Random(seed)
    return [bar(first + at, f"{rng.uniform(50, 500):.8f}", **changes) for at in range(count)]


def frame(rows: Iterable[Mapping[str, str]], *, now: int = LATER) -> pl.DataFrame:
    """The bars of sound rows, as `sift` gives them at the clock `now`."""
    sifted = sift(pl.DataFrame(list(rows), schema=RAW_SCHEMA), now=now)
    assert not sifted.rejected.height, sifted.rejected
    return sifted.bars


def ingest_batch(
    warehouse: Warehouse,
    rows: Iterable[Mapping[str, str]],
    *,
    now: int = LATER,
    runs: Iterable[str] = (),
    error: str | None = None,
) -> int:
    """Commit rows as a sync does, without a connector; return the batch's id."""
    rows = list(rows)
    with warehouse.writing() as connection:
        batch_id = ledger.begin(
            connection, INGEST, engine="test", pipeline_runs=runs, exchange_time=now
        )
    add_rows(warehouse, batch_id, rows, now=now)
    intake.close(warehouse, batch_id, error=error)
    return batch_id


def add_rows(
    warehouse: Warehouse, batch_id: int, rows: list[Mapping[str, str]], *, now: int = LATER
) -> None:
    """One chunk of a sync: its rows, counts, gaps and rejects in one transaction."""
    sifted = sift(pl.DataFrame(rows, schema=RAW_SCHEMA), now=now)
    Intake(warehouse, batch_id, source="test", max_share=1.0).store(sifted, read=len(rows))


def ingest_unchecked(warehouse: Warehouse, rows: Iterable[Mapping[str, str]]) -> int:
    """Commit rows past the checks of the ingest, so that the workflow's own have something to do."""
    cells = pl.DataFrame(list(rows), schema=RAW_SCHEMA).with_columns(is_closed=pl.lit(True))
    unchecked = cells.select(pl.col(name).cast(dtype) for name, dtype in BAR_SCHEMA.items())
    with warehouse.writing() as connection:
        batch_id = ledger.begin(connection, INGEST, engine="test", exchange_time=LATER)
        done = bars.upsert(connection, unchecked, batch_id=batch_id, source="test")
        ledger.add(connection, batch_id, written=done.rows, news=done.news, ranges=done.ranges)
        for touched in done.ranges:
            gaps.record(connection, touched, batch_id=batch_id)
    intake.close(warehouse, batch_id)
    return batch_id


def digest(warehouse: Warehouse) -> dict[str, str]:
    """A checksum of what each table says of the market, without batches and times of ours."""
    with warehouse.reading() as connection:
        found = {
            table.name: _digest(connection, table)
            for table in (binance_ohlcv, knime_processed, gaps_table)
        }
        c = quarantine_table.c
        kept = [
            (row.stage, row.reason, json.dumps(_stable(json.loads(row.content)), sort_keys=True))
            for row in connection.execute(sa.select(c.stage, c.reason, c.content))
        ]
        found["quarantine"] = _hash(sorted(kept))
        found["landing"] = str(connection.scalar(sa.select(sa.func.count(knime_landing.c.symbol))))
        left = [ledger.unconsumed(connection, consumer) for consumer in ledger.UPSTREAM]
        found["unconsumed"] = str([sum(batch.rows_news for batch in one) for one in left[:1]])
    return found


def rows_of(warehouse: Warehouse, table: sa.Table, *names: str) -> list[tuple[Any, ...]]:
    """Rows of a table in the order of its key, all columns or the named."""
    columns = [table.c[name] for name in names] or list(table.c)
    with warehouse.reading() as connection:
        query = sa.select(*columns).order_by(*table.primary_key)
        return [tuple(row) for row in connection.execute(query)]


def consumed(warehouse: Warehouse, consumer: str) -> dict[int, int]:
    """Every consumed batch and the batch that consumed it."""
    with warehouse.reading() as connection:
        c = consumption.c
        rows = connection.execute(
            sa.select(c.batch_id, c.by_batch_id).where(c.consumer == consumer)
        )
        return {row.batch_id: row.by_batch_id for row in rows}


def batches(warehouse: Warehouse, stage: str) -> list[ledger.Batch]:
    """Every batch of a stage."""
    with warehouse.reading() as connection:
        return ledger._load(connection, ledger.batches.c.stage == stage)


def _digest(connection: sa.Connection, table: sa.Table) -> str:
    columns = [column for column in table.c if column.name not in _UNSTABLE]
    return _hash(connection.execute(sa.select(*columns).order_by(*table.primary_key)))


def _hash(rows: Iterable[Any]) -> str:
    hashed = hashlib.sha256()
    for row in rows:
        hashed.update((repr(tuple(row)) + "\n").encode())
    return hashed.hexdigest()


def _stable(content: dict[str, Any]) -> dict[str, Any]:
    return {name: cell for name, cell in content.items() if name not in _UNSTABLE}
