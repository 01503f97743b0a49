"""Prints what Airflow reads from a folder of DAGs as one line of JSON."""

from __future__ import annotations

import json
import sys

from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

sys.path.append(sys.argv[1])  # as the processor does for a bundle
bag = DagBag(sys.argv[1])
found = {}
for dag_id, dag in bag.dags.items():
    DagSerialization.to_dict(dag)  # what the scheduler reads must be writable
    found[dag_id] = {
        "owner": dag.owner,
        "schedule": dag.schedule
        if isinstance(dag.schedule, str)
        else sorted(asset.name for asset in dag.schedule),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "tasks": sorted(task.task_id for task in dag.tasks),
        "outlets": sorted(outlet.name for task in dag.tasks for outlet in task.outlets),
        "retries": {task.task_id: task.retries for task in dag.tasks},
        "policies": sorted({type(task.retry_policy).__name__ for task in dag.tasks}),
        "doc": dag.doc_md,
    }
sys.stdout.write(json.dumps({"dags": found, "errors": bag.import_errors}))
