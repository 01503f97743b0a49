"""The master's own tasks, on a plain object in the place of Airflow's side of a task."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

AIRFLOW = """
import json, os, sys, types
from datetime import UTC, datetime, timedelta
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from bentley_operators import FollowChain
from bentley_tasks import failure_before
from bentley import settings
from bentley.stages.follow import follow
from bentley.warehouse import ledger
from bentley.warehouse.warehouse import Warehouse

class Task:
    # what the chain asks of Airflow's task instance
    def __init__(self, *, paused=False, active=0, sync="success", tasks=None):
        self.paused, self.active, self.sync, self.tasks = paused, active, sync, tasks or {}
        self.left = {}
    def get_dag(self, dag_id): return types.SimpleNamespace(is_paused=self.paused)
    def get_dr_count(self, *, dag_id, states): return self.active
    def get_dagrun_state(self, dag_id, run_id):
        assert run_id == "sync-run"
        return self.sync
    def xcom_push(self, key, value): self.left[key] = json.loads(json.dumps(value))
    def xcom_pull(self, *, task_ids, key): return self.left.get(key)
    def get_task_states(self, *, dag_id, run_ids, task_ids): return {run_ids[0]: self.tasks}

def batch(stage, *, error=None, open=False, news=0, **more):
    with Warehouse.open(settings.load()) as warehouse, warehouse.writing() as connection:
        made = ledger.begin(connection, stage, engine="test", **more)
        ledger.add(connection, made, news=news)
        if not open:
            ledger.close(connection, made, checksum="c", error=error)
        return made

def wake(task, event="stalled", started=0):
    dag_run = types.SimpleNamespace(start_date=datetime.now(UTC) - timedelta(seconds=started))
    chain = FollowChain(
        task_id="follow", pipeline_run="run", sync_run_id="sync-run", max_wait=timedelta(hours=1)
    )
    try:
        chain.execute_complete({"ti": task, "dag_run": dag_run}, event)
    except TaskDeferred as waits:
        return "waits for " + waits.trigger.pipeline_run
    except AirflowFailException as error:
        return str(error)
    return "done"

def synced(**more): return batch("ingest", pipeline_runs=["run"], **more)

def explained():
    run = types.SimpleNamespace(dag_id="master", run_id="r")
    task = Task(paused=True, tasks={"start": "success", "follow": "failed"})
    synced(news=5)
    crashed = failure_before(task, run, ["start", "follow"])  # it has left no word
    told = wake(task)
    assert failure_before(task, run, ["start", "follow"]).message == told != crashed.message
    task.tasks = {"start": "success", "follow": "success"}
    assert failure_before(task, run, ["start", "follow"]) is None
    task = Task(tasks={"start": "failed", "follow": "upstream_failed"})
    return failure_before(task, run, ["start", "follow"]).message

said = {}
for number, (name, script) in enumerate(json.loads(sys.argv[1]).items()):
    os.environ["BENTLEY_HOME"] = f"{sys.argv[2]}/{number}"
    said[name] = eval(script)
print(json.dumps(said))
"""

CASES = {
    "the chain is at its end": ("wake(Task(), 'done')", "done"),
    "paused": ("(synced(news=5), wake(Task(paused=True)))[-1]", "knime_cli_workflow is paused"),
    "at work": ("(synced(news=5), wake(Task(active=1)))[-1]", "waits for run"),
    "about to be woken": ("(synced(news=5), wake(Task()))[-1]", "waits for run"),
    "failed": (
        "(batch('process', parents=[synced(news=5)], error='no disk'), wake(Task()))[-1]",
        "knime_cli_workflow failed: no disk",
    ),
    "failed and to be retried": (
        "(batch('process', parents=[synced(news=5)], error='no disk'), wake(Task(active=1)))[-1]",
        "waits for run",
    ),
    "killed": (
        "(batch('process', parents=[synced(news=5)], open=True), wake(Task()))[-1]",
        "knime_cli_workflow was killed",
    ),
    "late": (
        "(synced(news=5), wake(Task(active=1), 'late', started=3601))[-1]",
        "knime_cli_workflow has not come to its end within 1:00:00",
    ),
    "the sync failed": (
        "(synced(error='no exchange'), wake(Task(sync='failed')))[-1]",
        "airbyte_sync_dag failed: no exchange",
    ),
    "the sync is to be retried": (
        "(synced(error='no exchange'), wake(Task(sync='running')))[-1]",
        "waits for run",
    ),
    "the sync never began": (
        "wake(Task(sync='failed'))",
        "airbyte_sync_dag failed before its work began",
    ),
    "ended meanwhile": ("(synced(), wake(Task()))[-1]", "waits for run"),
    "the tasks after it hear why": (
        "explained()",
        "the task start of master failed; see its log",
    ),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each case said, all of them in one process that Airflow may fill."""
    home = tmp_path_factory.mktemp("master")
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    source = [str(ROOT / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])]
    scripts = json.dumps({name: script for name, (script, _) in CASES.items()})
    done = subprocess.run(
        [sys.executable, "-c", AIRFLOW, scripts, str(home)],
        env=kept | {"PYTHONPATH": os.pathsep.join(source), "AIRFLOW_HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("case", CASES)
def test_a_stall_is_named_or_waited_out(said, case):
    assert said[case].startswith(CASES[case][1])
