"""Stocks in and out of their tables, on each database."""

from datetime import date
from decimal import Decimal

import polars as pl
import pytest
import sqlalchemy as sa

import stock_support
from bentley.domain import consensus, sessions, stocks
from bentley.domain.errors import FatalError
from bentley.warehouse import bulk, ledger
from bentley.warehouse import stocks as stored
from bentley.warehouse.schema import stock_actions, stock_gaps, stock_prices

NOW = 1_800_000_000_000


def told(session="2024-01-02", close="185.64", source="tiingo", **more):
    return {
        "ticker": "AAPL",
        "session": session,
        **dict.fromkeys(("open", "high", "low", "close"), close),
        "volume": "82496943",
        "source": source,
        **more,
    }


def sifted(*rows):
    return stocks.sift(stocks.frame(rows), now=NOW).prices


def write(warehouse, *rows, batch_id=1):
    with warehouse.writing() as connection:
        return stored.upsert(connection, sifted(*rows), batch_id=batch_id)


def test_every_digit_comes_back(warehouse):
    row = told(adj_close="49.000000000000000001", close="0.000000000000000001")
    write(warehouse, row)
    with warehouse.reading() as connection:
        assert stored.prices(connection, "AAPL").equals(sifted(row))
        found = connection.execute(sa.select(stock_prices.c.adj_close)).scalar_one()
    assert found == Decimal("49.000000000000000001")


def test_a_whole_history_by_bulk_comes_back(warehouse, recorded):
    rows = stock_support.frame(stock_support.history(recorded, "aapl"), "tiingo")
    prices = stocks.sift(rows, now=NOW).prices
    with warehouse.writing() as connection:
        (span,) = stored.upsert(connection, prices, batch_id=7)
    assert (span.symbol, span.interval, span.rows) == ("AAPL", "1d", 5_849)
    with warehouse.reading() as connection:
        assert stored.prices(connection, "AAPL").equals(prices)
        rows, checksum, last = stored.count_batch(connection, 7, [span])
    assert (rows, last) == (5_849, sessions.start_of(date(2021, 3, 31)))
    assert len(checksum) == 64


def test_only_what_differs_is_written(warehouse):
    write(warehouse, told(), told("2024-01-03"))
    assert write(warehouse, told(), told("2024-01-03"), batch_id=2) == []
    (span,) = write(warehouse, told(), told("2024-01-03", close="186"), batch_id=3)
    assert (span.rows, span.first_open) == (1, sessions.start_of(date(2024, 1, 3)))
    with warehouse.reading() as connection:
        found = connection.execute(
            sa.select(stock_prices.c.session, stock_prices.c.batch_id).order_by("session")
        ).all()
    assert [tuple(row) for row in found] == [(date(2024, 1, 2), 1), (date(2024, 1, 3), 3)]


def test_sources_lie_side_by_side(warehouse):
    write(warehouse, told())
    write(warehouse, told(source="yahoo", close="185.6"))
    with warehouse.reading() as connection:
        assert stored.prices(connection, "AAPL")["source"].to_list() == ["tiingo", "yahoo"]
        assert stored.prices(connection, "AAPL", source="yahoo").height == 1
        assert stored.last_session(connection, "AAPL", "yahoo") == date(2024, 1, 2)
        assert stored.last_session(connection, "MSFT", "yahoo") is None


def test_events_follow_their_rows(warehouse):
    def events():
        c = stock_actions.c
        with warehouse.reading() as connection:
            rows = connection.execute(sa.select(c.session, c.kind, c.value).order_by(c.kind))
            return [tuple(row) for row in rows]

    write(warehouse, told(div_cash="0.24", split_factor="4"), told("2024-01-03", div_cash="0"))
    day = date(2024, 1, 2)
    assert events() == [(day, "dividend", Decimal("0.24")), (day, "split", Decimal(4))]
    write(warehouse, told(div_cash="0.25", split_factor="1"), batch_id=2)
    assert events() == [(day, "dividend", Decimal("0.25"))]


def test_the_consensus_is_written_where_it_differs(warehouse):
    prices = sifted(told(), told(source="yahoo", close="185.6"), told("2024-01-03"))
    fresh = consensus.decide(prices, order=("tiingo", "yahoo"), bound_bps=50)
    with warehouse.writing() as connection:
        (span,) = stored.settle(connection, fresh, batch_id=4)
        assert span.rows == 2
        assert stored.settle(connection, fresh, batch_id=5) == []
    with warehouse.reading() as connection:
        assert stored.decided(connection, "AAPL").equals(fresh)


def test_missing_sessions_are_recorded_and_forgotten_once_they_came(warehouse):
    def settle(*days):
        fresh = consensus.decide(sifted(*map(told, days)), order=("tiingo",), bound_bps=50)
        with warehouse.writing() as connection:
            stored.settle(connection, fresh, batch_id=1)
            return stored.record_gaps(connection, "AAPL", batch_id=1)

    # 2024-01-06 and 07 are a weekend, the 15th is a holiday.
    assert settle("2024-01-02", "2024-01-05", "2024-01-08", "2024-01-12", "2024-01-17") == 6
    with warehouse.reading() as connection:
        assert stored.recorded_gaps(connection, "AAPL") == [
            (date(2024, 1, 3), date(2024, 1, 4), 2),
            (date(2024, 1, 9), date(2024, 1, 11), 3),
            (date(2024, 1, 16), date(2024, 1, 16), 1),
        ]
    assert settle("2024-01-03", "2024-01-04", "2024-01-09", "2024-01-10", "2024-01-11") == 1
    with warehouse.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(stock_gaps)) == 1


def test_sentiment_is_replaced_by_the_hour(warehouse):
    hours = pl.DataFrame(
        {
            "ticker": ["AAPL"],
            "hour": [3_600_000],
            "source": ["stocktwits"],
            "messages": [10],
            "bullish": [4],
            "bearish": [1],
            "available_at": [7_300_000],
        }
    )
    for count in (10, 12):
        with warehouse.writing() as connection:
            counted = hours.with_columns(messages=pl.lit(count, pl.Int64))
            stored.write_sentiment(connection, counted, batch_id=1)
    with warehouse.reading() as connection:
        assert stored.sentiment(connection, "AAPL").rows() == [
            ("AAPL", 3_600_000, "stocktwits", 12, 4, 1, 7_300_000)
        ]


def test_a_batch_of_stocks_waits_for_the_consensus(warehouse):
    with warehouse.writing() as connection:
        batch = ledger.begin(connection, ledger.STOCKS, engine="tiingo")
        ledger.add(connection, batch, read=1, written=1, news=1)
        ledger.close(connection, batch, checksum=None)
    with warehouse.reading() as connection:
        (waiting,) = ledger.unconsumed(connection, ledger.CONSENSUS)
    assert (waiting.id, waiting.engine) == (batch, "tiingo")


@pytest.mark.parametrize("wrong", [pl.Decimal(28, 8), pl.Decimal(38, 10)])
def test_decimals_of_another_size_are_not_stored(warehouse, wrong):
    rows = sifted(told()).with_columns(
        pl.col("close").cast(wrong),
        batch_id=pl.lit(1, pl.Int64),
        updated_at=pl.lit(1, pl.Int64),
    )
    with pytest.raises(FatalError, match="nothing is stored"), warehouse.writing() as connection:
        bulk.write(connection, stock_prices, rows)
