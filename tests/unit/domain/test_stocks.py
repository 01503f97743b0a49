"""Rows of stocks: what passes, what is refused and why, and what has not closed yet."""

from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import pytest

import stock_support
from bentley.domain import sessions, stocks

GOOD = {
    "ticker": "AAPL",
    "session": "2024-01-02",
    "open": "187.15",
    "high": "188.44",
    "low": "183.885",
    "close": "185.64",
    "volume": "82496943",
    "source": "tiingo",
}
LATER = int(datetime(2024, 6, 1, tzinfo=UTC).timestamp() * 1000)


def sift(*rows, now=LATER):
    return stocks.sift(stocks.frame(rows), now=now)


def test_a_good_row_passes_digit_for_digit():
    found = sift(GOOD | {"adj_close": "185.1523912300000012"})
    assert found.rejected.is_empty()
    (row,) = found.prices.to_dicts()
    assert row["low"] == Decimal("183.885")
    assert row["adj_close"] == Decimal("185.1523912300000012")
    assert row["div_cash"] is None


def test_exponents_are_written_out():
    (row,) = sift(GOOD | {"volume": "8.2496943e+07"}).prices.to_dicts()
    assert row["volume"] == 82_496_943


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"close": None}, "close is missing"),
        ({"close": ""}, "close is missing"),
        ({"session": None}, "session is missing"),
        ({"open": "n/a"}, "open n/a is not a decimal number"),
        ({"open": "NaN"}, "open NaN is not a decimal number"),
        ({"open": "1.1234567890123456789"}, "open 1.1234567890123456789 has more digits"),
        ({"volume": "1" + "0" * 20}, "has more digits than the column (20.18)"),
        ({"session": "02/01/2024"}, "session 02/01/2024 is not a date like 2024-01-31"),
        ({"session": "2024-02-30"}, "session 2024-02-30 is not a date"),
        ({"session": "2024-01-06"}, "2024-01-06 is no session of the exchange (XNYS)"),
        ({"session": "2024-01-15"}, "2024-01-15 is no session of the exchange (XNYS)"),
        ({"session": "2024-06-03"}, "session 2024-06-03 has not opened yet"),
        ({"close": "0"}, "close 0 is not above zero"),
        ({"volume": "-1"}, "volume -1 is negative"),
        ({"high": "185"}, "high 185 lies below open, low or close"),
        ({"low": "187.2"}, "low 187.2 lies above open or close"),
        ({"adj_low": "2", "adj_close": "1"}, "adj_low 2 lies above adj_open or close"),
        ({"split_factor": "0"}, "split_factor 0 is not above zero"),
        ({"div_cash": "-0.1"}, "div_cash -0.1 is negative"),
        ({"ticker": "A" * 33}, "is longer than 32"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason(change, reason):
    found = sift(GOOD | change, GOOD | {"session": "2024-01-03"})
    assert found.prices["session"].to_list() == [date(2024, 1, 3)]
    (said,) = found.rejected["reason"]
    assert reason in said
    assert found.rejected.drop("reason").to_dicts()[0] == dict.fromkeys(stocks.FIELDS) | (
        GOOD | change
    )


def test_an_equal_repeat_is_dropped_and_an_earlier_version_refused():
    found = sift(GOOD, GOOD, GOOD | {"close": "186"})
    assert [row["close"] for row in found.prices.to_dicts()] == [186]
    assert found.rejected["reason"].unique().to_list() == [
        "an earlier version of a key that was repeated"
    ]


@pytest.mark.parametrize("hour", [17, 21, 23])
def test_a_session_that_has_not_closed_and_settled_is_forming(hour):
    moment = int(datetime(2024, 1, 3, hour, tzinfo=UTC).timestamp() * 1000)
    found = sift(GOOD, GOOD | {"session": "2024-01-03"}, now=moment)
    assert found.prices["session"].to_list() == [date(2024, 1, 2)]
    assert found.forming["session"].to_list() == ["2024-01-03"]


def test_an_early_close_ends_a_session_early():
    """On 2024-07-03 the exchange closed at 13:00 in New York, 17:00 UTC."""
    settled = 1_720_026_000_000 + sessions.SETTLES_MS
    row = sift(GOOD | {"session": "2024-07-03"}, now=settled)
    assert row.prices.height == 1
    assert sift(GOOD | {"session": "2024-07-03"}, now=settled - 1).forming.height == 1


def test_an_adjusted_cell_that_does_not_fit_leaves_the_raw_prices():
    long = "0.0039059999398887157"
    found = sift(GOOD | {"adj_close": long, "adj_open": "1.5"})
    (row,) = found.prices.to_dicts()
    assert (row["adj_close"], row["adj_open"], row["close"]) == (None, 1.5, Decimal("185.64"))
    assert found.rejected["reason"].to_list() == [f"adj_close {long} does not fit the column"]


def test_all_recorded_rows_lie_on_sessions_and_none_is_missing(recorded):
    for ticker in ("aapl", "spy", "ibm", "bac"):
        days = [day for day, *_ in stock_support.raw(recorded, ticker)]
        assert sessions.between(days[0], days[-1])["session"].to_list() == days


def test_events_are_what_differs_from_an_ordinary_day():
    found = stocks.actions(
        sift(
            GOOD | {"div_cash": "0.24", "split_factor": "1"},
            GOOD | {"session": "2024-01-03", "div_cash": "0", "split_factor": "4"},
        ).prices
    )
    assert found.select("session", "kind", pl.col("value").cast(pl.Float64)).rows() == [
        (date(2024, 1, 2), "dividend", 0.24),
        (date(2024, 1, 3), "split", 4.0),
    ]


def test_the_latest_session_and_those_before_it():
    settled = int(datetime(2024, 1, 3, 0, tzinfo=UTC).timestamp() * 1000)
    assert sessions.latest(settled) == date(2024, 1, 2)
    assert sessions.latest(settled - 1) == date(2023, 12, 29)
    assert sessions.before(date(2024, 1, 2), 1) == date(2023, 12, 29)
    assert sessions.before(date(2024, 1, 2), 5) == date(2023, 12, 22)
    assert sessions.day_of(sessions.start_of(date(2024, 1, 2))) == date(2024, 1, 2)


@pytest.mark.parametrize(
    ("now", "days"),
    [
        ("2024-03-08T23:00", []),
        ("2024-03-11T03:59", []),
        ("2024-03-11T04:00", [11]),  # the clocks were set forward the day before
        ("2024-03-12T12:00", [11, 12]),
    ],
)
def test_a_session_has_begun_at_its_midnight_in_new_york(now, days):
    moment = int(datetime.fromisoformat(now).replace(tzinfo=UTC).timestamp() * 1000)
    assert sessions.begun(date(2024, 3, 8), moment) == [date(2024, 3, day) for day in days]


def test_no_session_lies_between_days_in_the_wrong_order():
    assert sessions.between(date(2024, 1, 3), date(2024, 1, 2)).is_empty()
