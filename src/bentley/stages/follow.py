"""Follows one pipeline run through the ledger, from its sync to the last MLflow run.

Where it doesn't get on, `diagnose` says why, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.settings import Settings
from bentley.warehouse import ledger
from bentley.warehouse.ledger import COMMITTED, FAILED, INGEST, PROCESS, RUNNING, TRACK, Batch
from bentley.warehouse.schema import batch_parents
from bentley.warehouse.schema import batches as batches_table
from bentley.warehouse.warehouse import Warehouse

STAGES = {INGEST: "airbyte_sync_dag", PROCESS: "knime_cli_workflow", TRACK: "mlflow_logging_dag"}
"""Each stage of the chain and the DAG that runs it."""


@dataclass(frozen=True)
class StageState:
    """A stage as the ledger shows it to one pipeline run; rows and seconds over its batches."""

    stage: str
    state: str
    rows_read: int = 0
    rows_written: int = 0
    rows_rejected: int = 0
    seconds: float = 0.0
    batches: tuple[int, ...] = ()
    error: str | None = None

    @property
    def dag_id(self) -> str:
        """The DAG that runs the stage."""
        return STAGES[self.stage]


@dataclass(frozen=True)
class Chain:
    """Where a pipeline run stands; `waiting_for` is None once it is at its end."""

    pipeline_run: str
    stages: tuple[StageState, ...]
    waiting_for: str | None

    @property
    def done(self) -> bool:
        """Whether everything that the run brought, or found waiting, has reached MLflow."""
        return self.waiting_for is None

    @property
    def awaited(self) -> StageState | None:
        """The stage that the run waits for."""
        return next((stage for stage in self.stages if stage.stage == self.waiting_for), None)


@dataclass(frozen=True)
class Failure:
    """Why a pipeline run will not get to its end, and the next step to take."""

    where: str
    reason: str
    step: str

    @property
    def message(self) -> str:
        """All of it in a line."""
        return f"{self.where} {self.reason}; {self.step}"


def follow(settings: Settings, pipeline_run: str) -> Chain:
    """See how far a run has come."""
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        batches = ledger.of_run(connection, pipeline_run)
        ours = [batch for batch in batches if batch.stage == INGEST]
        synced = [batch for batch in ours if batch.status == COMMITTED]
        attempt = None
        if not synced:
            waiting: str | None = INGEST
        else:
            # What was there before this run's sync must be through as well: it may be its base.
            limit = synced[-1].id
            unprocessed = [b for b in ledger.unconsumed(connection, PROCESS) if b.id <= limit]
            untracked = [
                batch
                for batch in ledger.unconsumed(connection, TRACK)
                if min(batch.parents, default=0) <= limit
            ]
            waiting = PROCESS if unprocessed else TRACK if untracked else None
            if waiting is not None:
                left = unprocessed or untracked
                attempt = _attempt(connection, waiting, left, after=ours[0].id)
    order = list(STAGES)
    states = tuple(
        _state(
            stage,
            [batch for batch in batches if batch.stage == stage],
            waiting,
            order,
            attempt if stage == waiting else None,
        )
        for stage in STAGES
    )
    return Chain(pipeline_run, states, waiting)


def _attempt(
    connection: Connection, stage: str, left: Iterable[Batch], *, after: int
) -> Batch | None:
    """Find the stage's latest attempt at what is left, begun after this run was.

    It need not be one of the run's own: where the run brought nothing new, none is. An older
    one says nothing of this run: whoever started the run may have mended the fault before.
    """
    batch_id = connection.scalar(
        sa.select(sa.func.max(batches_table.c.id))
        .join(batch_parents, batch_parents.c.batch_id == batches_table.c.id)
        .where(
            batches_table.c.stage == stage,
            batches_table.c.id > after,
            batch_parents.c.parent_id.in_([batch.id for batch in left]),
        )
    )
    return None if batch_id is None else ledger.get(connection, batch_id)


def _state(
    stage: str,
    batches: Sequence[Batch],
    waiting: str | None,
    order: Sequence[str],
    attempt: Batch | None,
) -> StageState:
    position = order.index(stage)
    target = len(order) if waiting is None else order.index(waiting)
    last = attempt or (batches[-1] if batches else None)
    if last is not None and last.status == RUNNING:
        state = "running"
    elif position < target:
        state = "done" if batches else "nothing new"
    elif last is not None and last.status == FAILED:
        state = "failed"
    else:
        state = "waiting"
    return StageState(
        stage=stage,
        state=state,
        rows_read=sum(batch.rows_read for batch in batches),
        rows_written=sum(batch.rows_written for batch in batches),
        rows_rejected=sum(batch.rows_rejected for batch in batches),
        seconds=sum(batch.seconds or 0.0 for batch in batches),
        batches=tuple(batch.id for batch in batches),
        error=last.error if last is not None and state == "failed" else None,
    )


def diagnose(
    settings: Settings, stage: StageState, *, paused: bool, over: bool, late: str | None = None
) -> Failure | None:
    """Say why the stage that a run waits for will not come to its end; None for: wait on.

    Airflow knows whether its DAG is `paused`, and whether it is `over` with it: no run of it is
    at work or about to retry. `late` is the time limit, once that is over.
    """
    again = "then trigger the master again: what is stored already is taken up from where it stands"
    if paused:
        unpause = f"unpause it with `bentley airflow dags unpause {stage.dag_id}`"
        return Failure(stage.dag_id, "is paused, so the run can't go on", f"{unpause}, {again}")
    if over and stage.state == "failed":
        return Failure(stage.dag_id, f"failed: {stage.error}", f"mend that, {again}")
    if over and stage.state == "running" and _left_open(settings, stage.stage):
        reason = "was killed in the middle of its work, and all its retries are used up"
        look = "look at its log and at the machine's memory"
        return Failure(stage.dag_id, reason, f"{look}, {again}")
    if over and stage.stage == INGEST:
        reason = "failed before its work began"
        return Failure(stage.dag_id, reason, f"see its log and mend that, {again}")
    if late is not None:
        look = "look at its running task, or for an import error, in the Airflow page"
        return Failure(stage.dag_id, f"has not come to its end within {late}", look)
    return None


def _left_open(settings: Settings, stage: str) -> bool:
    """Whether a stage has a batch open while nobody is at work on it."""
    with (
        Warehouse.open(settings) as warehouse,
        warehouse.lock(stage, wait_seconds=0) as free,
        warehouse.reading() as connection,
    ):
        return free and bool(ledger.running(connection, stage))
