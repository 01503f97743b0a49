"""The ledger: every run of a stage is a batch, and what a stage has to do is an anti-join.

A batch is `running` while its stage holds the stage's lock, then `committed` or `failed`.
Its counts are written with the rows that they count, so a failed batch is exact, too: what
it wrote before it failed is valid and waits for its consumers like any other.
Consumers take every closed batch with news that they have not consumed, one by one and
never by "greater than the last": transactions commit out of order.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from bentley.domain.errors import RetriableError
from bentley.warehouse.schema import batch_parents, batch_ranges, batch_runs, batches, consumption

INGEST = "ingest"
PROCESS = "process"
TRACK = "track"
STOCKS = "stocks"
CONSENSUS = "stock_consensus"
SENTIMENT = "sentiment"
STOCK_EVENT = "stock_event"

UPSTREAM = {PROCESS: INGEST, TRACK: PROCESS, CONSENSUS: STOCKS, STOCK_EVENT: CONSENSUS}
"""Whose batches a stage consumes."""

RUNNING = "running"
COMMITTED = "committed"
FAILED = "failed"

# Made once, for a bulk of rows does each again and again, and to put them together takes longer
# than to do them.
_ADD = (
    batches.update()
    .where(batches.c.id == sa.bindparam("batch"), batches.c.status == RUNNING)
    .values(
        {
            f"rows_{what}": batches.c[f"rows_{what}"] + sa.bindparam(what)
            for what in ("read", "written", "news", "rejected")
        }
    )
)
_FIRST, _LAST = (sa.bindparam(f"_{end}_open", type_=sa.BigInteger()) for end in ("first", "last"))
_R = batch_ranges.c
_WIDEN = (
    batch_ranges.update()
    .where(*(_R[name] == sa.bindparam(f"_{name}") for name in ("batch_id", "symbol", "interval")))
    .values(
        first_open=sa.case((_R.first_open < _FIRST, _R.first_open), else_=_FIRST),
        last_open=sa.case((_R.last_open > _LAST, _R.last_open), else_=_LAST),
        rows=_R.rows + sa.bindparam("_rows"),
    )
)


@dataclass(frozen=True)
class Range:
    """Bars of one series that a batch touched, open times of the first and the last inclusive."""

    symbol: str
    interval: str
    first_open: int
    last_open: int
    rows: int


@dataclass(frozen=True)
class Batch:
    """A row of the ledger with what hangs on it; times in UTC milliseconds.

    `rows_news` counts what a consumer must know of: closed bars that are new or changed.
    """

    id: int
    stage: str
    status: str
    engine: str
    rows_read: int
    rows_written: int
    rows_news: int
    rows_rejected: int
    checksum: str | None
    watermark: int | None
    exchange_time: int | None
    started_at: int
    ended_at: int | None
    dag_run: str | None
    error: str | None
    details: Mapping[str, Any] = field(default_factory=dict)
    parents: tuple[int, ...] = ()
    pipeline_runs: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()

    @property
    def seconds(self) -> float | None:
        """How long the batch took."""
        return None if self.ended_at is None else (self.ended_at - self.started_at) / 1000


def now_ms() -> int:
    """This machine's clock, for the ledger's own times only; bars go by the exchange's clock."""
    return time.time_ns() // 1_000_000


def begin(
    connection: Connection,
    stage: str,
    *,
    engine: str,
    parents: Iterable[int] = (),
    pipeline_runs: Iterable[str] = (),
    dag_run: str | None = None,
    exchange_time: int | None = None,
) -> int:
    """Open a batch; it inherits its parents' pipeline runs."""
    parents = sorted(set(parents))
    inherited = (
        connection.scalars(
            sa.select(batch_runs.c.pipeline_run).where(batch_runs.c.batch_id.in_(parents))
        ).all()
        if parents
        else ()
    )
    inserted = connection.execute(
        batches.insert().values(
            stage=stage,
            status=RUNNING,
            engine=engine,
            rows_read=0,
            rows_written=0,
            rows_news=0,
            rows_rejected=0,
            exchange_time=exchange_time,
            started_at=now_ms(),
            dag_run=dag_run,
            details="{}",
        )
    )
    batch_id: int = inserted.inserted_primary_key.id  # type: ignore[union-attr]
    if parents:
        rows = [{"batch_id": batch_id, "parent_id": parent} for parent in parents]
        connection.execute(batch_parents.insert(), rows)
    runs = sorted({*inherited, *pipeline_runs})
    if runs:
        rows = [{"batch_id": batch_id, "pipeline_run": run} for run in runs]
        connection.execute(batch_runs.insert(), rows)
    return batch_id


def add(  # a chunk of rows and its counts are one transaction
    connection: Connection,
    batch_id: int,
    *,
    read: int = 0,
    written: int = 0,
    news: int = 0,
    rejected: int = 0,
    ranges: Iterable[Range] = (),
) -> None:
    """Add a chunk's counts and ranges to an open batch.

    Raises RetriableError for one that is closed: its consumers may have taken it, and would
    never hear of more. That happens to a process whose lock a restarted server has dropped.
    """
    more = {"read": read, "written": written, "news": news, "rejected": rejected}
    if not connection.execute(_ADD, {"batch": batch_id, **more}).rowcount:
        raise _taken_over(batch_id)
    for piece in ranges:
        _widen(connection, batch_id, piece)


def _taken_over(batch_id: int) -> RetriableError:
    return RetriableError(f"another process has closed batch {batch_id} meanwhile; run this again")


def _widen(connection: Connection, batch_id: int, piece: Range) -> None:
    widened = {f"_{name}": value for name, value in vars(piece).items()}
    if not connection.execute(_WIDEN, {"_batch_id": batch_id, **widened}).rowcount:
        connection.execute(batch_ranges.insert().values(batch_id=batch_id, **vars(piece)))


def await_commit(connection: Connection, batch_id: int) -> None:
    """Wait until no transaction is left that has counted rows of a batch.

    A server still carries out a commit whose asker has died or lost it meanwhile.
    """
    connection.execute(sa.select(batches.c.id).where(batches.c.id == batch_id).with_for_update())


def close(
    connection: Connection,
    batch_id: int,
    *,
    checksum: str | None,
    watermark: int | None = None,
    details: Mapping[str, Any] = MappingProxyType({}),
    error: str | None = None,
) -> None:
    """Close a batch: from here on its consumers may take it. With an `error` it has failed.

    Raises RetriableError where a batch is to be committed that another process has closed.
    """
    closed = connection.execute(
        batches.update()
        .where(batches.c.id == batch_id, batches.c.status == RUNNING)
        .values(
            status=COMMITTED if error is None else FAILED,
            ended_at=now_ms(),
            checksum=checksum,
            watermark=watermark,
            details=json.dumps(dict(details), sort_keys=True),
            error=None if error is None else error[:10_000],
        )
    )
    if not closed.rowcount and error is None:
        raise _taken_over(batch_id)


def consume(connection: Connection, consumer: str, taken: Iterable[int], by: int) -> None:
    """Mark batches as consumed, in the transaction that commits what was made of them."""
    rows = [{"consumer": consumer, "batch_id": batch, "by_batch_id": by} for batch in taken]
    if rows:
        connection.execute(consumption.insert(), rows)


def unconsumed(connection: Connection, consumer: str) -> list[Batch]:
    """List the closed batches with news that `consumer` has not consumed, oldest first."""
    done = sa.select(consumption.c.batch_id).where(
        consumption.c.consumer == consumer, consumption.c.batch_id == batches.c.id
    )
    return _load(
        connection,
        batches.c.stage == UPSTREAM[consumer],
        batches.c.status != RUNNING,
        batches.c.rows_news > 0,
        ~done.exists(),
    )


def running(connection: Connection, stage: str) -> list[Batch]:
    """List the open batches of a stage; whoever holds the stage's lock knows them for dead."""
    return _load(connection, batches.c.stage == stage, batches.c.status == RUNNING)


def get(connection: Connection, batch_id: int) -> Batch | None:
    """Find one batch."""
    found = _load(connection, batches.c.id == batch_id)
    return found[0] if found else None


def of_run(connection: Connection, pipeline_run: str) -> list[Batch]:
    """List every batch that has `pipeline_run` among its ancestors' runs or its own."""
    member = sa.select(batch_runs.c.batch_id).where(batch_runs.c.pipeline_run == pipeline_run)
    return _load(connection, batches.c.id.in_(member))


def recent(connection: Connection, stage: str, *, limit: int) -> list[Batch]:
    """List the latest committed batches of a stage, oldest first."""
    newest = (
        sa.select(batches.c.id)
        .where(batches.c.stage == stage, batches.c.status == COMMITTED)
        .order_by(batches.c.id.desc())
        .limit(limit)
    )
    ids = connection.scalars(newest).all()
    return _load(connection, batches.c.id.in_(ids))


def failing(connection: Connection, stage: str) -> tuple[int, int]:
    """How often a stage has failed since it last succeeded, and when it last did (0 for never)."""
    c = batches.c
    done = connection.scalar(
        sa.select(sa.func.max(c.id)).where(c.stage == stage, c.status == COMMITTED)
    )
    count, last = connection.execute(
        sa.select(sa.func.count(), sa.func.max(c.ended_at)).where(
            c.stage == stage, c.status == FAILED, c.id > (done or 0)
        )
    ).one()
    return int(count), int(last or 0)


def failed_since(connection: Connection, stage: str, time: int) -> bool:
    """Whether a batch of a stage was closed as failed at a time of this machine's, or later."""
    c = batches.c
    failed = (c.stage == stage, c.status == FAILED, c.ended_at >= time)
    return connection.scalar(sa.select(sa.literal(1)).where(*failed).limit(1)) is not None


def _load(connection: Connection, *where: sa.ColumnElement[bool]) -> list[Batch]:
    rows = connection.execute(sa.select(batches).where(*where).order_by(batches.c.id)).all()
    ids = [row.id for row in rows]
    if not ids:
        return []
    parents = _grouped(connection, batch_parents.c.batch_id, batch_parents.c.parent_id, ids)
    runs = _grouped(connection, batch_runs.c.batch_id, batch_runs.c.pipeline_run, ids)
    ranges: dict[int, list[Range]] = {}
    c = batch_ranges.c
    for row in connection.execute(
        sa.select(batch_ranges).where(c.batch_id.in_(ids)).order_by(c.symbol, c.interval)
    ):
        piece = Range(row.symbol, row.interval, row.first_open, row.last_open, row.rows)
        ranges.setdefault(row.batch_id, []).append(piece)
    return [_batch(row, parents, runs, ranges) for row in rows]


def _batch(
    row: Row[Any],
    parents: Mapping[int, list[Any]],
    runs: Mapping[int, list[Any]],
    ranges: Mapping[int, list[Range]],
) -> Batch:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    values["details"] = json.loads(values["details"])
    return Batch(
        **values,
        parents=tuple(parents.get(row.id, ())),
        pipeline_runs=tuple(runs.get(row.id, ())),
        ranges=tuple(ranges.get(row.id, ())),
    )


def _grouped(
    connection: Connection, key: sa.Column[Any], value: sa.Column[Any], ids: Sequence[int]
) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for owner, item in connection.execute(
        sa.select(key, value).where(key.in_(ids)).order_by(key, value)
    ):
        found.setdefault(owner, []).append(item)
    return found
