"""Coins and stocks in one shape, with nothing in them that was not known."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive_support import ms
from bentley.domain import bars as domain_bars
from bentley.domain import consensus, sentiment, stocks
from bentley.domain.errors import ConfigurationError, DataError
from bentley.warehouse import bars, series
from bentley.warehouse import stocks as stored

NOW = 1_800_000_000_000
HOUR = 3_600_000


def told(session, close, dividend="0", split="1"):
    return {
        "ticker": "AAPL",
        "session": session,
        **dict.fromkeys(("open", "high", "low", "close"), close),
        "volume": "1000",
        "div_cash": dividend,
        "split_factor": split,
        "source": "tiingo",
    }


@pytest.fixture
def filled(warehouse):
    def fill(*rows):
        prices = stocks.sift(stocks.frame(rows), now=NOW).prices
        fresh = consensus.decide(prices, order=("tiingo",), bound_bps=50)
        with warehouse.writing() as connection:
            stored.settle(connection, fresh, batch_id=1)
        return warehouse

    return fill


def three(filled):
    return filled(
        told("2024-07-02", "100"), told("2024-07-03", "50", split="2"), told("2024-07-05", "51")
    )


def test_a_stock_has_the_shape_of_a_coin(filled):
    warehouse = three(filled)
    kline = {
        "symbol": "BTCUSDT",
        "interval": "1d",
        "open_time": "1720051200000",
        **dict.fromkeys(("open", "high", "low", "close"), "60000.5"),
        "volume": "2",
        "close_time": "1720137599999",
        "quote_volume": "1",
        "trades": "3",
        "taker_buy_base_volume": "1",
        "taker_buy_quote_volume": "1",
    }
    raw = pl.DataFrame([kline], domain_bars.RAW_SCHEMA)
    sifted = domain_bars.sift(raw, now=NOW)
    with warehouse.writing() as connection:
        bars.upsert(connection, sifted.bars, batch_id=1, source="t")
    coin = series.bars(warehouse, "BTCUSDT", "1d")
    stock = series.bars(warehouse, "AAPL", "1d")
    assert stock.schema == coin.schema
    assert coin.height == 1
    assert stock.select("symbol", "close", "volume").rows()[0] == ("AAPL", 100.0, 1000.0)
    # 9:30 to 16:00 in New York, and to 13:00 on the eve of the holiday.
    assert stock["open_time"].to_list()[:2] == [ms("2024-07-02T13:30"), ms("2024-07-03T13:30")]
    assert stock["close_time"].to_list()[:2] == [
        ms("2024-07-02T20:00") - 1,
        ms("2024-07-03T17:00") - 1,
    ]
    assert stock["trades"].to_list() == [None] * 3
    assert series.bars(warehouse, "BTCUSDT", "1d", exact=True)["close"][0] == Decimal("60000.5")


def test_a_forming_candle_is_not_in_it(warehouse):
    schema = domain_bars.BAR_SCHEMA
    row = dict.fromkeys(schema, 1) | {"symbol": "ETHUSDT", "interval": "1h", "is_closed": False}
    forming = pl.DataFrame([row | {"open_time": 0, "close_time": 1}], strict=False).cast(schema)
    with warehouse.writing() as connection:
        bars.upsert(connection, forming, batch_id=1, source="t")
    assert series.bars(warehouse, "ETHUSDT", "1h").is_empty()


def test_raw_adjusted_and_exact(filled):
    warehouse = three(filled)
    assert series.bars(warehouse, "AAPL", "1d")["close"].to_list() == [100, 50, 51]
    adjusted = series.bars(warehouse, "AAPL", "1d", adjusted=True)
    assert adjusted["close"].to_list() == [50, 50, 51]
    assert adjusted["volume"].to_list() == [2000, 1000, 1000]
    exact = series.bars(warehouse, "AAPL", "1d", exact=True)
    assert exact["close"].to_list() == [Decimal(100), Decimal(50), Decimal(51)]
    with pytest.raises(ConfigurationError, match="can't be exact"):
        series.bars(warehouse, "AAPL", "1d", exact=True, adjusted=True)
    with pytest.raises(ConfigurationError, match="AAPL is a stock, whose bars are of 1d, not 1h"):
        series.bars(warehouse, "AAPL", "1h")


def test_adjusted_prices_know_no_event_from_the_end_on(filled):
    warehouse = three(filled)
    before = series.bars(warehouse, "AAPL", "1d", until=ms("2024-07-03T13:30"), adjusted=True)
    assert before["close"].to_list() == [100]
    since = series.bars(warehouse, "AAPL", "1d", since=ms("2024-07-02T13:31"))
    assert since["close"].to_list() == [50, 51]


def test_without_known_events_adjusting_is_refused(filled):
    row = told("2024-07-02", "100")
    warehouse = filled(row | {"div_cash": None, "split_factor": None})
    assert series.bars(warehouse, "AAPL", "1d").height == 1
    with pytest.raises(DataError, match="no source says whether there was a split"):
        series.bars(warehouse, "AAPL", "1d", adjusted=True)


def test_across_a_missing_session_adjusting_is_refused(filled):
    """A split may lie there."""
    warehouse = filled(told("2024-07-02", "100"), told("2024-07-05", "25"))
    with warehouse.writing() as connection:
        stored.record_gaps(connection, "AAPL", batch_id=1)
    assert series.bars(warehouse, "AAPL", "1d").height == 2
    with pytest.raises(DataError, match=r"no source has a price of AAPL on 2024-07-03 \(1 gaps\)"):
        series.bars(warehouse, "AAPL", "1d", adjusted=True)
    behind = series.bars(warehouse, "AAPL", "1d", since=ms("2024-07-04"), adjusted=True)
    assert behind["close"].to_list() == [25]


def test_nothing_is_stored(warehouse):
    assert series.bars(warehouse, "MSFT", "1d").is_empty()
    assert series.sentiment(warehouse, "MSFT").is_empty()


def hours(*available):
    rows = [("AAPL", at * HOUR, "s", at, 0, 0, when) for at, when in enumerate(available)]
    return pl.DataFrame(rows, sentiment.HOUR_SCHEMA, orient="row")


def test_sentiment_is_read_as_it_was_known(warehouse):
    with warehouse.writing() as connection:
        stored.write_sentiment(connection, hours(100, 200, 150), batch_id=1)
    found = series.sentiment(warehouse, "AAPL", until=200)
    assert found.select("hour", "available_at").rows() == [(0, 100), (2 * HOUR, 150)]


@given(
    st.lists(st.integers(0, 1000), max_size=8),
    st.lists(st.integers(0, 1000), min_size=1, max_size=8, unique=True),
)
def test_a_bar_never_knows_an_hour_that_came_after_it(available, closes):
    frame = pl.DataFrame({"close_time": sorted(closes)}, {"close_time": pl.Int64})
    joined = sentiment.known(frame, hours(*available))
    for closed, when in joined.select("close_time", "available_at").iter_rows():
        expected = [one for one in available if one <= closed]
        assert when == max(expected, default=None)


def test_an_hour_without_a_message_was_observed_and_a_repeat_counts_once():
    rows = [("AAPL", "7", 10, "Bullish", "s"), ("AAPL", "7", 10, "Bullish", "s")]
    messages = pl.DataFrame(rows, sentiment.MESSAGE_SCHEMA, orient="row")
    found = sentiment.by_hour(
        messages, ticker="AAPL", source="s", since=0, until=2 * HOUR, now=3 * HOUR
    )
    assert found.drop("ticker", "source").rows() == [
        (0, 1, 1, 0, 3 * HOUR),
        (HOUR, 0, 0, 0, 3 * HOUR),
    ]


def test_dates_of_sessions_at_the_ends_of_time(filled):
    warehouse = three(filled)
    assert series.bars(warehouse, "AAPL", "1d", since=ms("2030-01-01")).is_empty()
    with warehouse.reading() as connection:
        assert stored.last_session(connection, "AAPL", "tiingo") is None
        assert stored.decided(connection, "AAPL", first=date(2024, 7, 5)).height == 1
