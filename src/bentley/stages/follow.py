"""Follows one pipeline run through the ledger, from its sync to the last MLflow run."""

from __future__ import annotations

from dataclasses import dataclass

from bentley.settings import Settings
from bentley.warehouse import ledger
from bentley.warehouse.ledger import COMMITTED, FAILED, INGEST, PROCESS, RUNNING, TRACK, Batch
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


def follow(settings: Settings, pipeline_run: str) -> Chain:
    """See how far a run has come."""
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        batches = ledger.of_run(connection, pipeline_run)
        ours = [batch for batch in batches if batch.stage == INGEST]
        synced = [batch for batch in ours if batch.status == COMMITTED]
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
    order = list(STAGES)
    states = tuple(
        _state(stage, [batch for batch in batches if batch.stage == stage], waiting, order)
        for stage in STAGES
    )
    return Chain(pipeline_run, states, waiting)


def _state(stage: str, batches: list[Batch], waiting: str | None, order: list[str]) -> StageState:
    position = order.index(stage)
    target = len(order) if waiting is None else order.index(waiting)
    last = batches[-1] if batches else None
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
