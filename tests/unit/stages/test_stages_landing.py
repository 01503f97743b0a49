"""The fold of an Airbyte destination's table, on each database."""

from __future__ import annotations

import pytest

from bentley.domain.errors import ConfigurationError, DataError, RetriableError
from bentley.stages import coverage, intake, landing
from bentley.stages.landing import CLOCKS_APART_MS, fold
from bentley.warehouse.ledger import INGEST
from bentley.warehouse.schema import binance_ohlcv, quarantine, source_states
from unit.stages.chain_support import (
    HOUR,
    LATER,
    START,
    bar,
    batches,
    digest,
    frame,
    ingest_batch,
    rows_of,
    series,
)
from unit.stages.landing_support import MINUTE, land, make

NOW = LATER + HOUR


@pytest.fixture(autouse=True)
def exchange(monkeypatch):
    monkeypatch.setattr(intake.exchange, "server_time", lambda _: NOW)
    monkeypatch.setattr(coverage.exchange, "status", lambda *_: "TRADING")


@pytest.fixture
def given(opened):
    """Settings of the one series that the tests land."""

    def make_(**more):
        return opened.model_copy(
            update={"airbyte_connection_id": "c-1", "symbols": ("BTCUSDT",)} | more
        )

    return make_


def test_what_has_landed_is_what_a_sync_would_have_stored(given, warehouse):
    rows = series(50)
    make(warehouse)
    land(warehouse, rows)
    report = fold(given(), job_id=7, pipeline_runs=["run-1"], dag_run="dag/run")
    assert (report.rows_read, report.rows_written, report.rows_news) == (50, 50, 50)
    (batch,) = batches(warehouse, INGEST)
    assert (batch.engine, batch.status, batch.details["job"]) == ("airbyte-server", "committed", 7)
    assert (batch.pipeline_runs, batch.dag_run, batch.exchange_time) == (
        ("run-1",), "dag/run", NOW,
    )  # fmt: skip
    assert {row.source for row in _bars(warehouse)} == {"airbyte-server"}
    folded = digest(warehouse)
    ingest_batch(warehouse, rows)  # finds nothing that differs
    assert digest(warehouse) == folded
    assert batches(warehouse, INGEST)[-1].rows_written == 0


@pytest.mark.parametrize("kind", ["DECIMAL(38,9)", "VARCHAR(64)", "JSON"])
def test_prices_are_exact_in_every_type_of_column(given, warehouse, kind):
    if kind != "VARCHAR(64)" and warehouse.engine.dialect.name == "sqlite":
        make(warehouse, types={"close": kind})
        with pytest.raises(ConfigurationError, match=r"keeps close .* have lost digits"):
            fold(given())
        return
    price, tiny = "12345678901234567.12345678", "0.00000001"
    wide = bar(0, price, high=price, low=tiny, volume="98765432109876543210.00000001")
    quoted = {"open", "close"} if kind == "JSON" else set()
    make(warehouse, types=dict.fromkeys(("open", "high", "low", "close", "volume"), kind))
    land(
        warehouse, [{name: f'"{cell}"' if name in quoted else cell for name, cell in wide.items()}]
    )
    fold(given())
    (stored,) = _bars(warehouse)
    (meant,) = frame([wide]).to_dicts()
    assert {name: getattr(stored, name) for name in meant if name != "is_closed"} == {
        name: cell for name, cell in meant.items() if name != "is_closed"
    }


def test_a_later_fold_reads_what_came_since_the_last_but_one(given, warehouse):
    make(warehouse)
    for at in range(5):
        land(warehouse, [bar(at)], at=LATER + at * MINUTE)
        report = fold(given())
        assert report.rows_written == 1
        assert report.rows_read == min(at + 1, 3)


def test_a_row_that_comes_late_and_out_of_order_is_not_lost(given, warehouse):
    """Another job is at work during a fold: the rest of its rows is stamped before what was seen."""
    make(warehouse)
    land(warehouse, [bar(0)], at=LATER)
    fold(given())
    land(warehouse, [bar(1)], at=LATER + 2 * MINUTE)
    fold(given())
    land(warehouse, [bar(2)], at=LATER + 2 * MINUTE - 1000)
    assert fold(given()).rows_written == 1


def test_a_table_that_is_made_anew_by_an_older_clock_is_read_whole(given, warehouse):
    make(warehouse)
    for _ in range(3):
        land(warehouse, [bar(0)], at=LATER)
        fold(given())
    with warehouse.writing() as connection:
        connection.exec_driver_sql("DELETE FROM klines")
    land(warehouse, [bar(1)], at=LATER - HOUR)
    assert fold(given()).rows_written == 1


def test_of_several_versions_the_last_extracted_counts_and_none_is_bad(
    given, warehouse, monkeypatch
):
    versions = [bar(0, f"{100 + at}.00000000", trades=at) for at in range(20)]
    make(warehouse)
    land(warehouse, versions)
    report = fold(given(max_rejected_share=0.0))
    assert (report.rows_read, report.rows_written, report.rows_rejected) == (20, 1, 0)
    assert [row.trades for row in _bars(warehouse)] == [19]
    monkeypatch.setattr(landing, "_CHUNK_ROWS", 7)  # also where they lie in several pieces
    land(warehouse, versions[::-1], at=LATER + HOUR)
    assert fold(given()).rows_rejected == 0
    assert [row.trades for row in _bars(warehouse)] == [0]


def test_a_candle_that_was_forming_in_the_answer_is_not_closed(given, warehouse):
    """However long ago that was, and however much later Airbyte has stamped the row."""
    close = int(bar(0)["close_time"])
    make(warehouse, answered=True)
    for answered, closed in ((close - 2000, 0), (close, 0), (close + 1, 1)):
        land(warehouse, [bar(0)], at=close + 30 * MINUTE, answered=answered)
        assert fold(given()).rows_news == closed
        assert [row.is_closed for row in _bars(warehouse)] == [closed]


@pytest.mark.parametrize("column", [False, True])
def test_without_the_answers_time_the_clock_is_that_of_the_jobs_start(given, warehouse, column):
    close = int(bar(0)["close_time"])
    make(warehouse, answered=column)
    for started, closed in ((close + CLOCKS_APART_MS, 0), (close + CLOCKS_APART_MS + 1, 1)):
        land(warehouse, [bar(0)], at=close + 30 * MINUTE)
        assert fold(given(), started=started).rows_news == closed
        assert [row.is_closed for row in _bars(warehouse)] == [closed]


def test_a_row_of_an_unknown_job_may_be_as_old_as_a_job_may_take(given, warehouse):
    close = int(bar(0)["close_time"])
    oldest = close + CLOCKS_APART_MS + HOUR
    make(warehouse)
    for at, closed in ((oldest, 0), (oldest + 1, 1)):
        land(warehouse, [bar(0)], at=at)
        assert fold(given()).rows_news == closed


@pytest.mark.parametrize("started", [None, LATER])
def test_rows_that_are_stamped_ahead_of_the_exchange_are_refused(given, warehouse, started):
    """A session of the destination west of Greenwich: its stamps would lie in the future."""
    make(warehouse)
    land(warehouse, [bar(0)], at=NOW + CLOCKS_APART_MS + 1)
    with pytest.raises(ConfigurationError, match=r"ahead of the exchange's clock .* be in UTC"):
        fold(given(), started=started)
    assert _bars(warehouse) == []


def test_a_job_whose_rows_are_stamped_before_its_start_is_refused(given, warehouse):
    """A session of the destination east of Greenwich: no bar of it would ever be closed."""
    make(warehouse)
    land(warehouse, [bar(0)], at=LATER)
    with pytest.raises(ConfigurationError, match=r"before the job's start .* be in UTC"):
        fold(given(), started=LATER + 9 * HOUR)
    assert _bars(warehouse) == []
    assert fold(given(), started=LATER + CLOCKS_APART_MS).rows_written == 1


def _corrected(given, warehouse):
    """A table whose first bar was 100, and 200 later; both were folded in long ago."""
    make(warehouse)
    land(warehouse, [bar(0, "100.00000000"), *series(29, first=1)], at=LATER)
    fold(given())
    land(warehouse, [bar(0, "200.00000000")], at=LATER + 2 * MINUTE)
    for at in range(40, 44):
        land(warehouse, [bar(at)], at=LATER + at * MINUTE)
        fold(given())
    assert _bars(warehouse)[0].close == 200


@pytest.mark.parametrize(
    ("more", "selected"), [({"again": True}, {}), ({}, {"since": START - HOUR})]
)
def test_a_whole_reading_that_is_killed_leaves_no_earlier_version(
    given, warehouse, monkeypatch, more, selected
):
    _corrected(given, warehouse)
    monkeypatch.setattr(landing, "_CHUNK_ROWS", 10)
    store = intake.Intake.store

    def killed(self, *args, **more):
        store(self, *args, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(intake.Intake, "store", killed)
    with pytest.raises(KeyboardInterrupt):
        fold(given(**selected), **more)
    monkeypatch.setattr(intake.Intake, "store", store)
    fold(given())
    assert _bars(warehouse)[0].close == 200
    fold(given())
    land(warehouse, [bar(50)], at=LATER + HOUR - MINUTE)
    assert fold(given()).rows_read < 5  # it isn't read whole for ever


def test_a_whole_reading_leaves_other_positions_as_they_were(given, warehouse):
    _corrected(given, warehouse)
    before = dict(rows_of(warehouse, source_states, "name", "state"))
    fold(given(since=START - HOUR))
    after = dict(rows_of(warehouse, source_states, "name", "state"))
    assert before.items() < after.items()


def test_a_correction_by_another_way_is_not_undone_by_an_older_row(given, warehouse):
    _corrected(given, warehouse)
    ingest_batch(warehouse, [bar(0, "555.00000000")], now=LATER + 2 * MINUTE)
    for more, selected in (({"again": True}, {}), ({}, {"since": START - HOUR}), ({}, {})):
        fold(given(**selected), **more)
        assert _bars(warehouse)[0].close == 555
    land(warehouse, [bar(0, "600.00000000")], at=LATER + 55 * MINUTE)  # a newer one takes it
    fold(given())
    assert _bars(warehouse)[0].close == 600


def test_a_first_fold_after_a_job_is_not_read_again(given, warehouse):
    make(warehouse)
    land(warehouse, series(5), at=LATER - HOUR)
    land(warehouse, series(2, first=5), at=LATER)
    fold(given(), started=LATER)
    land(warehouse, [bar(7)], at=LATER + MINUTE)
    assert fold(given()).rows_read == 3


def test_the_exchanges_clock_is_the_bound_of_what_is_closed(given, warehouse, monkeypatch):
    now = int(bar(0)["close_time"])
    monkeypatch.setattr(intake.exchange, "server_time", lambda _: now)
    make(warehouse, answered=True)
    land(warehouse, [bar(0)], at=now, answered=now + MINUTE)
    assert fold(given()).rows_news == 0


def test_bad_rows_are_quarantined_and_a_larger_share_fails(given, warehouse):
    make(warehouse)
    land(warehouse, [*series(30), bar(30, high="1.0"), bar(31, close=None) | {"close": None}])
    report = fold(given())
    assert (report.rows_written, report.rows_rejected) == (30, 2)
    assert len(rows_of(warehouse, quarantine)) == 2
    land(warehouse, [bar(at, high="1.0") for at in range(40, 60)], at=LATER + HOUR)
    with pytest.raises(DataError, match="22 of 52 rows are bad"):
        fold(given())
    with pytest.raises(DataError):  # the position has not passed them
        fold(given())
    assert batches(warehouse, INGEST)[-1].status == "failed"


def test_only_what_is_selected_is_taken_and_the_rest_later(given, warehouse):
    make(warehouse)
    land(warehouse, [*series(10), *series(10, symbol="ETHUSDT"), *series(10, interval="1m")])
    middle = {"since": START + 2 * HOUR, "until": START + 5 * HOUR}
    assert fold(given(**middle)).rows_read == 3
    assert fold(given()).rows_written == 7
    assert fold(given(symbols=("BTCUSDT", "ETHUSDT"))).rows_written == 10
    assert {row.interval for row in _bars(warehouse)} == {"1h"}


def test_columns_of_another_name_are_mapped(given, warehouse):
    names = {"open_time": "opened_at", "interval": "bar_size"}
    make(warehouse, "market", names=names)
    land(warehouse, series(5), name="market", names=names)
    mapped = given(airbyte_table="market", airbyte_columns="open_time=opened_at interval=bar_size")
    assert fold(mapped).rows_written == 5


def test_a_missing_table_is_named_with_what_is_there(given, warehouse):
    make(warehouse, "candles")
    with pytest.raises(ConfigurationError, match=r"table klines .* there is candles"):
        fold(given())
    (batch,) = batches(warehouse, INGEST)
    assert batch.status == "failed"
    assert "BENTLEY_AIRBYTE_TABLE" in batch.error


def test_a_missing_column_is_named_with_what_is_there(given, warehouse):
    make(warehouse, names={"close": "last"})
    with pytest.raises(ConfigurationError, match=r"lacks close; it has .*last") as caught:
        fold(given())
    assert "BENTLEY_AIRBYTE_COLUMNS" in str(caught.value)


def test_columns_of_too_few_places_are_refused(given, warehouse):
    make(warehouse, types={"close": "DECIMAL(38,2)", "volume": "BIGINT"})
    with pytest.raises(
        ConfigurationError, match=r"close (DECIMAL|NUMERIC)\(38, 2\), volume BIGINT"
    ):
        fold(given())


def test_whole_numbers_may_stand_in_decimals(given, warehouse):
    names = ("open_time", "close_time", "trades")
    make(warehouse, types=dict.fromkeys(names, "VARCHAR(64)"))
    rows = [{name: f"{cell}.000" if name in names else cell for name, cell in bar(0).items()}]
    land(warehouse, rows)
    assert fold(given()).rows_written == 1


def test_where_every_row_is_rejected_it_is_said_why(given, warehouse):
    make(warehouse, types={"open_time": "VARCHAR(64)"})
    land(warehouse, [bar(0) | {"open_time": "2023-01-01 00:00:00"}])
    with pytest.raises(ConfigurationError, match="the first because open_time 2023-01-01 00:00:00"):
        fold(given())


def test_rows_with_blanks_for_a_name_are_rejected_and_others_are_not_ours(given, warehouse):
    make(warehouse)
    names = ["", "  ", " BTCUSDT", "ETHUSDT"]
    rows = [bar(0), *(bar(1 + at, symbol=name) for at, name in enumerate(names))]
    land(warehouse, [*rows, bar(9, interval=""), bar(10, interval="1m")])
    report = fold(given())
    assert (report.rows_read, report.rows_written, report.rows_rejected) == (5, 1, 4)


def test_two_folds_that_let_all_pass_leave_bad_rows_behind(given, warehouse):
    make(warehouse)
    land(warehouse, [bar(0)], at=LATER)
    fold(given())
    land(warehouse, [bar(at, high="1.0") for at in range(40, 60)], at=LATER + MINUTE)
    with pytest.raises(DataError):
        fold(given())
    for at in range(2):
        land(warehouse, [bar(1 + at)], at=LATER + (2 + at) * MINUTE)
        fold(given(max_rejected_share=1.0))
    assert fold(given()).rows_rejected == 0


def test_columns_of_floats_are_refused(given, warehouse):
    make(warehouse, types={"close": "DOUBLE", "volume": "FLOAT"})
    with pytest.raises(ConfigurationError, match=r"keeps close (DOUBLE|REAL), volume FLOAT, which"):
        fold(given())


def test_a_series_that_never_came_is_named(given, warehouse):
    make(warehouse)
    land(warehouse, series(3))
    report = fold(given(symbols=("BTCUSDT", "ETHUSDT")))
    assert [failure["symbol"] for failure in report.failures] == ["ETHUSDT"]
    with pytest.raises(ConfigurationError, match="SOLUSDT 1h: klines has brought no bar"):
        fold(given(symbols=("SOLUSDT",)))


def test_with_again_the_table_is_read_whole(given, warehouse):
    make(warehouse)
    for at in range(4):
        land(warehouse, [bar(at)], at=LATER + at * MINUTE)
        fold(given())
    assert fold(given(), again=True).rows_read == 4


def test_a_fold_that_is_killed_is_done_again(given, warehouse, monkeypatch):
    monkeypatch.setattr(landing, "_CHUNK_ROWS", 10)
    make(warehouse)
    land(warehouse, series(35))
    store, stored = intake.Intake.store, []

    def killed(self, *args, **more):
        if len(stored) == 2:
            raise KeyboardInterrupt
        stored.append(store(self, *args, **more))

    monkeypatch.setattr(intake.Intake, "store", killed)
    with pytest.raises(KeyboardInterrupt):
        fold(given())
    assert rows_of(warehouse, source_states) == []
    monkeypatch.setattr(intake.Intake, "store", store)
    report = fold(given())
    assert (report.rows_read, report.rows_written) == (35, 15)


def test_an_exchange_out_of_reach_is_in_the_ledger(given, warehouse, monkeypatch):
    def away(_):
        msg = "the exchange can't be reached"
        raise RetriableError(msg)

    monkeypatch.setattr(intake.exchange, "server_time", away)
    with pytest.raises(RetriableError):
        fold(given())
    assert batches(warehouse, INGEST)[0].status == "failed"


def _bars(warehouse):
    with warehouse.reading() as connection:
        return list(connection.execute(binance_ohlcv.select().order_by(binance_ohlcv.c.open_time)))
