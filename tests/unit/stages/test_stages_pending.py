"""What waits, and where a run stands, as the ledger tells it."""

import pytest

from bentley.stages.follow import follow
from bentley.stages.pending import announcement, overdue
from bentley.stages.process import process
from bentley.warehouse import ledger
from bentley.warehouse.ledger import INGEST, PROCESS, TRACK
from bentley.warehouse.schema import batches as table
from unit.stages.chain_support import HOUR, START, add_rows, batches, ingest_batch, series


def age(warehouse, seconds):
    """Let everything in the ledger be older."""
    with warehouse.writing() as connection:
        connection.execute(
            table.update().values(
                started_at=table.c.started_at - seconds * 1000,
                ended_at=table.c.ended_at - seconds * 1000,
            )
        )


def log(warehouse, batch, runs=()):
    """Stand for the MLflow stage."""
    with warehouse.writing() as connection:
        tracked = ledger.begin(
            connection, TRACK, engine="test", parents=[batch], pipeline_runs=runs
        )
        ledger.consume(connection, TRACK, [batch], by=tracked)
        ledger.close(connection, tracked, checksum="c")


def test_an_announcement_sums_up_whatever_waits(opened, warehouse):
    assert announcement(opened, PROCESS) is None
    first = ingest_batch(warehouse, series(5))
    second = ingest_batch(warehouse, series(3, first=10), error="it failed, but its rows are good")
    assert announcement(opened, PROCESS) == {
        "batch_id": second,
        "batches": [first, second],
        "rows": 8,
        "watermark": START + 12 * HOUR,
        "origin": "exchange",
    }
    done = process(opened).batch_id
    assert announcement(opened, PROCESS) is None
    assert announcement(opened, TRACK)["batches"] == [done]


def test_overdue_only_after_a_while(opened, warehouse):
    ingest_batch(warehouse, series(5))
    assert overdue(opened, PROCESS, after_seconds=60) is None
    age(warehouse, 61)
    assert overdue(opened, PROCESS, after_seconds=60)["rows"] == 5
    assert overdue(opened, TRACK, after_seconds=0) is None


def test_overdue_only_while_the_consumer_is_not_at_work(opened, warehouse):
    ingest_batch(warehouse, series(5))
    age(warehouse, 61)
    with warehouse.lock(PROCESS, wait_seconds=0) as held:
        assert held
        assert overdue(opened, PROCESS, after_seconds=60) is None
    assert overdue(opened, PROCESS, after_seconds=60) is not None


@pytest.mark.parametrize("failures", [3, 20])
def test_a_consumer_that_fails_is_left_alone_for_at_most_a_minute(opened, warehouse, failures):
    ingest_batch(warehouse, series(5))
    for _ in range(failures):
        with warehouse.writing() as connection:
            failed = ledger.begin(connection, PROCESS, engine="test")
            ledger.close(connection, failed, checksum=None, error="no")
    age(warehouse, 30)
    assert overdue(opened, PROCESS, after_seconds=10) is None
    age(warehouse, 31)
    assert overdue(opened, PROCESS, after_seconds=10) is not None


def test_a_dead_sync_is_closed_and_what_it_left_announced(opened, warehouse):
    with warehouse.writing() as connection:
        orphan = ledger.begin(connection, INGEST, engine="test", exchange_time=START)
    add_rows(warehouse, orphan, series(4))
    with warehouse.lock(INGEST, wait_seconds=0):  # it is alive
        assert overdue(opened, PROCESS, after_seconds=0) is None
    assert [batch.status for batch in batches(warehouse, INGEST)] == ["running"]
    found = overdue(opened, PROCESS, after_seconds=0)
    assert (found["batch_id"], found["rows"]) == (orphan, 4)
    (batch,) = batches(warehouse, INGEST)
    assert (batch.status, batch.watermark) == ("failed", START + 3 * HOUR)


def states(opened, run):
    chain = follow(opened, run)
    return [stage.state for stage in chain.stages], chain.waiting_for, chain.done


def test_a_run_from_its_start_to_its_end(opened, warehouse):
    assert states(opened, "run-1") == (["waiting"] * 3, INGEST, False)
    ingest_batch(warehouse, series(5), runs=["run-1"])
    assert states(opened, "run-1") == (["done", "waiting", "waiting"], PROCESS, False)
    batch = process(opened).batch_id
    assert states(opened, "run-1") == (["done", "done", "waiting"], TRACK, False)
    log(warehouse, batch)
    assert states(opened, "run-1") == (["done", "done", "done"], None, True)
    counted = follow(opened, "run-1").stages
    assert [(one.rows_written, one.batches) for one in counted[:2]] == [(5, (1,)), (5, (batch,))]


def test_a_run_that_brought_nothing_is_at_its_end(opened, warehouse):
    ingest_batch(warehouse, series(5), runs=["run-1"])
    log(warehouse, process(opened).batch_id)
    ingest_batch(warehouse, series(5), runs=["run-2"])
    assert states(opened, "run-2") == (["done", "nothing new", "nothing new"], None, True)


def test_a_run_waits_for_what_was_there_before_it(opened, warehouse):
    ingest_batch(warehouse, series(5))
    ingest_batch(warehouse, series(5), runs=["run-2"])
    assert states(opened, "run-2")[1:] == (PROCESS, False)
    log(warehouse, process(opened).batch_id)
    assert states(opened, "run-2")[1:] == (None, True)


def test_what_comes_after_a_run_does_not_hold_it(opened, warehouse):
    ingest_batch(warehouse, series(5), runs=["run-1"])
    log(warehouse, process(opened).batch_id)
    ingest_batch(warehouse, series(5, first=5))
    assert states(opened, "run-1")[1:] == (None, True)


def test_runs_whose_data_was_taken_together_all_end(opened, warehouse):
    ingest_batch(warehouse, series(5), runs=["run-1"])
    ingest_batch(warehouse, series(5, first=5), runs=["run-2"])
    log(warehouse, process(opened).batch_id)
    for run in ("run-1", "run-2"):
        assert states(opened, run)[1:] == (None, True)


def test_a_failure_shows_with_its_reason(opened, warehouse):
    ingest_batch(warehouse, [], runs=["run-1"], error="the exchange went away")
    chain = follow(opened, "run-1")
    assert [stage.state for stage in chain.stages] == ["failed", "waiting", "waiting"]
    assert chain.stages[0].error == "the exchange went away"
    ingest_batch(warehouse, series(2), runs=["run-1"])
    with warehouse.writing() as connection:
        (batch,) = ledger.unconsumed(connection, PROCESS)
        failed = ledger.begin(connection, PROCESS, engine="test", parents=[batch.id])
    assert [stage.state for stage in follow(opened, "run-1").stages][:2] == ["done", "running"]
    with warehouse.writing() as connection:
        ledger.close(connection, failed, checksum=None, error="no engine")
    stage = follow(opened, "run-1").stages[1]
    assert (stage.state, stage.error, stage.dag_id) == ("failed", "no engine", "knime_cli_workflow")
