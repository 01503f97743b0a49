"""The MLflow stage: one finished MLflow run for every processed batch, and only one.

The batch is claimed in the ledger before MLflow hears of it; a run that a killed process
left unfinished is found by its claim and completed.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version

import polars as pl
import sqlalchemy as sa

from bentley.domain.clock import iso
from bentley.settings import Settings
from bentley.stages import measure
from bentley.stages.layout import ROOT
from bentley.stages.report import StageReport
from bentley.tracking import pictures
from bentley.tracking.records import DatasetRecord, RunRecord, without_password
from bentley.tracking.runs import LoggedRun, Tracker
from bentley.warehouse import ledger
from bentley.warehouse.ledger import INGEST, PROCESS, TRACK, Batch
from bentley.warehouse.schema import knime_processed, mlflow_runs
from bentley.warehouse.warehouse import Warehouse

EXPERIMENT = "bentley-pipeline"
ENGINE = "mlflow"
_LOCK_SECONDS = 900.0
_HISTORY = 200
_PICTURED = 20
"""Series that get a picture of their own in one run."""

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
    `links` are tags that lead back to the caller, the Airflow run for instance. Raises
    RetriableError when MLflow or the database can't be reached.
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
        if not waiting:
            return StageReport(TRACK, ENGINE, settings.origin)
        started = ledger.now_ms()
        job = _Job(settings, warehouse, tuple(pipeline_runs), dag_run, dict(links or {}))
        runs = []
        for batch in waiting:
            runs.append(job.log(batch))
            if progress is not None:
                progress(len(runs))
        return StageReport(
            TRACK,
            ENGINE,
            settings.origin,
            batch_id=job.last_batch,
            status=ledger.COMMITTED,
            rows_read=sum(batch.rows_news for batch in waiting),
            rows_written=len(runs),
            watermark=max(batch.watermark or 0 for batch in waiting),
            seconds=(ledger.now_ms() - started) / 1000,
            details={"runs": [{"run_id": run.run_id, "url": run.url} for run in runs]},
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
        self.last_batch: int | None = None

    def log(self, batch: Batch) -> LoggedRun:
        """Bring the MLflow run of a processed batch to its end and consume the batch."""
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
        self.last_batch = batch_id
        try:
            record = self._record(batch, batch_id, claim)
            # Inside the batch: a wrong address must be seen in the ledger, too.
            run = Tracker(tracking_uri(self.settings)).log(
                record,
                run_id=None if known is None else known.run_id,
                on_created=partial(self._store_run_id, batch.id),
            )
        except BaseException as error:
            with self.warehouse.writing() as connection:
                reason = f"{type(error).__name__}: {error}"
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
        return run

    def _store_run_id(self, processed_batch_id: int, run_id: str) -> None:
        with self.warehouse.writing() as connection:
            connection.execute(
                mlflow_runs.update()
                .where(mlflow_runs.c.processed_batch_id == processed_batch_id)
                .values(run_id=run_id)
            )

    def _record(self, batch: Batch, batch_id: int, claim: str) -> RunRecord:
        with self.warehouse.reading() as connection:
            parents = [
                parent
                for parent_id in batch.parents
                if (parent := ledger.get(connection, parent_id)) is not None
            ]
            history = ledger.recent(connection, INGEST, limit=_HISTORY)
        measured: list[measure.Measured] = []
        metrics: dict[str, float] = {}
        drawn = _history_picture(self.settings, history)
        for one in measure.series(self.warehouse, batch):
            metrics |= {f"{one.label}.{name}": value for name, value in one.statistics().items()}
            if len(measured) < _PICTURED:
                drawn[f"pictures/{one.label}.png"] = _price_picture(self.settings, one)
            # Its bars are measured and drawn: one series at a time is in memory.
            measured.append(replace(one, frame=one.frame.clear()))
        ended = max(batch.ended_at or batch.started_at, batch.started_at)
        return RunRecord(
            experiment=EXPERIMENT,
            name=f"batch-{batch.id}",
            claim=claim,
            started_ms=min((parent.started_at for parent in parents), default=batch.started_at),
            ended_ms=ended,
            params=_params(self.settings, batch, parents),
            metrics=metrics | _metrics(batch, parents, measured),
            tags=self._tags(batch, batch_id, parents),
            note=_note(self.settings, batch, measured),
            dataset=DatasetRecord(
                name="knime_processed",
                source=without_password(self.warehouse.address),
                digest=(batch.checksum or "")[:36],
                schema={column.name: str(column.type) for column in knime_processed.c},
                profile={"num_rows": batch.rows_written, "checksum": batch.checksum or ""},
            ),
            artifacts=drawn,
        )

    def _tags(self, batch: Batch, batch_id: int, parents: Iterable[Batch]) -> dict[str, str]:
        tags = {
            "bentley.origin": self.settings.origin,
            "bentley.batch": str(batch.id),
            "bentley.track_batch": str(batch_id),
            "bentley.ingest_batches": ",".join(str(parent.id) for parent in parents),
            "bentley.pipeline_runs": ",".join(batch.pipeline_runs),
            "bentley.warehouse": self.warehouse.name,
            **self.links,
        }
        if batch.dag_run:
            tags["airflow.knime_cli_workflow"] = batch.dag_run
        return {name: value for name, value in tags.items() if value}


def _params(settings: Settings, batch: Batch, parents: Iterable[Batch]) -> dict[str, str]:
    parents = list(parents)
    return {
        "origin": settings.origin,
        "symbols": ",".join(sorted({piece.symbol for piece in batch.ranges})),
        "intervals": ",".join(sorted({piece.interval for piece in batch.ranges})),
        "first_open": iso(min((piece.first_open for piece in batch.ranges), default=None)),
        "last_open": iso(max((piece.last_open for piece in batch.ranges), default=None)),
        "ingest_engine": ",".join(sorted({parent.engine for parent in parents})),
        "process_engine": batch.engine,
        "bentley_version": version("bentley-budget-bot"),
        "python_version": platform.python_version(),
        "mlflow_version": version("mlflow"),
        "git_commit": _commit(),
    }


def _metrics(
    batch: Batch, parents: Iterable[Batch], measured: list[measure.Measured]
) -> dict[str, float]:
    parents = list(parents)
    metrics: dict[str, float] = {
        "ingest_rows_read": sum(parent.rows_read for parent in parents),
        "ingest_rows_written": sum(parent.rows_written for parent in parents),
        "ingest_rows_rejected": sum(parent.rows_rejected for parent in parents),
        "ingest_seconds": sum(parent.seconds or 0.0 for parent in parents),
        "rows_read": batch.rows_read,
        "rows_written": batch.rows_written,
        "rows_rejected": batch.rows_rejected,
        "process_seconds": batch.seconds or 0.0,
        "gaps": sum(len(one.gaps) for one in measured),
        "missing_bars": sum(gap.bars for one in measured for gap in one.gaps),
        "quality_score": measure.quality(measured),
    }
    ages = []
    for one in measured:
        age = one.freshness_hours(batch.exchange_time) if batch.exchange_time else None
        if age is not None:
            ages.append(age)
            metrics[f"{one.label}.freshness_hours"] = age
    if ages:
        metrics["freshness_hours"] = max(ages)
    return metrics


def _price_picture(settings: Settings, one: measure.Measured) -> bytes:
    return pictures.price_volume(
        one.frame,
        [(gap.first_open, gap.end) for gap in one.gaps],
        symbol=one.span.symbol,
        interval=one.span.interval,
        origin=settings.origin,
    )


def _history_picture(settings: Settings, history: list[Batch]) -> dict[str, bytes]:
    rows = pl.DataFrame(
        {
            "ended_ms": [batch.ended_at for batch in history],
            "freshness_hours": [batch.details.get("freshness_hours") for batch in history],
            "rows_rejected": [batch.rows_rejected for batch in history],
            "rows_written": [batch.rows_written for batch in history],
        },
        schema={
            "ended_ms": pl.Int64,
            "freshness_hours": pl.Float64,
            "rows_rejected": pl.Int64,
            "rows_written": pl.Int64,
        },
    )
    picture = pictures.freshness_rejects(rows, bound_hours=settings.freshness_hours)
    return {"pictures/freshness-and-rejects.png": picture}


def _note(settings: Settings, batch: Batch, measured: list[measure.Measured]) -> str:
    lines = [
        f"**{batch.rows_written} bars processed, {batch.rows_rejected} rejected**",
        f"origin: {settings.origin}, batch {batch.id}",
        "",
        "| series | first | last | bars | of grid | gaps |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one.label} | {iso(piece.first_open)} | {iso(piece.last_open)} | {one.present} "
        f"| {one.expected} | {len(one.gaps)} |"
        for one, piece in zip(measured, batch.ranges, strict=True)
    ]
    return "\n".join(lines)


def _commit() -> str:
    """The checkout's commit, marked where files differ from it; `unknown` outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
