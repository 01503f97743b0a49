"""The MLflow stage and the verification, on a real MLflow server."""

import contextlib
import threading

import pytest
import sqlalchemy as sa

from bentley.domain.errors import BentleyError, RetriableError
from bentley.stages import track as stage
from bentley.stages import verify as verify_stage
from bentley.stages.process import process
from bentley.stages.track import caught_up, track
from bentley.stages.verify import verify
from bentley.tracking.runs import Tracker
from bentley.warehouse.ledger import PROCESS, TRACK
from bentley.warehouse.schema import batches as batches_table
from bentley.warehouse.schema import (
    binance_ohlcv,
    consumption,
    knime_processed,
    mlflow_runs,
)
from bentley.warehouse.schema import gaps as gaps_table
from unit.stages.chain_support import HOUR, batches, consumed, ingest_batch, ingest_unchecked

BARS = 48


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours may catch it for good."""


@pytest.fixture
def found(configured, mlflow_uri):
    return configured(mlflow_tracking_uri=mlflow_uri)


@pytest.fixture
def rows(exchange):
    """The last two days of bars, as text; the last has just closed."""
    now = exchange.now
    served = exchange.exchange.market.klines("BTCUSDT", "1h", now - BARS * HOUR, now, 1000, now)
    names = (
        "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume",
        "trades", "taker_buy_base_volume", "taker_buy_quote_volume",
    )  # fmt: skip
    return [
        dict(zip(names, map(str, row), strict=False)) | {"symbol": "BTCUSDT", "interval": "1h"}
        for row in served
        if row[6] < now
    ]


def of_claim(uri, warehouse, batch):
    """The MLflow runs that bear the claim of a batch."""
    claim = f"{warehouse.name}:{batch}"
    with Tracker(uri)._edge.call("look") as client:
        ids = [one.experiment_id for one in client.search_experiments()]
        pages = [client.search_runs([one], max_results=1000) for one in ids]
    return [
        run
        for page in pages
        for run in page
        if any(f"{value}:".startswith(f"{claim}:") for value in run.data.tags.values())
    ]


def test_one_finished_run_with_the_ledgers_counts(found, warehouse, rows, mlflow_uri):
    ingested = ingest_batch(warehouse, rows, now=int(rows[-1]["close_time"]) + 1, runs=["run-1"])
    assert not caught_up(found)
    processed = process(found)
    assert caught_up(found)
    report = track(found, dag_run="http://airflow/run", links={"airflow.mlflow": "http://x"})
    (run,) = of_claim(mlflow_uri, warehouse, processed.batch_id)
    assert run.info.status == "FINISHED"
    assert report.details["runs"][0]["run_id"] == run.info.run_id
    metrics = run.data.metrics
    assert metrics["rows_written"] == metrics["ingest_rows_written"] == len(rows)
    assert (metrics["rows_rejected"], metrics["quality_score"]) == (0, pytest.approx(1, abs=0.2))
    assert metrics["freshness_hours"] == pytest.approx(0, abs=0.01)
    assert run.data.params["symbols"] == "BTCUSDT"
    assert run.data.params["origin"] == "exchange"
    assert run.data.tags["bentley.ingest_batches"] == str(ingested)
    assert run.data.tags["airflow.mlflow"] == "http://x"
    assert "pw-7" not in repr(run.to_dictionary())
    (logged,) = batches(warehouse, TRACK)
    assert (logged.details["run_id"], logged.pipeline_runs) == (run.info.run_id, ("run-1",))
    assert track(found).batch_id is None  # a second time there is nothing to do
    assert len(of_claim(mlflow_uri, warehouse, processed.batch_id)) == 1
    assert consumed(warehouse, TRACK) == {processed.batch_id: logged.id}


def test_each_batch_has_its_own_run(found, warehouse, rows, mlflow_uri):
    ids = []
    for part in (rows[:20], rows[20:]):
        ingest_batch(warehouse, part)
        ids.append(process(found).batch_id)
    assert len(track(found).details["runs"]) == 2
    for batch in ids:
        (run,) = of_claim(mlflow_uri, warehouse, batch)
        assert run.info.status == "FINISHED"


def test_two_at_once_make_one_run(found, warehouse, rows, mlflow_uri):
    ingest_batch(warehouse, rows)
    batch = process(found).batch_id
    failures = []

    def go():
        try:
            track(found)
        except BentleyError as error:
            failures.append(error)

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    (run,) = of_claim(mlflow_uri, warehouse, batch)
    assert run.info.status == "FINISHED"
    assert len(batches(warehouse, TRACK)) == 1


@pytest.mark.parametrize("at", ["before", "created", "logged", "closing"])
def test_a_run_that_died_half_way_is_completed_once(
    found, warehouse, rows, mlflow_uri, monkeypatch, at
):
    ingest_batch(warehouse, rows)
    batch = process(found).batch_id

    def die(*_args, **_given):
        raise Killed

    with monkeypatch.context() as patched:
        if at == "before":
            patched.setattr(stage.Tracker, "log", die)
        elif at == "created":
            patched.setattr(stage._Job, "_hold", die)
        elif at == "logged":
            patched.setattr(stage.ledger, "add", die)
        else:
            patched.setattr(stage.ledger, "consume", die)
        with pytest.raises(Killed):
            track(found)
    track(found)
    (run,) = of_claim(mlflow_uri, warehouse, batch)
    assert run.info.status == "FINISHED"
    (row,) = [row for row in _runs(warehouse) if row.processed_batch_id == batch]
    assert row.run_id == run.info.run_id
    assert list(consumed(warehouse, TRACK)) == [batch]


def _runs(warehouse):
    with warehouse.reading() as connection:
        return connection.execute(sa.select(mlflow_runs)).all()


def test_a_server_out_of_reach_may_be_tried_again_and_leaves_the_batch(found, warehouse, rows):
    ingest_batch(warehouse, rows)
    process(found)
    away = found.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"})
    with pytest.raises(RetriableError, match=r"127\.0\.0\.1:9"):
        track(away)
    assert consumed(warehouse, TRACK) == {}
    assert [batch.status for batch in batches(warehouse, TRACK)] == ["failed"]
    assert len(track(found).details["runs"]) == 1


def test_a_batch_that_cannot_be_logged_keeps_no_other_waiting(
    found, warehouse, rows, mlflow_uri, monkeypatch
):
    ids = []
    for part in (rows[:10], rows[10:20], rows[20:]):
        ingest_batch(warehouse, part)
        ids.append(process(found).batch_id)
    build = stage.run_content.build

    def broken(settings, warehouse, batch, **given):
        if batch.id in ids[:2]:
            msg = f"batch {batch.id} can't be drawn"
            raise ValueError(msg)
        return build(settings, warehouse, batch, **given)

    with monkeypatch.context() as patched:
        patched.setattr(stage.run_content, "build", broken)
        with pytest.raises(ValueError, match=f"batch {ids[0]} can't be drawn"):
            track(found)
    assert set(consumed(warehouse, TRACK)) == {ids[2]}
    assert len(track(found).details["runs"]) == 2
    for batch in ids:
        (run,) = of_claim(mlflow_uri, warehouse, batch)
        assert run.info.status == "FINISHED"


def test_a_server_out_of_reach_is_tried_once_however_many_wait(found, warehouse, rows):
    for part in (rows[:20], rows[20:]):
        ingest_batch(warehouse, part)
        process(found)
    away = found.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"})
    with pytest.raises(RetriableError, match=r"127\.0\.0\.1:9"):
        track(away)
    assert [batch.status for batch in batches(warehouse, TRACK)] == ["failed"]


@pytest.mark.parametrize("when", ["_experiment", "_log_artifacts"])
@pytest.mark.parametrize("ends", ["done", "killed"])
def test_a_stage_that_lost_its_lock_finishes_nothing(
    found, warehouse, rows, mlflow_uri, monkeypatch, when, ends
):
    """As where a database server drops the connection that holds the lock."""
    ingest_batch(warehouse, rows)
    batch = process(found).batch_id
    original = getattr(Tracker, when)
    took_over = []

    def die(*_args, **_given):
        raise Killed

    def another_takes_over(self, *args):
        if not took_over:
            took_over.append(True)
            with monkeypatch.context() as patched:
                if ends == "killed":
                    patched.setattr(stage.run_content, "build", die)
                with contextlib.suppress(Killed):
                    track(found)
        return original(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(stage.Warehouse, "alone", lambda *_args, **_given: contextlib.nullcontext())
        patched.setattr(Tracker, when, another_takes_over)
        with pytest.raises(RetriableError, match=f"another process logs batch {batch} by now"):
            track(found)
    (run,) = of_claim(mlflow_uri, warehouse, batch)
    assert run.info.status == ("FINISHED" if ends == "done" else "RUNNING")
    assert set(consumed(warehouse, TRACK)) == ({batch} if ends == "done" else set())
    track(found)
    (run,) = of_claim(mlflow_uri, warehouse, batch)
    assert run.info.status == "FINISHED"
    (row,) = _runs(warehouse)
    assert row.run_id == run.info.run_id
    assert list(consumed(warehouse, TRACK)) == [batch]


@pytest.fixture
def chained(found, warehouse, rows, exchange):
    """A chain that has come to its end, with a gap and with every check held."""
    del rows[15:18]
    ingest_batch(warehouse, rows, now=exchange.now)
    process(found)
    track(found)
    result = verify(found)
    assert result.held, result.checks
    return found


def failing(found):
    return [check.name for check in verify(found).checks if not check.held]


def test_verification_holds_and_counts(chained, warehouse, rows):
    result = verify(chained)
    (series,) = result.series
    assert (series.rows, series.processed, series.rejected) == (len(rows), len(rows), 0)
    assert series.missing_bars >= 3
    assert series.first_open == int(rows[0]["open_time"])
    (run,) = result.mlflow
    assert run["metrics"]["rows_written"] == len(rows)
    (batch,) = batches(warehouse, PROCESS)
    assert run["batch_id"] == batch.id
    assert result.to_dict()["held"] is True


def _middle(rows):
    return int(rows[30]["open_time"])


TAMPERED = {
    "a processed bar is gone": (
        lambda rows: knime_processed.delete().where(knime_processed.c.open_time == _middle(rows)),
        "rows in equal rows out plus rejects",
    ),
    "a processed bar has no source": (
        lambda rows: binance_ohlcv.delete().where(
            binance_ohlcv.c.open_time == int(rows[-1]["open_time"])
        ),
        "rows in equal rows out plus rejects",
    ),
    "a processed price was changed": (
        lambda rows: (
            knime_processed.update()
            .where(knime_processed.c.open_time == _middle(rows))
            .values(close="1.00000001")
        ),
        "checksums of what was consumed are equal",
    ),
    "a raw volume was changed": (
        lambda rows: (
            binance_ohlcv.update()
            .where(binance_ohlcv.c.open_time == _middle(rows))
            .values(volume="1.00000001")
        ),
        "checksums of what was consumed are equal",
    ),
    "a raw bar is gone": (
        lambda rows: binance_ohlcv.delete().where(binance_ohlcv.c.open_time == _middle(rows)),
        "every gap on the grid is recorded",
    ),
    "a gap is not recorded": (
        lambda _: gaps_table.delete(),
        "every gap on the grid is recorded",
    ),
    "a gap is recorded beside its place": (
        lambda _: gaps_table.update().values(
            first_open=gaps_table.c.first_open + HOUR, last_open=gaps_table.c.last_open + HOUR
        ),
        "every gap on the grid is recorded",
    ),
    "a batch is not processed": (
        lambda _: consumption.delete().where(consumption.c.consumer == "process"),
        "every bar is processed",
    ),
    "a batch is not logged": (
        lambda _: consumption.delete().where(consumption.c.consumer == "track"),
        "every batch is logged",
    ),
    "another count than MLflow's": (
        lambda _: (
            batches_table.update().where(batches_table.c.stage == "process").values(rows_written=1)
        ),
        "the MLflow runs are there with the same counts",
    ),
    "a run that MLflow doesn't have": (
        lambda _: mlflow_runs.update().values(run_id="0" * 32),
        "the MLflow runs are there with the same counts",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_each_check_notices_what_it_is_for(chained, warehouse, rows, name):
    tampering, check = TAMPERED[name]
    with warehouse.writing() as connection:
        assert connection.execute(tampering(rows)).rowcount
    assert check in failing(chained)


def test_stale_data_is_noticed_by_the_exchanges_clock(chained, exchange):
    exchange.advance(3 * HOUR)
    assert failing(chained) == []
    exchange.advance(2 * HOUR)
    assert failing(chained) == ["the data is fresh by the exchange's clock"]


def test_where_nothing_trades_any_more_nothing_is_fresh(chained, exchange, monkeypatch):
    monkeypatch.setattr(verify_stage.exchange, "status", lambda *_: "BREAK")
    exchange.advance(100 * 24 * HOUR)
    assert failing(chained) == ["the data is fresh by the exchange's clock"]


def test_a_symbol_that_ended_beside_one_that_trades_is_only_named(chained, monkeypatch):
    monkeypatch.setattr(verify_stage.exchange, "status", lambda *_: "BREAK")
    result = verify(chained.model_copy(update={"symbols": ("BTCUSDT", "GONEUSDT")}))
    assert result.held, result.checks
    assert "GONEUSDT 1h is BREAK" in result.checks[-1].detail


def test_an_empty_warehouse_holds_nothing(found, monkeypatch):
    monkeypatch.setattr(verify_stage.exchange, "status", lambda *_: "BREAK")
    assert failing(found) == [
        "rows in equal rows out plus rejects",
        "the MLflow runs are there with the same counts",
        "the data is fresh by the exchange's clock",
    ]


def test_a_reject_excuses_the_bar_as_it_was_and_not_its_correction(found, warehouse, rows):
    good = rows[30]
    rows[30] = good | {"high": "0.00000001"}
    ingest_unchecked(warehouse, rows)
    assert process(found).rows_rejected == 1
    track(found)
    assert verify(found).held
    ingest_unchecked(warehouse, [good])
    assert process(found).rows_rejected == 0
    track(found)
    assert verify(found).held
    with warehouse.writing() as connection:
        connection.execute(
            knime_processed.delete().where(knime_processed.c.open_time == _middle(rows))
        )
    (check,) = [one for one in verify(found).checks if not one.held]
    assert "1 unaccounted for" in check.detail


def test_a_rejected_bar_balances_only_with_its_quarantine(chained, warehouse, rows):
    with warehouse.writing() as connection:
        connection.execute(
            knime_processed.delete().where(knime_processed.c.open_time == _middle(rows))
        )
    (check,) = [one for one in verify(chained).checks if not one.held]
    assert "1 unaccounted for" in check.detail
