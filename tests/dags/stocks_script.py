"""Runs of the DAGs of stocks, in a process that Airflow may fill; after each, a line of JSON.

`python stocks_script.py RUNS`: its lists of a DAG's id and what is added to the environment.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime

from airflow.dag_processing.dagbag import DagBag
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from bentley_stocks import OUTCOME


def ran(dag_id):
    """Run a DAG to its end: the state of each task, and what became of each source."""
    run = bag.dags[dag_id].test(logical_date=datetime.now(UTC))
    tasks = [(one.task_id, one.map_index, one.state) for one in run.get_task_instances()]
    with create_session() as session:
        kept = session.query(XComModel).filter_by(run_id=run.run_id, key=OUTCOME)
        outcomes = [XComModel.deserialize_value(one) for one in kept]
    return {
        "run_id": run.run_id,
        "state": run.state,
        "tasks": sorted(tasks),
        "outcomes": {one["source"]: (one["state"], one["said"]) for one in outcomes},
    }


folder = os.environ["AIRFLOW__CORE__DAGS_FOLDER"]
sys.path.append(folder)  # as the processor does for a bundle
bag = DagBag(folder)
own = dict(os.environ)
for dag_id, added in json.loads(sys.argv[1]):
    os.environ.update(own | added)
    print(json.dumps(ran(dag_id)))  # noqa: T201
