"""The ledger: what is left to do is an anti-join, whatever the order of commits."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentley.domain.errors import FatalError, RetriableError
from bentley.warehouse import ledger
from bentley.warehouse.ledger import INGEST, PROCESS, TRACK, Range
from bentley.warehouse.schema import consumption
from unit.stages.chain_support import (
    HOUR,
    LATER,
    START,
    bar,
    batches,
    consumed,
    ingest_batch,
    series,
)


def begin(warehouse, stage=INGEST, **given_values):
    with warehouse.writing() as connection:
        return ledger.begin(connection, stage, engine="test", **given_values)


def close(warehouse, batch, **given_values):
    with warehouse.writing() as connection:
        ledger.close(connection, batch, checksum="c", **given_values)


def add(warehouse, batch, **counts):
    with warehouse.writing() as connection:
        ledger.add(connection, batch, **counts)


def waiting(warehouse, consumer=PROCESS):
    with warehouse.reading() as connection:
        return [batch.id for batch in ledger.unconsumed(connection, consumer)]


def consume(warehouse, consumer, taken, by=999):
    with warehouse.writing() as connection:
        ledger.consume(connection, consumer, taken, by=by)


def test_a_batch_from_its_begin_to_its_end(warehouse):
    parent = begin(warehouse, pipeline_runs=["a", "b"])
    batch = begin(
        warehouse,
        PROCESS,
        parents=[parent, parent],
        pipeline_runs=["c", "a"],
        dag_run="http://run",
        exchange_time=LATER,
    )
    first = Range("BTCUSDT", "1h", START + 5 * HOUR, START + 9 * HOUR, 5)
    add(warehouse, batch, read=7, written=5, news=4, rejected=2, ranges=[first])
    wider = Range("BTCUSDT", "1h", START, START + 6 * HOUR, 2)
    other = Range("ADAUSDT", "1h", START, START, 1)
    add(warehouse, batch, read=3, written=3, news=3, ranges=[wider, other])
    add(warehouse, batch)
    close(warehouse, batch, watermark=START, details={"failures": [{"symbol": "X"}]})
    with warehouse.reading() as connection:
        found = ledger.get(connection, batch)
    assert (found.rows_read, found.rows_written, found.rows_news, found.rows_rejected) == (
        10, 8, 7, 2,
    )  # fmt: skip
    assert found.ranges == (other, Range("BTCUSDT", "1h", START, START + 9 * HOUR, 7))
    assert found.pipeline_runs == ("a", "b", "c")
    assert (found.parents, found.status, found.checksum) == ((parent,), "committed", "c")
    assert (found.dag_run, found.exchange_time, found.watermark) == ("http://run", LATER, START)
    assert found.details == {"failures": [{"symbol": "X"}]}
    assert found.seconds >= 0
    assert found.ended_at >= found.started_at


def test_a_batch_that_committed_late_is_not_passed_over(warehouse):
    early, late = begin(warehouse), begin(warehouse)
    add(warehouse, late, news=1)
    close(warehouse, late)
    assert waiting(warehouse) == [late]
    consume(warehouse, PROCESS, [late])
    add(warehouse, early, news=1)
    close(warehouse, early)
    assert early < late
    assert waiting(warehouse) == [early]


def test_running_batches_and_batches_without_news_are_not_taken(warehouse):
    running, empty = begin(warehouse), begin(warehouse)
    add(warehouse, running, news=5)
    add(warehouse, empty, read=5, written=2)
    close(warehouse, empty)
    assert waiting(warehouse) == []
    with warehouse.reading() as connection:
        assert [batch.id for batch in ledger.running(connection, INGEST)] == [running]


def test_a_failed_batch_with_news_is_taken(warehouse):
    failed = ingest_batch(warehouse, series(3), error="the exchange went away")
    barren = begin(warehouse)
    close(warehouse, barren, error="nothing came")
    assert waiting(warehouse) == [failed]
    with warehouse.reading() as connection:
        found = ledger.get(connection, failed)
    assert (found.status, found.error, found.rows_news) == ("failed", "the exchange went away", 3)


def test_each_consumer_and_each_stage_has_its_own(warehouse):
    ingested = ingest_batch(warehouse, series(3))
    processed = begin(warehouse, PROCESS, parents=[ingested])
    add(warehouse, processed, news=3)
    close(warehouse, processed)
    assert waiting(warehouse, PROCESS) == [ingested]
    assert waiting(warehouse, TRACK) == [processed]
    consume(warehouse, TRACK, [ingested])  # another consumer's mark means nothing here
    assert waiting(warehouse, PROCESS) == [ingested]
    consume(warehouse, PROCESS, [ingested], by=processed)
    assert waiting(warehouse, PROCESS) == []
    assert consumed(warehouse, PROCESS) == {ingested: processed}


def test_a_batch_is_consumed_once(warehouse):
    batch = ingest_batch(warehouse, series(3))
    consume(warehouse, PROCESS, [batch])
    with pytest.raises(FatalError):
        consume(warehouse, PROCESS, [batch], by=1000)
    assert consumed(warehouse, PROCESS) == {batch: 999}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=8),
    st.permutations(range(8)),
    st.lists(st.integers(0, 7), max_size=5),
)
def test_nothing_is_lost_in_any_order_of_commits(warehouse, made, order, takes):
    """Each batch is consumed exactly once, whenever it commits and whenever someone looks."""
    with warehouse.writing() as connection:
        connection.execute(consumption.delete())
        connection.execute(ledger.batches.delete())
    ids = [begin(warehouse) for _ in made]
    got = []
    for step, index in enumerate(at for at in order if at < len(made)):
        news, failed = made[index]
        add(warehouse, ids[index], news=news)
        close(warehouse, ids[index], error="failed" if failed else None)
        if step in takes:
            taken = waiting(warehouse)
            consume(warehouse, PROCESS, taken, by=1000 + step)
            got += taken
    got += waiting(warehouse)
    assert sorted(got) == [batch for batch, (news, _) in zip(ids, made, strict=True) if news]


def test_a_closed_batch_takes_no_more(warehouse):
    """Its consumers may have read it: what came later would never be consumed."""
    batch = begin(warehouse)
    close(warehouse, batch, error="taken for dead")
    with pytest.raises(RetriableError, match=f"closed batch {batch}"):
        add(warehouse, batch, written=1, news=1, ranges=[Range("A", "1h", 0, 0, 1)])
    with pytest.raises(RetriableError, match=f"closed batch {batch}"):
        close(warehouse, batch)
    close(warehouse, batch, error="a second reason")
    with warehouse.reading() as connection:
        found = ledger.get(connection, batch)
    assert (found.status, found.error, found.rows_news, found.ranges) == (
        "failed", "taken for dead", 0, (),
    )  # fmt: skip


def test_an_error_of_any_length_fits(warehouse):
    batch = begin(warehouse)
    close(warehouse, batch, error="\U0001f4a5" * 20_000)
    with warehouse.reading() as connection:
        assert len(ledger.get(connection, batch).error) == 10_000


def test_recent_and_of_run(warehouse):
    ids = [begin(warehouse, pipeline_runs=["run-1"] * (at % 2)) for at in range(6)]
    for at, batch in enumerate(ids):
        close(warehouse, batch, error="failed" if at == 4 else None)
    with warehouse.reading() as connection:
        assert [b.id for b in ledger.recent(connection, INGEST, limit=3)] == [
            ids[2], ids[3], ids[5],
        ]  # fmt: skip
        assert [b.id for b in ledger.of_run(connection, "run-1")] == ids[1::2]
        assert ledger.of_run(connection, "run-2") == []
        assert ledger.get(connection, 10**9) is None


def test_counts_are_those_of_the_rows(warehouse):
    batch = ingest_batch(warehouse, [*series(5), bar(9, volume="-1.00000000")])
    (found,) = batches(warehouse, INGEST)
    assert found.id == batch
    assert (found.rows_read, found.rows_written, found.rows_news, found.rows_rejected) == (
        6, 5, 5, 1,
    )  # fmt: skip
    assert found.watermark == START + 4 * HOUR
