"""What must hold when events coalesce, strand or are lost, and when tasks are killed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from archive_support import ms
from bentley.warehouse import bars, ledger
from bentley.warehouse.ledger import FAILED, INGEST, PROCESS, TRACK
from bentley.warehouse.schema import batches, mlflow_runs
from unit.stages.chain_support import ingest_batch, ingest_unchecked, series

pytestmark = pytest.mark.timeout(600)

MASTER = "bentley_master_orchestration"
HOUR = 3_600_000
STAGE_DAGS = ("airbyte_sync_dag", "knime_cli_workflow", "mlflow_logging_dag")


def test_four_events_within_a_second_beside_a_consumer_at_work(live):
    """Airflow makes fewer runs of them than events; the first has read the ledger before any."""
    with live.locked("knime_landing"):
        first = live.commit()
        live.emit()
        (at_work,) = live.until(lambda: live.at_work(PROCESS), "the consumer has read its work")
        with live.syncing():
            ready = [live.begin() for _ in range(4)]
            started = time.monotonic()
            for one in ready:
                live.close(one)
                live.emit()
        assert time.monotonic() - started < 1
        assert at_work.parents == (first,)
        assert live.at_work(PROCESS) == [at_work]
        assert len(live.unconsumed(PROCESS)) == 5
    live.settle()


def test_a_consumer_slower_than_its_producer(live):
    """What comes while it works was not in what it read, and no event tells of the last."""
    with live.locked("knime_landing"):
        live.commit()
        live.emit()
        (at_work,) = live.until(lambda: live.at_work(PROCESS), "the consumer has read its work")
        live.exchange.advance(HOUR)
        assert finished(live.sync_beside())["rows_news"] > 0
        assert live.at_work(PROCESS) == [at_work]
        assert len(live.unconsumed(PROCESS)) == 2
    live.settle()


def test_a_consumer_that_failed_for_good_is_woken_when_it_can_work_again(live):
    with live.away("knime_processed"):
        batch = live.commit()
        live.emit()
        live.until(lambda: failed_attempt(live, PROCESS, batch), "the consumer fails")
    live.settle()


def test_bentley_sync_beside_the_sync_of_the_dag(live):
    live.exchange.advance(HOUR)
    live.exchange.faults([{"kind": "slow", "delay": 4, "count": 2, "path": "/api/v3/klines"}])
    run_id = live.start("airbyte_sync_dag")
    (of_dag,) = live.until(lambda: live.at_work(INGEST), "the sync is at work")
    assert of_dag.dag_run == f"airbyte_sync_dag/{run_id}"
    beside = live.sync_beside()
    live.until(lambda: waits_for_lock(live), "the command waits for its turn")
    assert [one.id for one in live.at_work(INGEST)] == [of_dag.id]
    report = finished(beside)
    assert report["batch_id"] > of_dag.id
    assert live.ended("airbyte_sync_dag", run_id) == "success"
    live.settle()


def test_a_batch_that_no_event_announced(live):
    live.commit()
    live.settle()


def test_stages_triggered_by_hand(live):
    live.exchange.advance(2 * HOUR)
    runs = [(dag_id, live.start(dag_id)) for dag_id in reversed(STAGE_DAGS)]
    for dag_id, run_id in runs:
        assert live.ended(dag_id, run_id) == "success"
    live.settle()


def test_history_is_loaded_by_the_form_of_the_dag(live):
    given = {"backfill_since": "2023-10-02", "backfill_symbols": "BTCUSDT"}
    run_id = live.start("airbyte_sync_dag", given)
    assert live.ended("airbyte_sync_dag", run_id) == "success"
    with live.warehouse.reading() as connection:
        first, _, _ = bars.extent(connection, "BTCUSDT", "1h")
        assert first == ms("2023-10-02")
    live.settle()


@pytest.mark.parametrize("dag_id", ["knime_cli_workflow", "mlflow_logging_dag"])
def test_a_consumer_paused_while_events_came(live, dag_id):
    live.airflow.pause(dag_id)
    live.commit()
    live.emit()
    if dag_id == "mlflow_logging_dag":
        live.until(lambda: not live.unconsumed(PROCESS), "the bars are processed")
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
    run_id = live.start("airbyte_sync_dag")
    live.until(lambda: live.at_work(INGEST), "the sync is at work")
    live.until(task_of_connector, "the connector is up")
    task_of_connector().kill()
    live.exchange.clear_faults()
    assert live.ended("airbyte_sync_dag", run_id, seconds=240) == "success"
    live.settle()


def test_consumers_killed_in_the_midst_of_their_work_are_taken_up_again(live):
    live.commit()
    live.emit()
    (logging,) = live.until(lambda: live.at_work(TRACK), "MLflow's stage is at work", every=0.02)
    with live.warehouse.engine.connect() as held:
        # it can make its MLflow run, but can't take down the run's id
        query = sa.select(mlflow_runs).where(mlflow_runs.c.batch_id == logging.id)
        assert held.execute(query.with_for_update()).one().run_id is None
        unfinished = {"filter_string": "attributes.status = 'RUNNING'"}
        (half,) = live.until(lambda: live.mlflow_runs(**unfinished), "its run is begun")
        with live.locked("knime_landing"):
            live.commit()
            live.emit()
            (processing,) = live.until(lambda: live.at_work(PROCESS), "KNIME's stage is at work")
            for dag_id in STAGE_DAGS[1:]:
                task = live.task_of(dag_id)
                task.parent().kill()  # its supervisor first, lest it report the task's end
                task.kill()
            assert live.at_work(TRACK) == [logging]
            assert live.at_work(PROCESS) == [processing]
        held.rollback()
    live.settle()
    for killed in (logging, processing):
        assert batch(live, killed.id).status == FAILED
    assert half.info.run_id in {run.info.run_id for run in live.mlflow_runs()}


def test_two_masters_and_a_sync_by_hand_at_once(live):
    live.exchange.advance(HOUR)
    first, second = live.master(), live.master()
    by_hand = live.start("airbyte_sync_dag")
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


def batch(live, batch_id) -> ledger.Batch:
    with live.warehouse.reading() as connection:
        return ledger.get(connection, batch_id)


def failed_attempt(live, stage, parent) -> bool:
    """Whether a run of the stage's DAG has failed over the batch."""
    with live.warehouse.reading() as connection:
        tried = ledger._load(connection, batches.c.stage == stage)
    runs = [one.dag_run.split("/") for one in tried if parent in one.parents]
    return any(live.airflow.run(*run).state == "failed" for run in runs)


def waits_for_lock(live) -> bool:
    """Whether somebody has asked for a lock, which another one has."""
    with live.warehouse.reading() as connection:
        seen = connection.exec_driver_sql("SHOW FULL PROCESSLIST").mappings()
        return any(
            "GET_LOCK" in (one["Info"] or "") and one["State"] == "User lock" for one in seen
        )


def finished(command) -> dict:
    out, err = command.communicate(timeout=120)
    assert command.returncode == 0, err
    return json.loads(out)


def task_of_connector() -> psutil.Process | None:
    """The Airflow task process that runs the connector."""
    for process in psutil.Process().children(recursive=True):
        try:
            if "airbyte/guard.py" in " ".join(process.cmdline()):
                return process.parent()
        except psutil.Error:
            continue
    return None
