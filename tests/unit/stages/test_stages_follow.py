"""Why a pipeline run doesn't get on, as the ledger and what Airflow knows tell it."""

import pytest

from bentley.stages.follow import diagnose, follow
from bentley.stages.process import process
from bentley.warehouse import ledger
from bentley.warehouse.ledger import INGEST, PROCESS, TRACK
from unit.stages.chain_support import ingest_batch, series

WORKING = {"paused": False, "over": False}
OVER = {"paused": False, "over": True}


def attempt(warehouse, stage, *, error=None):
    """An attempt of a stage at what waits for it: still open, or failed."""
    with warehouse.writing() as connection:
        parents = [batch.id for batch in ledger.unconsumed(connection, stage)]
        batch = ledger.begin(connection, stage, engine="test", parents=parents)
        if error is not None:
            ledger.close(connection, batch, checksum=None, error=error)


def awaited(settings, run="run-2"):
    return follow(settings, run).awaited


@pytest.fixture(params=[PROCESS, TRACK])
def stuck(request, opened, warehouse):
    """A stage has failed on bars of an earlier run; then a run comes that brings nothing."""
    ingest_batch(warehouse, series(5), runs=["run-1"])
    if request.param == TRACK:
        process(opened)
    attempt(warehouse, request.param, error="the disk is full")
    ingest_batch(warehouse, series(5), runs=["run-2"])
    return request.param


def test_a_failure_from_before_the_run_is_not_its_own(opened, stuck):
    stage = awaited(opened)
    assert (stage.stage, stage.state, stage.error) == (stuck, "waiting", None)
    assert diagnose(opened, stage, **OVER) is None  # it may have been mended since


def test_a_stage_that_fails_again_on_what_was_there_before_is_named(opened, warehouse, stuck):
    attempt(warehouse, stuck)
    assert awaited(opened).state == "running"
    with warehouse.writing() as connection:
        (batch,) = ledger.running(connection, stuck)
        ledger.close(connection, batch.id, checksum=None, error="the disk is full still")
    stage = awaited(opened)
    assert (stage.state, stage.error) == ("failed", "the disk is full still")
    assert diagnose(opened, stage, **WORKING) is None  # Airflow may retry it
    failure = diagnose(opened, stage, **OVER)
    assert failure.where == stage.dag_id
    assert failure.reason == "failed: the disk is full still"
    assert "trigger the master again" in failure.message


def test_a_failure_on_what_came_after_the_run_is_another_runs(opened, warehouse):
    ingest_batch(warehouse, series(5), runs=["run-2"])
    process(opened)
    ingest_batch(warehouse, series(5, first=5))
    attempt(warehouse, PROCESS, error="not ours")
    stage = awaited(opened)
    assert (stage.stage, stage.state) == (TRACK, "waiting")


@pytest.mark.parametrize("stage", [INGEST, PROCESS])
def test_a_stage_that_was_killed_for_good_is_named(opened, warehouse, stage):
    if stage == INGEST:
        with warehouse.writing() as connection:
            ledger.begin(connection, INGEST, engine="test", pipeline_runs=["run-2"])
    else:
        ingest_batch(warehouse, series(5), runs=["run-2"])
        attempt(warehouse, PROCESS)
    seen = awaited(opened)
    assert (seen.stage, seen.state) == (stage, "running")
    assert diagnose(opened, seen, **WORKING) is None
    if stage == PROCESS:  # somebody is at work, a command beside Airflow for instance
        with warehouse.lock(stage, wait_seconds=0):
            assert diagnose(opened, seen, **OVER) is None
    failure = diagnose(opened, seen, **OVER)
    assert "was killed" in failure.reason
    assert "log" in failure.step


def test_a_sync_that_failed_before_its_batch_is_named(opened):
    failure = diagnose(opened, awaited(opened), **OVER)
    assert failure.message.startswith("airbyte_sync_dag failed before its work began; see its log")


def test_a_paused_stage_is_named(opened, warehouse):
    ingest_batch(warehouse, series(5), runs=["run-2"])
    failure = diagnose(opened, awaited(opened), paused=True, over=True)
    assert failure.message.startswith("knime_cli_workflow is paused")
    assert "bentley airflow dags unpause knime_cli_workflow" in failure.step


def test_past_the_time_limit_the_stage_is_named(opened, warehouse):
    ingest_batch(warehouse, series(5), runs=["run-2"])
    stage = awaited(opened)
    assert diagnose(opened, stage, **OVER) is None
    failure = diagnose(opened, stage, **OVER, late="1:00:00")
    assert failure.reason == "has not come to its end within 1:00:00"
    assert "import error" in failure.step


def test_a_chain_at_its_end_waits_for_nothing(opened, warehouse):
    ingest_batch(warehouse, [], runs=["run-2"])
    assert awaited(opened) is None
