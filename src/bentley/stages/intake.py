"""What every way into `binance_ohlcv` shares: how rows are stored, and how their batch is closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import polars as pl
import structlog
from sqlalchemy.engine import Connection

from bentley.domain import bars as domain_bars
from bentley.domain.bars import Checksum, Sifted
from bentley.domain.clock import iso
from bentley.domain.errors import ConfigurationError, DataError, described
from bentley.settings import Settings
from bentley.sources import exchange
from bentley.stages.closing import DEAD, Counted, counted
from bentley.stages.report import StageReport, of_batch
from bentley.warehouse import bars, gaps, ledger, quarantine
from bentley.warehouse.bars import Prepared, Written
from bentley.warehouse.database import BULK_LOG_PAGES
from bentley.warehouse.ledger import INGEST, Range
from bentley.warehouse.quarantine import Brief
from bentley.warehouse.schema import batches
from bentley.warehouse.warehouse import Warehouse

_LOCK_SECONDS = 900.0
_LOG_PAGES = BULK_LOG_PAGES  # so long SQLite's log may grow while it is copied beside a writer

_log = structlog.get_logger(__name__)


class Intake:
    """The rows of one open batch on their way into the table; the caller holds the stage's lock.

    `max_share` is the share of bad rows past which the batch fails. In `bulk` the table is looked
    at behind the rows, while the next are stored, and not in the end.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        batch_id: int,
        *,
        source: str,
        max_share: float,
        bulk: bool = False,
    ) -> None:
        self.warehouse = warehouse
        self.batch_id = batch_id
        self.source = source
        self.max_share = max_share
        self.read = 0
        self.rejected = 0
        self.rejects: list[Brief] = []
        """The first bad rows."""
        self._last_key = ("", "", -1)
        self._in_order = bulk
        self._checksum = Checksum()
        self._found: tuple[int, int, int | None] = (0, 0, None)
        self._after = ThreadPoolExecutor(2)  # while the next chunk is stored
        self._afterwards: Future[None] | None = None
        self._settled: Future[int] | None = None  # with the pages of the log

    def close(self) -> None:
        """Wait for what looks back; its error, if any, is that of `counted`."""
        self._after.shutdown(cancel_futures=True)

    def store(
        self, sifted: Sifted, *, read: int, then: Callable[[Connection], None] | None = None
    ) -> None:
        """Store a chunk of `read` rows with its counts and gaps, and do `then`: one transaction."""
        self.look_back(self.put(sifted, read=read, then=then))

    def put(
        self,
        sifted: Sifted,
        *,
        read: int,
        ahead: Prepared | None = None,
        turn: Callable[[], None] | None = None,
        then: Callable[[Connection], None] | None = None,
    ) -> Written:
        """Store a chunk like `store`; what it returns is to be looked back at, chunk by chunk.

        `ahead` is what was `prepared` of its bars. Several threads may put chunks of other bars at
        once: each writes its own, and waits for its `turn` to count them and to commit.
        """
        # The batch is closed by a flushed one: what a loss of power takes away, its restart brings.
        with self.warehouse.writing(flushed=False) as connection:
            done = bars.upsert(
                connection,
                sifted.bars,
                batch_id=self.batch_id,
                source=self.source,
                ahead=ahead,
                turn=turn,
            )
            if turn is not None:
                turn()
            self._count(connection, sifted.rejected, done, read=read)
            if then is not None:
                then(connection)
        return done

    def _count(
        self, connection: Connection, rejected: pl.DataFrame, done: Written, *, read: int
    ) -> None:
        self.read += read
        self.rejected += rejected.height
        named = quarantine.put(connection, rejected, batch_id=self.batch_id, stage=INGEST)
        self.rejects = [*self.rejects, *named][: quarantine.NAMED]
        ledger.add(
            connection,
            self.batch_id,
            read=read,
            written=done.rows,
            news=done.news,
            rejected=rejected.height,
            ranges=done.ranges,
        )
        for touched in done.ranges:
            gaps.record(connection, touched, batch_id=self.batch_id)

    def look_back(self, done: Written) -> None:
        """Count and sum what was committed, as long as bars come in the order of a checksum."""
        fresh = done.fresh
        if not fresh.height or not self._in_order:
            return
        first, last = (fresh.row(at)[:3] for at in (0, -1))
        one_series = first[:2] == last[:2] and fresh["symbol"].n_unique() == 1
        self._in_order = one_series and first > self._last_key and fresh["open_time"].is_sorted()
        if self._in_order:
            self._last_key = last
            if self._wait() > _LOG_PAGES:
                self.warehouse.settle()  # wholly, for nobody writes now: the log starts anew
            self._afterwards = self._after.submit(self._take_in, fresh, done.ranges)
            self._settled = self._after.submit(self.warehouse.settle)

    def _take_in(self, fresh: pl.DataFrame, ranges: Sequence[Range]) -> None:
        self._checksum.update(fresh)
        with self.warehouse.reading() as connection:
            rows, news, last = bars.count_batch(connection, self.batch_id, ranges)
        before, known, latest = self._found
        closed = [time for time in (latest, last) if time is not None]
        self._found = (before + rows, known + news, max(closed, default=None))

    def _wait(self) -> int:
        """Wait for what looks back, and return the pages of the log."""
        if self._afterwards is None or self._settled is None:
            return 0
        self._afterwards.result()
        return self._settled.result()

    def counted(self) -> Counted | None:
        """What the table holds, found chunk by chunk; None where only a look at all can tell.

        Each chunk was looked at after its commit, and nobody else writes the batch's bars.
        """
        if self._afterwards is not None:
            self._afterwards.result()
        return Counted(*self._found, self._checksum.hexdigest()) if self._in_order else None

    def seen(self) -> Counted | None:
        """What was counted back so far, of an intake that broke off; None where that failed."""
        try:
            return self.counted()
        except Exception:  # noqa: BLE001 - it broke off already, and the table tells all
            return None

    @property
    def first_reason(self) -> str:
        """Why the first bad row was rejected; empty without one."""
        return (self.rejects[0]["reason"] or "") if self.rejects else ""

    def spoiled(self) -> DataError | None:
        """Return the error where too many of the rows are bad.

        It is asked for at an end that the data sets: chunks are cut where it suits a source.
        """
        return quarantine.excess(self.rejected, self.read, self.max_share, named=self.rejects)


@contextmanager
def begun(
    settings: Settings, *, engine: str, pipeline_runs: Iterable[str], dag_run: str | None
) -> Iterator[tuple[Warehouse, int]]:
    """Hold the stage's lock and open a batch; an error closes it with what it had stored."""
    with (
        Warehouse.open(settings) as warehouse,
        warehouse.alone(INGEST, wait_seconds=_LOCK_SECONDS),
    ):
        close_dead(warehouse)
        with warehouse.writing() as connection:
            batch_id = ledger.begin(
                connection, INGEST, engine=engine, pipeline_runs=pipeline_runs, dag_run=dag_run
            )
        try:
            yield warehouse, batch_id
        except BaseException as error:
            close(warehouse, batch_id, error=described(error))
            raise


def finished(
    settings: Settings,
    intake: Intake,
    *,
    series: Sequence[Mapping[str, Any]],
    failures: Sequence[Mapping[str, str]],
    **more: Any,
) -> StageReport:
    """Commit a batch on what its table holds, and report it; `more` goes to its details."""
    ages = [one["freshness_hours"] for one in series if one.get("freshness_hours") is not None]
    details = {
        "failures": list(failures),
        "freshness_hours": max(ages, default=None),
        "until": settings.until,
        **more,
    }
    batch = close(intake.warehouse, intake.batch_id, details=details)
    return of_batch(
        batch,
        origin=settings.origin,
        series=tuple(series),
        failures=tuple(failures),
        rejects=tuple(intake.rejects),
    )


def clock(settings: Settings, warehouse: Warehouse, batch_id: int) -> int:
    """Ask the exchange for its time, and mark the batch with it.

    Raises ConfigurationError where the settings' `since` lies ahead of it.
    """
    now = exchange.server_time(settings.exchange_url)
    with warehouse.writing() as connection:
        row = batches.update().where(batches.c.id == batch_id)
        connection.execute(row.values(exchange_time=now))
    if settings.since is not None and settings.since >= now:
        msg = f"BENTLEY_SINCE {iso(settings.since)} lies ahead of the exchange's clock {iso(now)}"
        raise ConfigurationError(msg)
    return now


def close_dead(warehouse: Warehouse) -> None:
    """Close the batches whose process died; the caller holds the stage's lock."""
    with warehouse.reading() as connection:
        dead = ledger.running(connection, INGEST)
    for batch in dead:
        said = "closing a batch whose process died: its rows are read back"
        _log.warning(said, batch=batch.id, rows=batch.rows_written)
        close(warehouse, batch.id, error=DEAD)


def close(
    warehouse: Warehouse,
    batch_id: int,
    *,
    known: Counted | None = None,
    then: Callable[[Connection], None] | None = None,
    details: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> ledger.Batch:
    """Count the batch's rows back from the table and close it on what is found there.

    The checksum, too, is of what the table holds, unless that is `known`: to read a batch of
    millions back takes as long as to write it. Of one that ended with an `error` all must be known. `then` is done in the transaction that commits it.
    """

    def count(connection: Connection, batch: ledger.Batch) -> Counted:
        if known is not None and (
            error is None or known[:2] == (batch.rows_written, batch.rows_news)
        ):
            return known
        found = bars.count_batch(connection, batch_id, batch.ranges)
        pieces = bars.of_batch(connection, batch_id, batch.ranges)
        return Counted(*found, domain_bars.checksum(pieces))

    return counted(warehouse, batch_id, count, what="bars", details=details, error=error, then=then)
