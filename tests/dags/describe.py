"""Prints what Airflow reads from a folder of DAGs as one line of JSON."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import time_machine
from airflow.dag_processing.dagbag import DagBag
from airflow.models.taskinstance import TaskInstance
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction

ENDED = datetime(2024, 1, 1, tzinfo=UTC)


def delays(task) -> list[float]:
    """Seconds before each retry, by Airflow's own reckoning."""
    tries = [
        SimpleNamespace(
            task=task,
            try_number=attempt,
            end_date=ENDED,
            retry_delay_override=None,
            dag_id=task.dag_id,
            task_id=task.task_id,
            logical_date=None,
        )
        for attempt in range(1, task.retries + 1)
    ]
    return [(TaskInstance.next_retry_datetime(one) - ENDED).total_seconds() for one in tries]


def first_run(timetable) -> str | None:
    """When a DAG runs first that is unpaused a minute after midnight."""
    with time_machine.travel(ENDED + timedelta(minutes=1), tick=False):
        found = timetable.next_dagrun_info(
            last_automated_data_interval=None, restriction=TimeRestriction(None, None, False)
        )
    return found and found.run_after.isoformat()


sys.path.append(sys.argv[1])  # as the processor does for a bundle
bag = DagBag(sys.argv[1])
found = {}
for dag_id, dag in bag.dags.items():
    # what the scheduler reads: it is written as JSON, and some of it is read otherwise than meant
    scheduled = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    found[dag_id] = {
        "owner": dag.owner,
        "schedule": dag.schedule
        if isinstance(dag.schedule, str)
        else sorted(asset.name for asset in dag.schedule),
        "catchup": dag.catchup,
        "first_run": first_run(scheduled.timetable),
        "max_active_runs": dag.max_active_runs,
        "tasks": sorted(task.task_id for task in dag.tasks),
        "outlets": sorted(outlet.name for task in dag.tasks for outlet in task.outlets),
        "retries": {task.task_id: task.retries for task in dag.tasks},
        "delays": {task.task_id: delays(task) for task in scheduled.task_dict.values()},
        "policies": sorted({type(task.retry_policy).__name__ for task in dag.tasks}),
        "doc": dag.doc_md,
    }
sys.stdout.write(json.dumps({"dags": found, "errors": bag.import_errors}))
