"""The Airbyte stage with the real connector against an exchange on loopback."""

import itertools

import pytest

from bentley.domain import intervals
from bentley.domain.clock import iso
from bentley.domain.errors import ConfigurationError, DataError, RetriableError
from bentley.services.exchange.market import CELLS
from bentley.services.exchange.recorded import RecordedMarket
from bentley.services.exchange.server import ExchangeServer
from bentley.sources.exchange import server_time
from bentley.stages import ingest, intake
from bentley.stages.follow import follow
from bentley.stages.ingest import LOOKBACK_BARS, sync
from bentley.stages.pending import announcement, overdue
from bentley.stages.process import process
from bentley.warehouse import gaps, ledger
from bentley.warehouse.ledger import INGEST, PROCESS
from bentley.warehouse.schema import binance_ohlcv, quarantine, source_states
from bentley.warehouse.warehouse import Warehouse
from unit.stages.chain_support import batches, rows_of

HOUR = 3_600_000
DAY = 24 * HOUR
NAMES = [name for name in CELLS if name != "ignore"]


def served(exchange, symbol, since, until, interval="1h"):
    """The rows that the exchange gives now, as text."""
    rows = exchange.exchange.market.klines(
        symbol, interval, since, until - 1, 100_000, exchange.now
    )
    return [tuple(str(cell) for cell in row[:-1]) for row in rows]


def stored(warehouse, symbol="BTCUSDT", interval="1h"):
    """The rows in the table, as text in the exchange's form."""
    return [
        tuple(f"{cell:f}" if hasattr(cell, "is_nan") else str(cell) for cell in row[2:])
        for row in rows_of(warehouse, binance_ohlcv, "symbol", "interval", *NAMES)
        if row[:2] == (symbol, interval)
    ]


def opens(warehouse, symbol="BTCUSDT"):
    return [int(row[0]) for row in stored(warehouse, symbol)]


def recorded_gaps(warehouse, symbol="BTCUSDT"):
    with warehouse.reading() as connection:
        return [(gap.first_open, gap.last_open) for gap in gaps.of_series(connection, symbol, "1h")]


def holes(times):
    return [(a + HOUR, b - HOUR) for a, b in itertools.pairwise(times) if b - a > HOUR]


def test_first_again_later_corrected_and_closed(configured, warehouse, exchange):
    """One warehouse through its life: each sync sees what changed, and only that."""
    found = configured()
    start = intervals.ceil(exchange.now - 3 * DAY, "1h")
    first = sync(found, pipeline_runs=["run-1"], dag_run="http://here")
    everything = served(exchange, "BTCUSDT", start, exchange.now)
    assert len(everything) > 60
    assert stored(warehouse) == everything
    assert (first.rows_read, first.rows_written) == (len(everything), len(everything))
    assert (first.rows_news, first.rows_rejected) == (len(everything) - 1, 0)  # one is forming
    assert recorded_gaps(warehouse) == holes(opens(warehouse))
    (batch,) = batches(warehouse, INGEST)
    assert (batch.status, batch.pipeline_runs, batch.dag_run, batch.exchange_time) == (
        "committed", ("run-1",), "http://here", exchange.now,
    )  # fmt: skip
    assert [flag for (flag,) in rows_of(warehouse, binance_ohlcv, "is_closed")] == [
        *[1] * (len(everything) - 1),
        0,
    ]

    again = sync(found)
    assert (again.rows_written, again.rows_news, again.status) == (0, 0, "committed")
    assert again.rows_read == LOOKBACK_BARS + 1
    assert stored(warehouse) == everything

    exchange.advance(5 * 60_000)  # the forming bar goes on
    renewed = sync(found)
    assert (renewed.rows_written, renewed.rows_news) == (1, 0)
    with warehouse.reading() as connection:  # a changed forming bar alone is no news
        assert [one.id for one in ledger.unconsumed(connection, PROCESS)] == [first.batch_id]

    before_last = int(everything[-3][0])
    change = {"symbol": "BTCUSDT", "interval": "1h", "open_time": before_last}
    exchange.rows([change | {"cells": {"trades": 123_456}}])
    late = sync(found)
    assert (late.rows_written, late.rows_news) == (1, 1)
    assert dict(zip(NAMES, stored(warehouse)[-3], strict=True))["trades"] == "123456"
    exchange.clear_rows()
    sync(found)

    exchange.advance(26 * HOUR)
    grown = sync(found)
    assert stored(warehouse) == served(exchange, "BTCUSDT", start, exchange.now)
    assert grown.rows_news >= 20
    assert recorded_gaps(warehouse) == holes(opens(warehouse))


def test_the_missing_head_and_an_exclusive_end(configured, warehouse, exchange):
    end = intervals.floor(exchange.now - DAY, "1h")
    start = end - 2 * DAY
    until = sync(configured(since=start, until=end))
    assert stored(warehouse) == served(exchange, "BTCUSDT", start, end)
    assert until.rows_news == until.rows_written
    assert max(opens(warehouse)) < end
    tail = sync(configured(since=start))
    assert stored(warehouse) == served(exchange, "BTCUSDT", start, exchange.now)
    head_start = start - 3 * DAY
    head = sync(configured(since=head_start))
    everything = served(exchange, "BTCUSDT", head_start, exchange.now)
    assert stored(warehouse) == everything
    assert head.rows_written == len(everything) - until.rows_written - tail.rows_written
    assert recorded_gaps(warehouse) == holes(opens(warehouse))
    again = sync(configured(since=head_start))
    assert again.rows_read <= LOOKBACK_BARS + 1  # the head is known to be whole


def test_a_correction_of_long_ago_is_seen_when_all_is_read_again(configured, warehouse, exchange):
    start = intervals.ceil(exchange.now - 3 * DAY, "1h")
    sync(configured(since=start))
    late = opens(warehouse)[20]
    exchange.rows(
        [
            {
                "symbol": "BTCUSDT",
                "interval": "1h",
                "open_time": late,
                "cells": {"trades": 999_999},
            }
        ]
    )
    assert sync(configured(since=start)).rows_written == 0  # far behind the look-back
    again = sync(configured(since=start), again=True)
    assert (again.rows_written, again.rows_news) == (1, 1)
    assert rows_of(warehouse, binance_ohlcv, "trades")[20] == (999_999,)


def test_unknown_symbols_are_reported_and_the_others_synced(configured, warehouse, exchange):
    report = sync(configured(symbols=["NOPEUSDT", "BTCUSDT", "ETHUSDT"]))
    assert [failure["symbol"] for failure in report.failures] == ["NOPEUSDT"]
    assert "NOPEUSDT" in report.failures[0]["message"]
    start = intervals.ceil(exchange.now - 3 * DAY, "1h")
    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert stored(warehouse, symbol) == served(exchange, symbol, start, exchange.now)
    (batch,) = batches(warehouse, INGEST)
    assert batch.details["failures"][0]["symbol"] == "NOPEUSDT"
    assert sync(configured(symbols=["NOPEUSDT", "BTCUSDT"])).rows_written == 0
    earlier = sync(configured(symbols=["NOPEUSDT", "BTCUSDT"], since=start - 2 * HOUR))
    assert earlier.rows_written == 2
    assert [failure["symbol"] for failure in earlier.failures] == ["NOPEUSDT"]
    assert {name for (name,) in rows_of(warehouse, source_states, "name")} == {
        "BTCUSDT/1h",
        "ETHUSDT/1h",
    }


def test_no_known_symbol_is_a_wrong_configuration(configured, warehouse):
    with pytest.raises(ConfigurationError, match=r"NOPEUSDT.*no such symbol"):
        sync(configured(symbols=["NOPEUSDT", "NEITHER"]))
    (batch,) = batches(warehouse, INGEST)
    assert (batch.status, batch.rows_news) == ("failed", 0)


def write_symbol(folder, symbol, times):
    header = "open_time,open,high,low,close,volume,close_time,quote_volume,trades,a,b,ignore"
    header = header.replace("a,b", "taker_buy_base_volume,taker_buy_quote_volume")
    lines = [
        f"{at},1.00000000,2.00000000,0.50000000,1.50000000,10.00000000,{at + HOUR - 1},"
        "15.00000000,3,4.00000000,6.00000000,0"
        for at in times
    ]
    (folder / f"{symbol}-1h.csv").write_text("\n".join([header, *lines]) + "\n")


def test_a_symbol_that_ends_does_not_stop_the_others(settings, database_url, tmp_path):
    start = 1_600_000_000_000 // HOUR * HOUR
    alive = [start + at * HOUR for at in range(200) if at not in {50, 51, 90}]
    write_symbol(tmp_path, "LIVEUSDT", alive)
    write_symbol(tmp_path, "GONEUSDT", [start + at * HOUR for at in range(60)])
    now = start + 150 * HOUR
    with ExchangeServer(RecordedMarket(tmp_path), now=now) as exchange:
        found = settings(
            warehouse_url=database_url,
            exchange_url=exchange.url,
            symbols=["LIVEUSDT", "GONEUSDT"],
            since=start,
        )
        first = sync(found)
        exchange.advance(30 * HOUR)
        later = sync(found)
    for report in (first, later):
        (failure,) = report.failures
        assert failure["message"].startswith("GONEUSDT 1h is BREAK on the exchange")
    gone = {one["symbol"]: one for one in later.series}["GONEUSDT"]
    assert (gone["rows"], gone["behind"]) == (60, 120)
    with Warehouse.open(found) as warehouse:
        assert opens(warehouse, "GONEUSDT") == [start + at * HOUR for at in range(60)]
        assert opens(warehouse, "LIVEUSDT") == [at for at in alive if at <= start + 180 * HOUR]
        assert recorded_gaps(warehouse, "LIVEUSDT") == holes(alive)
        assert recorded_gaps(warehouse, "GONEUSDT") == []


TAMPERED = [
    ({"high": "0.00000001"}, "high 0.00000001 lies below"),
    ({"volume": "-5.00000000"}, "volume -5.00000000 is negative"),
    ({"close": "soon"}, "close soon is not a decimal number"),
    ({"open": "1.123456789"}, "has more digits than the column"),
    ({"volume": "123456789012345678901.5"}, "has more digits than the column"),
    ({"close_time": 1}, "close_time 1 lies outside the bar"),
    ({"trades": "many"}, "trades many is not a whole number"),
    ({"low": None}, "low is missing"),
    ({"trades": 9999999999999999999}, "trades 9999999999999999999 is not a whole number"),
    ({"close": "\u0661\u0661"}, "is not a decimal number"),
]


def test_tampered_rows_go_to_quarantine_and_the_good_ones_on(configured, warehouse, exchange):
    """Each kind of fault in a row of its own, all in one read, beside a repeat and an off-grid row."""
    start = intervals.ceil(exchange.now - 3 * DAY, "1h")
    good = served(exchange, "BTCUSDT", start, exchange.now)
    at = {"symbol": "BTCUSDT", "interval": "1h"}
    for index, (cells, _) in enumerate(TAMPERED):
        exchange.rows([at | {"open_time": int(good[10 + index][0]), "cells": cells}])
    repeated, off_grid = int(good[30][0]), int(good[31][0])
    exchange.rows(
        [
            at | {"open_time": repeated, "duplicates": [{"trades": 777}]},
            at | {"open_time": off_grid, "cells": {"open_time": off_grid + 1}},
        ]
    )
    found = configured(max_rejected_share=0.5)
    report = sync(found)
    count = len(TAMPERED) + 2
    assert report.rows_rejected == count
    assert report.rows_written == len(good) - len(TAMPERED) - 1
    assert report.rows_read == len(good) + 1
    kept = rows_of(warehouse, quarantine, "reason", "stage", "symbol")
    reasons = sorted(reason for reason, *_ in kept)
    assert len(kept) == count
    for _, words in TAMPERED:
        assert any(words in reason for reason in reasons), words
    assert any("repeated" in reason for reason in reasons)
    assert any("off the 1h grid" in reason for reason in reasons)
    missing = {int(row[0]) for row in good[10 : 10 + len(TAMPERED)]} | {off_grid}
    assert [row for row in stored(warehouse) if int(row[0]) != repeated] == [
        row for row in good if int(row[0]) not in missing | {repeated}
    ]
    assert dict(zip(NAMES, stored(warehouse)[30 - len(TAMPERED)], strict=True))["trades"] == "777"
    assert recorded_gaps(warehouse) == holes(opens(warehouse))
    exchange.clear_rows()
    again = sync(configured(since=start - HOUR, max_rejected_share=0.5))
    assert again.rows_rejected == 0


def test_a_bar_whose_closing_row_was_refused_is_read_again_until_it_closes(
    configured, warehouse, exchange
):
    found = configured(max_rejected_share=0.5)
    sync(found)
    forming = opens(warehouse)[-1]
    at = {"symbol": "BTCUSDT", "interval": "1h", "open_time": forming}
    exchange.rows([at | {"cells": {"volume": "-1.00000000"}}])
    exchange.advance(10 * HOUR)
    assert sync(found).rows_rejected == 1
    exchange.clear_rows()
    sync(found)
    closed = rows_of(warehouse, binance_ohlcv, "open_time", "is_closed")
    assert [time for time, whether in sorted(closed) if not whether] == [forming + 10 * HOUR]


def test_an_until_ahead_of_the_clock_reads_no_bar_that_opens_during_the_read(
    configured, warehouse, exchange, monkeypatch
):
    """Such a bar would be judged by the clock from before it opened, and be forming for ever."""
    started = exchange.now

    def asked(url):
        now = server_time(url)
        exchange.advance(10 * HOUR)
        return now

    monkeypatch.setattr(intake.exchange, "server_time", asked)
    sync(configured(until=started + DAY))
    assert max(opens(warehouse)) == started // HOUR * HOUR


def test_no_bad_row_passes_a_share_of_nothing(configured, exchange):
    start = intervals.ceil(exchange.now - 3 * DAY, "1h")
    at = {"symbol": "BTCUSDT", "interval": "1h", "open_time": start + 5 * HOUR}
    exchange.rows([at | {"cells": {"volume": "-1.00000000"}}])
    with pytest.raises(DataError, match="1 of"):
        sync(configured(max_rejected_share=0.0))


def test_past_the_share_of_bad_rows_the_batch_fails_and_loses_nothing(
    configured, warehouse, exchange
):
    start = intervals.ceil(exchange.now - 3 * DAY, "1h")
    good = served(exchange, "BTCUSDT", start, exchange.now)
    for row in good[:20]:
        change = {"symbol": "BTCUSDT", "interval": "1h", "open_time": int(row[0])}
        exchange.rows([change | {"cells": {"high": "0.00000001"}}])
    with pytest.raises(DataError, match="BENTLEY_MAX_REJECTED_SHARE") as caught:
        sync(configured())
    assert (caught.value.rejected, caught.value.read) == (20, len(good))
    (batch,) = batches(warehouse, INGEST)
    assert (batch.status, batch.rows_rejected) == ("failed", 20)
    assert len(rows_of(warehouse, quarantine, "reason")) == 20
    exchange.clear_rows()
    sync(configured())
    assert stored(warehouse) == good


@pytest.mark.parametrize(("share", "fails"), [(0.1, True), (0.2, False)])
def test_the_share_is_of_the_whole_batch_wherever_its_chunks_are_cut(
    configured, warehouse, exchange, monkeypatch, share, fails
):
    """A third of one series is bad, a sixth of the batch; the first chunks hold no other rows."""
    monkeypatch.setattr(ingest, "_CHUNK_ROWS", 10)
    found = configured(symbols=("BTCUSDT", "ETHUSDT"), max_rejected_share=share)
    start = intervals.ceil(exchange.now - 3 * DAY, "1h")
    rows = served(exchange, "BTCUSDT", start, exchange.now)
    bad = rows[: len(rows) // 3]
    for row in bad:
        change = {"symbol": "BTCUSDT", "interval": "1h", "open_time": int(row[0])}
        exchange.rows([change | {"cells": {"high": "0.00000001"}}])
    for _ in range(2):  # what has failed is read again and fails again
        if not fails:
            assert sync(found).rows_rejected == len(bad)
            break
        with pytest.raises(DataError) as caught:
            sync(found)
        assert (caught.value.rejected, caught.value.read) == (len(bad), 2 * len(rows))
    exchange.clear_rows()
    if fails:
        sync(found)
        assert stored(warehouse) == rows


def test_a_hole_that_nobody_asked_for_is_named_with_its_remedy(configured, warehouse, exchange):
    late = intervals.ceil(exchange.now - DAY, "1h")
    early = late - 10 * DAY
    sync(configured(since=late))
    report = sync(configured(since=early, until=early + DAY))
    (failure,) = report.failures
    assert f"bentley sync --since {iso(early)} fetches them" in failure["message"]
    assert report.series[0]["freshness_hours"] == pytest.approx(0, abs=1)
    assert not sync(configured(since=early)).failures
    assert recorded_gaps(warehouse) == holes(opens(warehouse))
    assert opens(warehouse)[0] == early


def test_an_exchange_that_is_away_may_be_tried_again(configured):
    away = configured(exchange_url="http://127.0.0.1:9")
    for _ in range(2):
        with pytest.raises(RetriableError, match="can't be reached"):
            sync(away, pipeline_runs=["run-1"])
    with Warehouse.open(configured()) as warehouse:
        made = batches(warehouse, INGEST)
    assert [batch.status for batch in made] == ["failed", "failed"]
    assert all("can't be reached" in batch.error for batch in made)
    seen = follow(away, "run-1").awaited
    assert (seen.stage, seen.state, seen.error) == (INGEST, "failed", made[-1].error)
    assert announcement(away, PROCESS) is None
    assert overdue(away, PROCESS, after_seconds=0) is None
    assert process(away).batch_id is None  # a batch without bars is no one's work
    done = sync(configured(), pipeline_runs=["run-1"])
    assert follow(configured(), "run-1").waiting_for == PROCESS
    assert process(configured()).rows_read == done.rows_news
