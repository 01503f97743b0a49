"""What the MLflow run of a processed batch holds; docs/mlflow.md defines every entry."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from urllib.parse import quote

import polars as pl
import sqlalchemy as sa

from bentley.domain.clock import iso
from bentley.settings import Settings
from bentley.stages import measure
from bentley.stages.layout import ROOT
from bentley.tracking.records import DatasetRecord, RunRecord, without_password
from bentley.warehouse import ledger
from bentley.warehouse.ledger import INGEST, PROCESS, Batch, Range
from bentley.warehouse.schema import batches, knime_processed
from bentley.warehouse.warehouse import Warehouse

EXPERIMENT = "bentley-pipeline"
HISTORY_PICTURE = "pictures/freshness-and-rejects.png"
_HISTORY = 200
"""Batches in the picture of freshness and rejects."""
_PICTURED = 20
"""Series that get a picture of their own in one run."""
_AIRFLOW_RUN = re.compile(r"([\w.-]+)/(.+)")


def build(
    settings: Settings,
    warehouse: Warehouse,
    batch: Batch,
    *,
    own: Batch,
    claim: str,
    links: Mapping[str, str],
) -> RunRecord:
    """Measure a processed batch; `own` is the batch of the logging, `links` are the caller's tags."""
    with warehouse.reading() as connection:
        parents = [
            parent
            for parent_id in batch.parents
            if (parent := ledger.get(connection, parent_id)) is not None
        ]
    now = measure.clock(parents, settings.until)
    drawn = {HISTORY_PICTURE: _history_picture(settings, warehouse)}
    measured = []
    for index, piece in enumerate(batch.ranges):
        one, picture = _series(settings, warehouse, piece, now, drawn=index < _PICTURED)
        measured.append(one)
        if picture is not None:
            drawn[f"pictures/{one.label}.png"] = picture
    runs = _airflow_runs(settings, [*parents, batch, own])
    tags = {
        "bentley.origin": settings.origin,
        "bentley.batch": str(batch.id),
        "bentley.track_batch": str(own.id),
        "bentley.ingest_batches": ",".join(str(parent.id) for parent in parents),
        "bentley.pipeline_runs": ",".join(batch.pipeline_runs),
        "bentley.warehouse": warehouse.name,
        **links,
        **{f"airflow.{dag_id}": " ".join(pages.values()) for dag_id, pages in runs.items()},
    }
    return RunRecord(
        experiment=EXPERIMENT,
        name=f"batch-{batch.id}",
        claim=claim,
        started_ms=min((parent.started_at for parent in parents), default=batch.started_at),
        ended_ms=max(batch.ended_at or batch.started_at, batch.started_at),
        params=_params(settings, batch, parents),
        metrics=_metrics(batch, parents, own, measured),
        tags={name: value for name, value in tags.items() if value},
        note=_note(settings, batch, measured, runs),
        dataset=DatasetRecord(
            name="knime_processed",
            source=without_password(warehouse.address),
            digest=(batch.checksum or "")[:36],
            schema={column.name: str(column.type) for column in knime_processed.c},
            profile={"num_rows": batch.rows_written, "checksum": batch.checksum or ""},
        ),
        artifacts=drawn,
    )


def _series(
    settings: Settings, warehouse: Warehouse, piece: Range, now: int | None, *, drawn: bool
) -> tuple[measure.Measured, bytes | None]:
    """Measure and draw one series; its bars are gone from memory before the next one's come."""
    one, frame, missing = measure.series(warehouse, piece, now, drawn=drawn)
    if not drawn:
        return one, None
    from bentley.tracking import pictures  # noqa: PLC0415 - matplotlib is slow

    spans = [(gap.first_open, gap.end) for gap in missing]
    return one, pictures.price_volume(
        frame, spans, symbol=piece.symbol, interval=piece.interval, origin=settings.origin
    )


def _params(settings: Settings, batch: Batch, parents: Iterable[Batch]) -> dict[str, str]:
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
    batch: Batch, parents: Sequence[Batch], own: Batch, measured: Sequence[measure.Measured]
) -> dict[str, float]:
    metrics: dict[str, float] = {
        "ingest_rows_read": sum(parent.rows_read for parent in parents),
        "ingest_rows_written": sum(parent.rows_written for parent in parents),
        "ingest_rows_rejected": sum(parent.rows_rejected for parent in parents),
        "ingest_seconds": sum(parent.seconds or 0.0 for parent in parents),
        "rows_read": batch.rows_read,
        "rows_written": batch.rows_written,
        "rows_rejected": batch.rows_rejected,
        "process_seconds": batch.seconds or 0.0,
        "track_seconds": (ledger.now_ms() - own.started_at) / 1000,
        "gaps": sum(len(one.gaps) for one in measured),
        "missing_bars": sum(gap.bars for one in measured for gap in one.gaps),
        "expected_bars": sum(one.expected for one in measured),
        "present_bars": sum(one.present for one in measured),
        "quality_score": measure.quality(measured),
    }
    for one in measured:
        metrics |= {f"{one.label}.{name}": value for name, value in one.statistics.items()}
        if one.freshness_hours is not None:
            metrics[f"{one.label}.freshness_hours"] = one.freshness_hours
    ages = [one.freshness_hours for one in measured if one.freshness_hours is not None]
    if ages:
        metrics["freshness_hours"] = max(ages)
    return metrics


def _history_picture(settings: Settings, warehouse: Warehouse) -> bytes:
    """Draw the latest batches of both stages that reject rows, those that failed included."""
    c = batches.c
    query = (
        sa.select(c.stage, c.ended_at, c.details, c.rows_rejected, c.rows_written)
        .where(c.stage.in_([INGEST, PROCESS]), c.status != ledger.RUNNING)
        .order_by(c.id.desc())
        .limit(_HISTORY)
    )
    with warehouse.reading() as connection:
        rows = connection.execute(query).all()
    history = pl.DataFrame(
        {
            "ended_ms": [row.ended_at for row in rows],
            "freshness_hours": [json.loads(row.details).get("freshness_hours") for row in rows],
            "rows_rejected": [row.rows_rejected for row in rows],
            # The processing writes the same bars once more.
            "rows_written": [row.rows_written if row.stage == INGEST else None for row in rows],
        },
        schema={
            "ended_ms": pl.Int64,
            "freshness_hours": pl.Float64,
            "rows_rejected": pl.Int64,
            "rows_written": pl.Int64,
        },
    )
    from bentley.tracking import pictures  # noqa: PLC0415 - matplotlib is slow

    return pictures.freshness_rejects(history, bound_hours=settings.freshness_hours)


def _airflow_runs(settings: Settings, stages: Iterable[Batch]) -> dict[str, dict[str, str]]:
    """Find the pages of the Airflow runs behind batches: DAG id to run id to address."""
    found: dict[str, dict[str, str]] = {}
    for batch in stages:
        if (named := _AIRFLOW_RUN.fullmatch(batch.dag_run or "")) is not None:
            dag_id, run_id = named.groups()
            page = f"{settings.airflow_url}/dags/{dag_id}/runs/{quote(run_id, safe=':+')}"
            found.setdefault(dag_id, {})[run_id] = page
    return found


def _note(
    settings: Settings,
    batch: Batch,
    measured: Iterable[measure.Measured],
    runs: Mapping[str, Mapping[str, str]],
) -> str:
    lines = [
        f"**{batch.rows_written} bars processed, {batch.rows_rejected} rejected**",
        f"origin: {settings.origin}, batch {batch.id}",
        "",
        "| series | first | last | bars | of grid | gaps |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one.label} | {iso(one.piece.first_open)} | {iso(one.piece.last_open)} "
        f"| {one.present} | {one.expected} | {len(one.gaps)} |"
        for one in measured
    ]
    if runs:
        lines += ["", "Airflow runs:", ""]
    lines += [
        f"- [{dag_id} {run_id}]({page})"
        for dag_id, pages in runs.items()
        for run_id, page in pages.items()
    ]
    return "\n".join(lines)


def _commit() -> str:
    """The checkout's commit, marked where files differ from it; `unknown` outside a checkout."""
    try:
        done = subprocess.run(
            # Without any tag to name it by, a commit is described by its hash.
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
