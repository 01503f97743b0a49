"""Adjusted prices against factor files, by arithmetic, and against what breaks them."""

from datetime import date, timedelta
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stock_support
from bentley.domain import adjustment, stocks
from bentley.domain.errors import DataError

NOW = 1_800_000_000_000


def rows(*days):
    """Rows of a ticker from 2024-01-02 on: (close, dividend, split) each."""
    return pl.DataFrame(
        [
            {
                "session": date(2024, 1, 2) + timedelta(days=at),
                "open": close,
                "high": close,
                "low": close,
                "close": close,
                "volume": 100.0,
                "div_cash": dividend,
                "split_factor": split,
            }
            for at, (close, dividend, split) in enumerate(days)
        ]
    )


@pytest.mark.parametrize("ticker", ["aapl", "spy"])
def test_the_whole_history_equals_the_factor_files(recorded, ticker):
    told = stock_support.frame(stock_support.history(recorded, ticker), "tiingo")
    prices = stocks.sift(told, now=NOW).prices
    assert prices.height == 5_849
    ours = adjustment.factors(prices)
    known = stock_support.factors(recorded, ticker)
    theirs = [next(one for one in known if one.day >= day) for day in prices["session"]]
    price = np.array([float(one.price) for one in theirs])
    split = np.array([float(one.split) for one in theirs])
    assert np.abs(ours["price_factor"].to_numpy() - price).max() < 1e-6
    assert np.abs(ours["split_factor"].to_numpy() - split).max() < 1e-6
    # The file's splits have eight decimals: 0.01785710 for 1/56 is off by 2.4e-6 of itself.
    apart = adjustment.adjusted(prices)["close"] / prices["adj_close"].cast(pl.Float64) - 1
    assert apart.abs().max() < 2.5e-6
    assert adjustment.mismatches(prices, newest=True).is_empty()


@pytest.mark.parametrize("ticker", ["aapl", "spy", "ibm", "bac"])
def test_recorded_histories_tie_but_for_what_another_share_paid(recorded, ticker):
    """Until it was renamed, the file of BAC has dividends and closes of two banks."""
    told = stock_support.frame(stock_support.history(recorded, ticker), "tiingo")
    prices = stocks.sift(told, now=NOW).prices
    closes = {day: close for day, (*_, close), _ in stock_support.raw(recorded, ticker)}
    strange = [
        one.day
        for one in stock_support.factors(recorded, ticker)[1:]
        if one.reference and one.reference != closes[one.day]
    ]
    found = adjustment.mismatches(prices, newest=True)
    assert found["session"].to_list() == [
        prices["session"].filter(prices["session"] > day)[0] for day in strange
    ]
    assert len(strange) == (3 if ticker == "bac" else 0)
    assert set(found["column"]) <= {"adj_close"}


def test_the_splits_of_apple(recorded):
    told = stock_support.frame(stock_support.history(recorded, "aapl"), "tiingo")
    events = stocks.actions(stocks.sift(told, now=NOW).prices)
    splits = events.filter(kind="split")
    assert dict(zip(splits["session"], splits["value"].cast(pl.Int64), strict=True)) == {
        date(2000, 6, 21): 2,
        date(2005, 2, 28): 2,
        date(2014, 6, 9): 7,
        date(2020, 8, 31): 4,
    }


def test_a_split_and_a_dividend_by_hand():
    given_rows = rows((100.0, 0.0, 1.0), (50.0, 0.0, 2.0), (49.0, 1.0, 1.0))
    found = adjustment.factors(given_rows)
    assert found["split_factor"].to_list() == [0.5, 1.0, 1.0]
    assert found["price_factor"].to_list() == pytest.approx([0.98, 0.98, 1.0])
    by_own = adjustment.factors(given_rows, method="ex_close")
    assert by_own["price_factor"].to_list() == pytest.approx([0.98, 0.98, 1.0])
    done = adjustment.adjusted(given_rows)
    assert done["close"].to_list() == pytest.approx([49.0, 49.0, 49.0])
    assert done["volume"].to_list() == pytest.approx([200.0, 100.0, 100.0])


def test_a_dividend_on_the_day_of_a_split_is_set_against_the_new_shares():
    found = adjustment.factors(rows((100.0, 0.0, 1.0), (49.0, 1.0, 2.0)))
    assert found["price_factor"].to_list() == pytest.approx([1 - 1 / 50, 1.0])


day = st.tuples(
    st.floats(10, 500),
    st.sampled_from([0.0, 0.0, 0.25, 2.0]),
    st.sampled_from([1.0, 1.0, 2.0, 0.5]),
)


@given(st.lists(day, min_size=2, max_size=30), st.data())
def test_what_comes_after_a_session_never_changes_the_returns_before_it(days, data):
    cut = data.draw(st.integers(2, len(days)))
    whole = adjustment.adjusted(rows(*days))["close"].to_numpy()
    known_then = adjustment.adjusted(rows(*days[:cut]))["close"].to_numpy()
    assert np.allclose(np.diff(np.log(whole[:cut])), np.diff(np.log(known_then)), atol=1e-9)


def test_a_session_of_which_nobody_knows_the_events_is_refused():
    silent = rows((100.0, 0.0, 1.0), (50.0, None, 2.0))
    with pytest.raises(DataError, match=r"on 2024-01-03 \(1 sessions of 2\).*raw prices"):
        adjustment.factors(silent)


def test_a_dividend_above_the_price_is_refused():
    with pytest.raises(DataError, match=r"dividend 120.0 of 2024-01-03.*100"):
        adjustment.factors(rows((100.0, 0.0, 1.0), (90.0, 120.0, 1.0)))


def told(*days):
    """Rows in PRICE_SCHEMA: (close, adjusted close, dividend, split) each."""
    names = ("open", "high", "low", "close")
    dates = ("2024-01-02", "2024-01-03", "2024-01-04")
    raw = stocks.frame(
        {
            "ticker": "A",
            "session": when,
            **dict.fromkeys(names, close),
            **dict.fromkeys((f"adj_{name}" for name in names), adj),
            "volume": "1",
            "div_cash": dividend,
            "split_factor": split,
            "source": "tiingo",
        }
        for when, (close, adj, dividend, split) in zip(dates[: len(days)], days, strict=True)
    )
    return stocks.sift(raw, now=NOW).prices


def test_an_adjusted_history_that_missed_a_split_is_found():
    right = told(("100", "50", "0", "1"), ("50", "50", "0", "2"), ("51", "51", "0", "1"))
    assert adjustment.mismatches(right).is_empty()
    stale = told(("100", "100", "0", "1"), ("50", "50", "0", "2"), ("51", "51", "0", "1"))
    found = adjustment.mismatches(stale)
    assert found.row(0) == (date(2024, 1, 3), "adj_close", "the events make", 2.0, 1.0)
    assert found.height == 1


def test_an_event_whose_adjusted_close_is_not_told_counts_for_the_next_that_is():
    for before, mismatches in (("50", []), ("100", [(date(2024, 1, 4), 2.0, 1.0)])):
        days = told(("100", before, "0", "1"), ("50", "50", "0", "2"), ("51", "51", "0", "1"))
        found = adjustment.mismatches(changed(days, "2024-01-03", adj_close=None))
        assert found.select("session", "expected", "found").rows() == mismatches


def test_closes_that_were_rounded_to_four_places_tie():
    """1 - 0.0083/0.8301 is 0.990001."""
    last = ("0.82", "0.82", "0.0083", "1")
    right = told(("0.8215", "0.8133", "0", "1"), ("0.8301", "0.8218", "0", "1"), last)
    assert adjustment.mismatches(right).is_empty()
    missed = told(("0.8215", "0.8215", "0", "1"), ("0.8301", "0.8301", "0", "1"), last)
    assert adjustment.mismatches(missed)["session"].to_list() == [date(2024, 1, 4)]


@pytest.mark.parametrize("adjusted_before", ["99", "98.97959183673469"])
def test_either_method_of_adjusting_for_a_dividend_holds(adjusted_before):
    """1 - 1/100 of the close before, or 97/98 of the day's own."""
    assert adjustment.mismatches(
        told(("100", adjusted_before, "0", "1"), ("97", "97", "1", "1"), ("97", "97", "0", "1"))
    ).is_empty()


DIVIDEND = (("100", "99", "0", "1"), ("99", "99", "1", "1"), ("98", "98", "0", "1"))


def changed(prices, session, **cells):
    """One row's cells replaced."""
    return prices.with_columns(
        pl.when(session=date.fromisoformat(session))
        .then(pl.lit(cell, pl.Decimal(38, 18)))
        .otherwise(name)
        .alias(name)
        for name, cell in ((name, cell and Decimal(cell)) for name, cell in cells.items())
    )


@pytest.mark.parametrize("column", ["adj_open", "adj_high", "adj_low"])
@pytest.mark.parametrize("cell", ["100", "99.002", "98.998"])
def test_a_price_that_was_adjusted_otherwise_than_its_close_is_found(column, cell):
    right = told(*DIVIDEND)
    assert adjustment.mismatches(right).is_empty()
    found = adjustment.mismatches(changed(right, "2024-01-02", **{column: cell}))
    assert found.select("session", "column", "by", "expected").rows() == [
        (date(2024, 1, 2), column, "the close makes", 0.99)
    ]
    assert found["found"][0] == pytest.approx(float(cell) / 100)


def test_an_adjusted_price_that_a_source_does_not_tell_is_not_tied():
    bare = changed(told(*DIVIDEND), "2024-01-02", adj_open=None, adj_high=None)
    assert adjustment.mismatches(bare).is_empty()


places = st.decimals("0.01", "2000", places=4)


@given(st.tuples(places, places, places, places), st.floats(0.002, 50))
def test_what_rounding_to_four_places_takes_is_no_mismatch(prices, factor):
    cells = dict(zip(("open", "high", "low", "close"), prices, strict=True))
    adjusted = {f"adj_{name}": round(cell * Decimal(factor), 4) for name, cell in cells.items()}
    if min(adjusted.values()) > Decimal("0.001"):
        assert adjustment.mismatches(
            changed(told(DIVIDEND[2]), "2024-01-02", **cells, **adjusted)
        ).is_empty()


def traded(*days):
    """Rows in PRICE_SCHEMA whose prices tie: (volume, adjusted, split) each."""
    adjusted = [Decimal(100)]
    for _, _, split in reversed(days[1:]):
        adjusted.insert(0, adjusted[0] / Decimal(split))
    prices = told(
        *(("100", f"{adj:f}", "0", split) for adj, (*_, split) in zip(adjusted, days, strict=True))
    )
    for session, (volume, told_of_it, _) in zip(prices["session"], days, strict=True):
        cells = {"volume": volume, "adj_volume": told_of_it}
        prices = changed(prices, session.isoformat(), **cells)
    return prices


@pytest.mark.parametrize(
    "days",
    [
        [("1000", "2000", "1"), ("1000", "1000", "2")],
        [("1000", "8000", "1"), ("1000", "4000", "2")],  # a split of 4 came behind the last row
        [("1000", "2000", "1"), ("0", "0", "2"), ("1000", "1000", "1")],
        [("1000", "2000", "1"), ("1000", None, "2"), ("1000", "1000", "1")],
        [("1005", "100", "1"), ("7", "7", "0.1"), ("3", "3", "1")],
        [("1005", "101", "1"), ("7000", "7000", "0.1")],
        [("4", "0", "1"), ("7000", "7000", "0.1")],
        [("1000", None, "1"), ("1000", None, "2")],
    ],
)
def test_volumes_that_follow_from_the_splits(days):
    assert adjustment.mismatches(traded(*days)).is_empty()


@pytest.mark.parametrize(
    ("days", "expected", "found"),
    [
        ([("1000000", "1000000", "1"), ("1000000", "1000000", "2")], 2.0, 1.0),
        # By a dividend, as no volume is.
        ([("1000000", "1010101", "1"), ("1000000", "1000000", "1")], 1.0, 1.010101),
        ([("1000", "1000", "1"), ("0", "0", "2"), ("1000", "1000", "1")], 2.0, 1.0),
    ],
)
def test_a_volume_that_was_adjusted_by_anything_else_is_found(days, expected, found):
    (row,) = adjustment.mismatches(traded(*days)).rows(named=True)
    assert (row["column"], row["by"]) == ("adj_volume", "the splits make")
    assert row["session"] == date(2024, 1, 1) + timedelta(days=len(days))
    assert row["expected"] == expected
    assert row["found"] == pytest.approx(found)


def test_the_level_is_tied_where_nothing_can_have_followed():
    stale = told(("100", "99", "0", "1"), ("100", "99", "0", "1"))
    assert adjustment.mismatches(stale).is_empty()
    found = adjustment.mismatches(stale, newest=True)
    assert found.rows() == [
        (date(2024, 1, 3), "adj_close", "that nothing follows makes", 1.0, 0.99)
    ]
    assert adjustment.mismatches(told(*DIVIDEND), newest=True).is_empty()
    untold = changed(stale, "2024-01-03", adj_close=None)
    assert adjustment.mismatches(untold, newest=True).is_empty()
