"""The KNIME stage over real databases: incremental, exact, and nothing lost on the way."""

import itertools
import random

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentley.domain.errors import BentleyError, DataError, FatalError, RetriableError
from bentley.stages import engines
from bentley.stages import process as stage
from bentley.warehouse import ledger
from bentley.warehouse.ledger import INGEST, PROCESS
from bentley.warehouse.schema import COMPUTED, binance_ohlcv, knime_landing, knime_processed
from bentley.warehouse.schema import quarantine as quarantine_table
from bentley.warehouse.warehouse import Warehouse
from unit.stages.chain_support import (
    HOUR,
    START,
    add_rows,
    bar,
    batches,
    consumed,
    digest,
    ingest_batch,
    ingest_unchecked,
    rows_of,
    series,
)

NUMBERS = itertools.count()
EXACT = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume",
         "trades", "taker_buy_base_volume", "taker_buy_quote_volume")  # fmt: skip


def processed(warehouse, symbol="BTCUSDT", names=(*EXACT, *COMPUTED, "quality_flag")):
    with warehouse.reading() as connection:
        c = knime_processed.c
        query = sa.select(*(c[name] for name in names)).where(c.symbol == symbol)
        return [tuple(row) for row in connection.execute(query.order_by(c.open_time))]


def raw(warehouse, symbol="BTCUSDT"):
    with warehouse.reading() as connection:
        c = binance_ohlcv.c
        query = sa.select(*(c[name] for name in EXACT)).where(c.symbol == symbol, c.is_closed == 1)
        return [tuple(row) for row in connection.execute(query.order_by(c.open_time))]


def test_every_closed_bar_goes_through_unchanged(opened, warehouse):
    taken = ingest_batch(warehouse, [*series(60), *series(5, symbol="ETHUSDT")], runs=["run-1"])
    report = stage.process(opened, pipeline_runs=["run-2"], dag_run="http://here")
    assert (report.rows_read, report.rows_written, report.rows_rejected) == (65, 65, 0)
    (batch,) = batches(warehouse, PROCESS)
    assert (batch.id, batch.status, batch.parents) == (report.batch_id, "committed", (taken,))
    assert batch.pipeline_runs == ("run-1", "run-2")
    assert (batch.dag_run, batch.watermark) == ("http://here", START + 59 * HOUR)
    assert consumed(warehouse, PROCESS) == {taken: batch.id}
    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert [row[: len(EXACT)] for row in processed(warehouse, symbol)] == raw(warehouse, symbol)
    assert rows_of(warehouse, knime_landing, "symbol") == []
    (upstream,) = batches(warehouse, INGEST)
    assert batch.checksum == upstream.checksum  # the same bars, whatever the table


def test_nothing_new_makes_no_batch(opened, warehouse):
    assert stage.process(opened).batch_id is None
    ingest_batch(warehouse, series(3))
    stage.process(opened)
    ingest_batch(warehouse, series(3))  # the same again is no news
    assert stage.process(opened).batch_id is None
    assert len(batches(warehouse, PROCESS)) == 1


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.integers(1, 59), max_size=4),
    st.sets(st.integers(0, 59), max_size=4),
    st.sets(st.integers(0, 59), max_size=2),
    st.lists(st.tuples(st.integers(0, 59), st.integers(1, 400)), max_size=3),
    st.integers(0, 2**20),
)
def test_step_by_step_gives_the_bits_of_all_at_once(
    opened, warehouse, cuts, missing, broken, corrections, seed
):
    """Whatever the steps, with gaps, rejected bars and late corrections between them."""
    number = next(NUMBERS)
    steps, whole = f"A{number}", f"B{number}"
    final = {at: row for at, row in enumerate(series(60, seed=seed)) if at not in missing}
    for at in broken & final.keys():
        final[at]["high"] = "0.50000000"
    edges = [0, *sorted(cuts), 60]
    for first, end in itertools.pairwise(edges):
        if part := [row | {"symbol": steps} for at, row in final.items() if first <= at < end]:
            ingest_unchecked(warehouse, part)
            stage.process(opened)
    for at, close in corrections:
        if at in final:
            final[at] |= {"close": f"{close}.50000000"}
            ingest_unchecked(warehouse, [final[at] | {"symbol": steps}])
            stage.process(opened)
    ingest_unchecked(warehouse, [row | {"symbol": whole} for row in final.values()])
    stage.process(opened)
    assert processed(warehouse, steps) == processed(warehouse, whole)  # floats to the bit
    assert len(processed(warehouse, whole)) == len(final) - len(broken & final.keys())


def test_both_databases_give_the_same_figures(settings, mariadb):
    rows = series(80, seed=11)
    del rows[33:35]
    found = []
    for url in (None, mariadb.database()):
        opened = settings(warehouse_url=url)
        with Warehouse.open(opened) as warehouse:
            ingest_batch(warehouse, rows)
            stage.process(opened)
            found.append(processed(warehouse))
    for one, other in zip(*found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a == (pytest.approx(b, rel=1e-12) if isinstance(b, float) else b)


def test_a_correction_recomputes_from_the_first_changed_bar_and_no_further_than_the_windows(
    opened, warehouse
):
    rows = series(90)
    ingest_batch(warehouse, rows)
    first = stage.process(opened).batch_id
    rows[40]["close"] = "77.00000000"
    ingest_batch(warehouse, [rows[40]])
    second = stage.process(opened).batch_id
    marks = [batch for (batch,) in processed(warehouse, names=("batch_id",))]
    changed = [at for at, batch in enumerate(marks) if batch == second]
    assert set(marks) == {first, second}
    assert changed == list(range(40, 40 + stage.WINDOW_BARS + 1))
    corrected = processed(warehouse)
    ingest_batch(warehouse, [row | {"symbol": "SCRATCH"} for row in rows])
    stage.process(opened)
    assert processed(warehouse, "SCRATCH") == corrected
    assert corrected[40][EXACT.index("close")] == 77


def test_forming_bars_are_not_processed_until_they_close(opened, warehouse):
    now = START + 3 * HOUR + HOUR // 2
    ingest_batch(warehouse, series(4), now=now)
    assert stage.process(opened).rows_written == 3
    ingest_batch(warehouse, [bar(3, "42.00000000")], now=now)  # it changes, and still forms
    assert stage.process(opened).batch_id is None
    ingest_batch(warehouse, [bar(3, "43.00000000")])
    assert stage.process(opened).rows_written == 1
    assert processed(warehouse)[3][EXACT.index("close")] == 43


def test_rejects_go_to_quarantine_once_and_are_counted(opened, warehouse):
    rows = [bar(at) for at in range(30)]
    rows[7]["high"] = "0.50000000"
    rows[9]["taker_buy_base_volume"] = "11.00000000"
    ingest_unchecked(warehouse, rows)
    report = stage.process(opened)
    assert (report.rows_read, report.rows_written, report.rows_rejected) == (30, 28, 2)
    kept = rows_of(warehouse, quarantine_table, "stage", "open_time", "reason")
    assert sorted((int(at) - START) // HOUR for _, at, _ in kept) == [7, 9]
    assert {one for one, _, _ in kept} == {"process"}
    assert all(reason for *_, reason in kept)
    rows[5]["close"] = "99.00000000"
    ingest_unchecked(warehouse, [rows[5]])
    again = stage.process(opened)
    assert (again.rows_read, again.rows_rejected) == (21, 2)
    for one in (report, again):  # seen before or not
        assert {(made["open_time"], made["reason"]) for made in one.rejects} == {
            (at, reason) for _, at, reason in kept
        }
    assert len(rows_of(warehouse, quarantine_table, "stage")) == 2
    rows[7] = bar(7)
    ingest_unchecked(warehouse, [rows[7]])
    assert stage.process(opened).rows_rejected == 1
    assert len(processed(warehouse)) == 29


def test_past_a_share_of_rejects_the_batch_fails_and_stores_nothing(opened, warehouse):
    ingest_unchecked(warehouse, [bar(at, high="0.50000000") for at in range(30)])
    with pytest.raises(DataError, match=r"30 of 30 rows are bad \(the first: high[^;]*$"):
        stage.process(opened)
    (batch,) = batches(warehouse, PROCESS)
    assert batch.status == "failed"
    assert processed(warehouse) == []
    assert consumed(warehouse, PROCESS) == {}


@pytest.mark.parametrize("when", ["before computing", "between", "before folding"])
def test_a_sync_at_the_same_time_causes_no_false_reject(opened, warehouse, monkeypatch, when):
    """New bars, a forming bar that closes, and a correction arrive in the middle of a run."""
    rows = series(40)
    now = START + 29 * HOUR + HOUR // 2
    ingest_batch(warehouse, rows[:30], now=now)
    later = [row.copy() for row in rows[25:36]]
    later[0]["close"] = "55.00000000"

    def arrive():
        ingest_batch(warehouse, later)

    if when == "before computing":
        compute = stage._compute
        monkeypatch.setattr(stage, "_compute", lambda *given: arrive() or compute(*given))
    elif when == "between":
        choose = engines.choose

        def slow(*given):
            engine = choose(*given)
            came = []

            def run(variables):
                if len(came) == 1:
                    arrive()
                came.append(variables)
                engine.run(variables)

            return engines.WorkflowEngine(27, run)

        monkeypatch.setattr(engines, "choose", slow)
    else:
        fold = stage._fold
        monkeypatch.setattr(stage, "_fold", lambda *given: arrive() or fold(*given))
    report = stage.process(opened)
    monkeypatch.undo()
    assert report.rows_rejected == 0
    assert report.rows_read == report.rows_written
    assert rows_of(warehouse, quarantine_table, "reason") == []
    assert stage.process(opened).rows_rejected == 0
    assert rows_of(warehouse, quarantine_table, "reason") == []
    assert [row[: len(EXACT)] for row in processed(warehouse)] == raw(warehouse)
    assert len(raw(warehouse)) == 36
    stepped = processed(warehouse)
    whole = [*rows[:25], *later]
    ingest_batch(warehouse, [row | {"symbol": "SCRATCH"} for row in whole])
    stage.process(opened)
    assert processed(warehouse, "SCRATCH") == stepped


def test_an_engine_that_fails_leaves_everything_as_it_was(opened, warehouse, monkeypatch):
    ingest_batch(warehouse, series(30))
    stage.process(opened)
    ingest_batch(warehouse, series(30, seed=2))
    before = digest(warehouse)
    choose = engines.choose

    def failing(*given):
        engine = choose(*given)

        def run(variables):
            engine.run(variables)
            raise RetriableError("the machine is tired")  # noqa: EM101, TRY003

        return engines.WorkflowEngine(10, run)

    with monkeypatch.context() as patched:
        patched.setattr(engines, "choose", failing)
        with pytest.raises(RetriableError, match="tired"):
            stage.process(opened)
    assert digest(warehouse) == before
    failed = batches(warehouse, PROCESS)[-1]
    assert (failed.status, failed.rows_news) == ("failed", 0)
    assert "tired" in failed.error
    assert stage.process(opened).rows_written == 30


@pytest.mark.parametrize("lost", [1, 4, 100])
def test_a_bar_that_the_workflow_loses_is_no_reject(opened, warehouse, monkeypatch, lost):
    """However few they are: a workflow that ends well may have written nothing, or not all."""
    ingest_batch(warehouse, series(100))
    before = digest(warehouse)
    compute = stage._compute
    keys = [START + at * HOUR for at in range(100 - lost, 100)]

    def losing(*given):
        compute(*given)
        with warehouse.writing() as connection:
            connection.execute(knime_landing.delete().where(knime_landing.c.open_time.in_(keys)))

    monkeypatch.setattr(stage, "_compute", losing)
    with pytest.raises(FatalError, match=rf"{lost} of 100 bars are not in knime_landing"):
        stage.process(opened)
    assert digest(warehouse) == before
    assert consumed(warehouse, PROCESS) == {}
    assert [batch.status for batch in batches(warehouse, PROCESS)] == ["failed"]
    monkeypatch.undo()
    assert stage.process(opened).rows_written == 100


def test_a_batch_closed_by_another_process_is_not_folded(opened, warehouse, monkeypatch):
    """A restarted server drops the lock: who comes next clears our landing rows."""
    ingest_batch(warehouse, series(8))
    compute = stage._compute

    def overtaken(*given):
        compute(*given)
        (ours,) = batches(warehouse, PROCESS)
        stage._abandon(warehouse, ours.id, "taken for dead")

    with monkeypatch.context() as patched:
        patched.setattr(stage, "_compute", overtaken)
        with pytest.raises(BentleyError):
            stage.process(opened)
    assert rows_of(warehouse, quarantine_table, "reason") == []
    assert consumed(warehouse, PROCESS) == {}
    assert stage.process(opened).rows_written == 8


def test_dead_runs_are_cleared_and_what_a_dead_sync_left_is_processed(opened, warehouse):
    with warehouse.writing() as connection:
        synced = ledger.begin(connection, INGEST, engine="test", exchange_time=START)
        died = ledger.begin(connection, PROCESS, engine="test", parents=[synced])
        row = {"batch_id": died, "symbol": "BTCUSDT", "interval": "1h", "open_time": START}
        connection.execute(knime_landing.insert(), row)
    add_rows(warehouse, synced, series(6))
    report = stage.process(opened)
    assert report.rows_written == 6
    assert {batch.id: batch.status for batch in batches(warehouse, PROCESS)} == {
        died: "failed",
        report.batch_id: "committed",
    }
    (left,) = batches(warehouse, INGEST)
    assert (left.status, left.rows_news) == ("failed", 6)
    assert left.checksum
    assert rows_of(warehouse, knime_landing, "symbol") == []


def test_bars_of_a_sync_that_still_runs_wait_for_its_end(opened, warehouse):
    with warehouse.writing() as connection:
        synced = ledger.begin(connection, INGEST, engine="test", exchange_time=START)
    add_rows(warehouse, synced, series(6))
    with warehouse.lock(INGEST, wait_seconds=0):
        assert stage.process(opened).batch_id is None
    assert stage.process(opened).rows_written == 6


def test_many_batches_in_any_order_are_one_run(opened, warehouse):
    rows = series(50)
    random.Random(4).shuffle(rows)
    ids = [ingest_batch(warehouse, rows[at : at + 10]) for at in range(0, 50, 10)]
    report = stage.process(opened)
    assert report.rows_written == 50
    assert consumed(warehouse, PROCESS) == dict.fromkeys(ids, report.batch_id)
    assert [row[: len(EXACT)] for row in processed(warehouse)] == raw(warehouse)
