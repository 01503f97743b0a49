"""What every way into `binance_ohlcv` shares: how rows are stored, and how their batch is closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import polars as pl
import structlog
from sqlalchemy.engine import Connection

from bentley.domain import bars as domain_bars
from bentley.domain.bars import Checksum, Sifted
from bentley.domain.clock import iso
from bentley.domain.errors import ConfigurationError, DataError
from bentley.settings import Settings
from bentley.sources import exchange
from bentley.stages.closing import DEAD, Counted, counted
from bentley.stages.report import StageReport, of_batch
from bentley.warehouse import bars, gaps, ledger, quarantine
from bentley.warehouse.ledger import INGEST
from bentley.warehouse.schema import batches
from bentley.warehouse.warehouse import Warehouse

_LOCK_SECONDS = 900.0

_log = structlog.get_logger(__name__)


class Intake:
    """The rows of one open batch on their way into the table; the caller holds the stage's lock.

    `max_share` is the share of bad rows past which the batch fails.
    """

    def __init__(
        self, warehouse: Warehouse, batch_id: int, *, source: str, max_share: float
    ) -> None:
        self.warehouse = warehouse
        self.batch_id = batch_id
        self.source = source
        self.max_share = max_share
        self.read = 0
        self.rejected = 0
        self.first_reason = ""
        """Why the first bad row was rejected."""
        self._checksum: Checksum | None = Checksum()
        self._last_key = ("", "", -1)

    def store(
        self, sifted: Sifted, *, read: int, then: Callable[[Connection], None] | None = None
    ) -> None:
        """Store a chunk of `read` rows with its counts and gaps, and do `then`: one transaction."""
        rejected = sifted.rejected.height
        self.read += read
        self.rejected += rejected
        if rejected:
            self.first_reason = self.first_reason or sifted.rejected["reason"][0]
        with self.warehouse.writing() as connection:
            quarantine.put(connection, sifted.rejected, batch_id=self.batch_id, stage=INGEST)
            done = bars.upsert(connection, sifted.bars, batch_id=self.batch_id, source=self.source)
            ledger.add(
                connection,
                self.batch_id,
                read=read,
                written=done.rows,
                news=done.news,
                rejected=rejected,
                ranges=done.ranges,
            )
            for touched in done.ranges:
                gaps.record(connection, touched, batch_id=self.batch_id)
            if then is not None:
                then(connection)
        self._take_in(done.fresh)

    def _take_in(self, fresh: pl.DataFrame) -> None:
        """Carry the checksum on, as long as bars come in the order that it is taken in."""
        if not fresh.height or self._checksum is None:
            return
        first, last = (fresh.row(at)[:3] for at in (0, -1))
        one_series = first[:2] == last[:2] and fresh["symbol"].n_unique() == 1
        if one_series and first > self._last_key and fresh["open_time"].is_sorted():
            self._checksum.update(fresh)
            self._last_key = last
        else:
            self._checksum = None

    @property
    def checksum(self) -> str | None:
        """The checksum of all that was written; None where only the table can tell it."""
        return None if self._checksum is None else self._checksum.hexdigest()

    def spoiled(self) -> DataError | None:
        """Return the error where too many of the rows are bad.

        It is asked for at an end that the data sets: chunks are cut where it suits a source.
        """
        return quarantine.excess(self.rejected, self.read, self.max_share, first=self.first_reason)


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
            close(warehouse, batch_id, error=f"{type(error).__name__}: {error}")
            raise


def finished(
    settings: Settings,
    warehouse: Warehouse,
    batch_id: int,
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
    batch = close(warehouse, batch_id, details=details)
    return of_batch(batch, origin=settings.origin, series=tuple(series), failures=tuple(failures))


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
        _log.warning("closing a batch whose process died", batch=batch.id)
        close(warehouse, batch.id, error=DEAD)


def close(
    warehouse: Warehouse,
    batch_id: int,
    *,
    checksum: str | None = None,
    details: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> ledger.Batch:
    """Count the batch's rows back from the table and close it on what is found there.

    The checksum, too, is of what the table holds, unless it is given: to read a batch of millions
    back takes as long as to write it.
    """

    def count(connection: Connection, batch: ledger.Batch) -> Counted:
        found = bars.count_batch(connection, batch_id, batch.ranges)
        if checksum is not None:
            return Counted(*found, checksum)
        pieces = bars.of_batch(connection, batch_id, batch.ranges)
        return Counted(*found, domain_bars.checksum(pieces))

    return counted(warehouse, batch_id, count, what="bars", details=details, error=error)
