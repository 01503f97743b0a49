"""What must hold when events coalesce, strand or are lost, and when tasks are killed."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from bentley.warehouse import ledger
from bentley.warehouse.ledger import INGEST, PROCESS
from unit.stages.chain_support import ingest_batch, ingest_unchecked, series

pytestmark = pytest.mark.timeout(600)

MASTER = "bentley_master_orchestration"
HOUR = 3_600_000
STAGE_DAGS = ("airbyte_sync_dag", "knime_cli_workflow", "mlflow_logging_dag")


def test_four_events_within_a_second(live):
    for _ in range(4):
        live.sync_beside()
    assert live.asset_id  # looked up before the clock runs
    started = time.monotonic()
    for _ in range(4):
        live.emit()
    assert time.monotonic() - started < 1
    live.settle()


def test_a_consumer_slower_than_its_producer(live):
    with live.warehouse.lock(PROCESS, wait_seconds=30) as held:
        assert held
        for _ in range(4):
            live.sync_beside()
            live.emit()
            time.sleep(1)
    live.settle()


def test_a_batch_that_no_event_announced(live):
    live.sync_beside()
    live.settle()


def test_stages_triggered_by_hand(live):
    live.exchange.advance(2 * HOUR)
    runs = [(dag_id, live.airflow.trigger(dag_id).run_id) for dag_id in reversed(STAGE_DAGS)]
    for dag_id, run_id in runs:
        assert live.ended(dag_id, run_id) == "success"
    live.settle()


@pytest.mark.parametrize("dag_id", ["knime_cli_workflow", "mlflow_logging_dag"])
def test_a_consumer_paused_while_events_came(live, dag_id):
    live.airflow.pause(dag_id)
    live.sync_beside()
    live.emit()
    time.sleep(5)
    assert live.waiting() > 0
    if dag_id == "mlflow_logging_dag":  # nobody is started for an event that it won't hear
        live.until(lambda: live.waiting() == 1, "only the paused stage is behind")
        before = len(live.airflow.runs("knime_cli_workflow", limit=100))
        time.sleep(40)
        assert len(live.airflow.runs("knime_cli_workflow", limit=100)) <= before + 1
    live.airflow.unpause(dag_id)
    live.settle()


def test_a_killed_sync_task_is_taken_up_again(live):
    live.exchange.advance(HOUR)
    live.exchange.faults([{"kind": "slow", "delay": 20, "count": 2, "path": "/api/v3/klines"}])
    run_id = live.airflow.trigger("airbyte_sync_dag").run_id
    live.until(lambda: running(live), "the sync is at work")
    live.until(task_of_connector, "the connector is up")
    task_of_connector().kill()
    live.exchange.clear_faults()
    assert live.ended("airbyte_sync_dag", run_id, seconds=240) == "success"
    live.settle()


def test_two_masters_and_a_sync_by_hand_at_once(live):
    live.exchange.advance(HOUR)
    first, second = live.master(), live.master()
    by_hand = live.airflow.trigger("airbyte_sync_dag").run_id
    assert live.ended(MASTER, first, seconds=240) == "success"
    assert live.ended(MASTER, second, seconds=240) == "success"
    assert live.ended("airbyte_sync_dag", by_hand) == "success"
    live.settle()


def test_a_paused_stage_fails_the_master_with_its_reason(live):
    live.exchange.advance(HOUR)
    live.airflow.pause("knime_cli_workflow")
    try:
        run_id = live.master()
        assert live.ended(MASTER, run_id, seconds=240) == "failed"
        log = live.airflow.logs(MASTER, run_id, "follow")
        assert "knime_cli_workflow is paused" in log
        assert "unpause" in log
        told = reported(live, run_id)
        assert told.startswith("**knime_cli_workflow is paused")
        assert "Next step: unpause it" in told
    finally:
        live.airflow.unpause("knime_cli_workflow")
    live.settle()


def test_a_stage_that_fails_on_what_was_there_before_the_run_is_named(live):
    """Nothing new has come, so that the failing batch is none of the run's own."""
    rows = series(30, symbol="BADUSDT")
    ingest_unchecked(live.warehouse, [row | {"high": "0.50000000"} for row in rows])
    live.until(lambda: failures(live), "the stage has failed")
    run_id = live.master()
    assert live.ended(MASTER, run_id, seconds=300) == "failed"
    told = reported(live, run_id)
    assert told.startswith("**knime_cli_workflow failed: DataError: 30 of 30 rows are bad")
    assert "trigger the master again" in told
    ingest_batch(live.warehouse, rows)
    live.settle()


def failures(live) -> int:
    with live.warehouse.reading() as connection:
        return ledger.failing(connection, PROCESS)[0]


def reported(live, run_id: str) -> str:
    """What the master wrote of a run that failed: in the file, in MLflow and in its note."""
    report = live.airflow.xcom(MASTER, run_id, "verify", "report")
    assert not report["held"]
    assert report["failed"] in live.airflow.logs(MASTER, run_id, "verify")
    assert report["mlflow"] in live.airflow.run(MASTER, run_id).note
    assert Path(report["report"]).with_suffix(".png").is_file()
    return Path(report["report"]).read_text()


def running(live) -> list[ledger.Batch]:
    with live.warehouse.reading() as connection:
        return ledger.running(connection, INGEST)


def task_of_connector() -> psutil.Process | None:
    """The Airflow task process that runs the connector."""
    for process in psutil.Process().children(recursive=True):
        try:
            if "airbyte/guard.py" in " ".join(process.cmdline()):
                return process.parent()
        except psutil.Error:
            continue
    return None
