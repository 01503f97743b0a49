"""What Airflow's REST API answers, reduced to the fields that Bentley reads."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

FINISHED = frozenset({"success", "failed"})


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Dag(_Answer):
    """A DAG as the parser last saw it."""

    dag_id: str
    is_paused: bool
    is_stale: bool = False
    has_import_errors: bool = False
    last_parsed_time: datetime | None = None
    owners: tuple[str, ...] = ()
    timetable_summary: str | None = None


class DagRun(_Answer):
    """One run of a DAG; `state` is queued, running, success or failed, times are in UTC."""

    dag_id: str
    run_id: str = Field(validation_alias=AliasChoices("dag_run_id", "run_id"))
    state: str
    run_type: str
    run_after: datetime
    queued_at: datetime | None = None
    start_date: datetime | None = None
    end_date: datetime | None = None
    conf: dict[str, Any] | None = None
    note: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the run has come to an end, good or bad."""
        return self.state in FINISHED


class TaskInstance(_Answer):
    """One task of a run; `state` is None before it is scheduled, `duration` is in seconds."""

    task_id: str
    dag_id: str
    run_id: str = Field(validation_alias=AliasChoices("dag_run_id", "run_id"))
    map_index: int
    try_number: int
    max_tries: int
    state: str | None
    start_date: datetime | None = None
    end_date: datetime | None = None
    duration: float | None = None
    note: str | None = None


class DagRunReference(_Answer):
    """A run named by an asset event."""

    dag_id: str
    run_id: str
    state: str


class AssetEvent(_Answer):
    """A dataset event, with the runs that it started."""

    id: int
    asset_id: int
    name: str | None = None
    uri: str | None = None
    timestamp: datetime
    extra: dict[str, Any] | None = None
    source_dag_id: str | None = None
    source_task_id: str | None = None
    source_run_id: str | None = None
    created_dagruns: tuple[DagRunReference, ...] = ()


class ImportFailure(_Answer):
    """A DAG file that could not be imported."""

    filename: str
    timestamp: datetime
    stack_trace: str
