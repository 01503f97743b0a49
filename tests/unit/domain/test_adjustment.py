"""Adjusted prices against factor files, by arithmetic, and against what breaks them."""

from datetime import date, timedelta

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
    assert adjustment.mismatches(prices).is_empty()


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
        for when, (close, adj, dividend, split) in zip(dates, days, strict=True)
    )
    return stocks.sift(raw, now=NOW).prices


def test_an_adjusted_history_that_missed_a_split_is_found():
    right = told(("100", "50", "0", "1"), ("50", "50", "0", "2"), ("51", "51", "0", "1"))
    assert adjustment.mismatches(right).is_empty()
    stale = told(("100", "100", "0", "1"), ("50", "50", "0", "2"), ("51", "51", "0", "1"))
    found = adjustment.mismatches(stale)
    assert found.row(0) == (date(2024, 1, 3), 2.0, 1.0)
    assert found.height == 1


@pytest.mark.parametrize("adjusted_before", ["99", "98.97959183673469"])
def test_either_method_of_adjusting_for_a_dividend_holds(adjusted_before):
    """1 - 1/100 of the close before, or 97/98 of the day's own."""
    assert adjustment.mismatches(
        told(("100", adjusted_before, "0", "1"), ("97", "97", "1", "1"), ("97", "97", "0", "1"))
    ).is_empty()
