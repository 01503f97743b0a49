"""The MLflow stage: one finished MLflow run for every processed batch, and only one.

The batch is claimed in the ledger before MLflow hears of it; a run that a killed process
left unfinished is found by its claim and completed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import sqlalchemy as sa

from bentley.domain.errors import BentleyError, RetriableError, described
from bentley.settings import Settings
from bentley.stages import run_content
from bentley.stages.report import StageReport
from bentley.stages.run_content import EXPERIMENT
from bentley.tracking.runs import Tracker
from bentley.warehouse import ledger
from bentley.warehouse.ledger import PROCESS, TRACK, Batch
from bentley.warehouse.schema import batches, mlflow_runs
from bentley.warehouse.warehouse import Warehouse

__all__ = ["ENGINE", "EXPERIMENT", "caught_up", "track", "tracking_uri"]

ENGINE = "mlflow"
_LOCK_SECONDS = 900.0

Progress = Callable[[int], None]


def tracking_uri(settings: Settings) -> str:
    """Where runs are logged: the configured server, or the one that `bentley run` starts."""
    return settings.mlflow_tracking_uri or f"http://127.0.0.1:{settings.mlflow_port}"


def caught_up(settings: Settings) -> bool:
    """Whether `knime_processed` has taken in all that is committed in `binance_ohlcv`."""
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        return not ledger.unconsumed(connection, PROCESS)


def track(
    settings: Settings,
    *,
    pipeline_runs: Iterable[str] = (),
    dag_run: str | None = None,
    links: Mapping[str, str] | None = None,
    selected: bool = False,
    progress: Progress | None = None,
) -> StageReport:
    """Log every processed batch that has no finished run yet.

    With `selected`, only batches with bars that the settings select; the others stay waiting.
    `links` are tags that lead back to the caller, the Airflow run for instance. The report also
    names what an earlier attempt of the same `dag_run` has logged. A batch that can't be logged
    doesn't keep the later ones waiting: its error is raised after them. Raises RetriableError
    when MLflow or the database can't be reached.
    """
    with (
        Warehouse.open(settings) as warehouse,
        warehouse.alone(TRACK, wait_seconds=_LOCK_SECONDS),
    ):
        _close_dead(warehouse)
        with warehouse.reading() as connection:
            waiting = ledger.unconsumed(connection, TRACK)
        if selected:
            waiting = [batch for batch in waiting if _touches(settings, batch)]
        started = ledger.now_ms()
        job = _Job(settings, warehouse, tuple(pipeline_runs), dag_run, dict(links or {}))
        logged: list[int] = []
        failure: Exception | None = None
        for batch in waiting:
            try:
                logged.append(job.log(batch))
            except Exception as error:  # noqa: BLE001 - the first is raised below
                failure = failure or error
                if not job.goes_on():
                    break
            if progress is not None:
                progress(len(logged))
        if failure is not None:
            raise failure
        return _report(
            settings, warehouse, logged, dag_run, seconds=(ledger.now_ms() - started) / 1000
        )


def _report(
    settings: Settings,
    warehouse: Warehouse,
    logged: Sequence[int],
    dag_run: str | None,
    *,
    seconds: float,
) -> StageReport:
    """Sum up what was logged now, and under the same Airflow run by attempts that died after it."""
    c = batches.c
    mine: sa.ColumnElement[bool] = c.id.in_(logged)
    if dag_run is not None:
        mine = sa.or_(mine, c.dag_run == dag_run)
    query = sa.select(c.id).where(c.stage == TRACK, c.status == ledger.COMMITTED, mine)
    with warehouse.reading() as connection:
        ids = connection.scalars(query.order_by(c.id)).all()
        done = [one for batch_id in ids if (one := ledger.get(connection, batch_id)) is not None]
    if not done:
        return StageReport(TRACK, ENGINE, settings.origin)
    return StageReport(
        TRACK,
        ENGINE,
        settings.origin,
        batch_id=done[-1].id,
        status=ledger.COMMITTED,
        rows_read=sum(one.rows_read for one in done),
        rows_written=sum(one.rows_written for one in done),
        watermark=max(one.watermark or 0 for one in done),
        seconds=seconds,
        details={"runs": [dict(one.details) for one in done]},
    )


def _close_dead(warehouse: Warehouse) -> None:
    with warehouse.writing() as connection:
        for batch in ledger.running(connection, TRACK):
            error = "the process ended before its work was done"
            ledger.close(connection, batch.id, checksum=None, error=error)


def _touches(settings: Settings, batch: Batch) -> bool:
    return any(
        piece.symbol in settings.symbols
        and piece.interval in settings.intervals
        and (settings.since is None or piece.last_open >= settings.since)
        and (settings.until is None or piece.first_open < settings.until)
        for piece in batch.ranges
    )


class _Job:
    """What every batch of one run of the stage shares."""

    def __init__(
        self,
        settings: Settings,
        warehouse: Warehouse,
        pipeline_runs: tuple[str, ...],
        dag_run: str | None,
        links: dict[str, str],
    ) -> None:
        self.settings = settings
        self.warehouse = warehouse
        self.pipeline_runs = pipeline_runs
        self.dag_run = dag_run
        self.links = links

    def log(self, batch: Batch) -> int:
        """Bring the MLflow run of a processed batch to its end, consume it, return our batch."""
        # The time tells batches apart whose number a restored warehouse has given out again.
        claim = f"{self.warehouse.name}:{batch.id}:{batch.started_at}"
        with self.warehouse.writing() as connection:
            batch_id = ledger.begin(
                connection,
                TRACK,
                engine=ENGINE,
                parents=[batch.id],
                pipeline_runs=self.pipeline_runs,
                dag_run=self.dag_run,
                exchange_time=batch.exchange_time,
            )
            own = ledger.get(connection, batch_id)
            assert own is not None  # noqa: S101 - it was begun above
            c = mlflow_runs.c
            known = connection.execute(
                sa.select(c.run_id).where(c.processed_batch_id == batch.id)
            ).first()
            if known is None:
                connection.execute(
                    mlflow_runs.insert().values(
                        processed_batch_id=batch.id, claim=claim, batch_id=batch_id
                    )
                )
            else:
                connection.execute(
                    mlflow_runs.update()
                    .where(c.processed_batch_id == batch.id)
                    .values(batch_id=batch_id)
                )
        hold = partial(self._hold, batch.id, batch_id)
        try:
            record = run_content.build(
                self.settings, self.warehouse, batch, own=own, claim=claim, links=self.links
            )
            # Inside the batch: a wrong address must be seen in the ledger, too.
            run = Tracker(tracking_uri(self.settings)).log(
                record,
                run_id=None if known is None else known.run_id,
                on_created=hold,
                confirm=hold,
            )
        except BaseException as error:
            with self.warehouse.writing() as connection:
                reason = described(error)
                ledger.close(connection, batch_id, checksum=None, error=reason)
            raise
        with self.warehouse.writing() as connection:
            ledger.add(connection, batch_id, read=batch.rows_news, written=1)
            ledger.consume(connection, TRACK, [batch.id], by=batch_id)
            ledger.close(
                connection,
                batch_id,
                checksum=batch.checksum,
                watermark=batch.watermark,
                details={"run_id": run.run_id, "url": run.url},
            )
        return batch_id

    def goes_on(self) -> bool:
        """Whether what failed was one batch's own: all answer, and nobody else is at work here."""
        try:
            with self.warehouse.reading() as connection:
                others = ledger.running(connection, TRACK)
            Tracker(tracking_uri(self.settings)).reachable()
        except BentleyError:
            return False
        return not others

    def _hold(self, processed_batch_id: int, batch_id: int, run_id: str) -> None:
        """Store the run of a claim that is still ours.

        A server that lost our connection has given the stage's lock, and the claim, to another.
        """
        c = mlflow_runs.c
        with self.warehouse.writing() as connection:
            held = connection.execute(
                mlflow_runs.update()
                .where(c.processed_batch_id == processed_batch_id, c.batch_id == batch_id)
                .values(run_id=run_id)
            )
        if not held.rowcount:
            msg = f"another process logs batch {processed_batch_id} by now; run this again"
            raise RetriableError(msg)
