"""Which source a session's price is taken from, and how far the others lie."""

import json
from datetime import date

import pytest

from bentley.domain import consensus, stocks

NOW = 1_800_000_000_000
ORDER = ("tiingo", "polygon", "yahoo")


def told(source, close="100", *, session="2024-01-02", dividend=None, split=None, low=None):
    return {
        "ticker": "AAPL",
        "session": session,
        "open": close,
        "high": close,
        "low": low or close,
        "close": close,
        "volume": "1000",
        "div_cash": dividend,
        "split_factor": split,
        "source": source,
    }


def decide(*rows, order=ORDER, bound=50.0):
    sifted = stocks.sift(stocks.frame(rows), now=NOW)
    assert sifted.rejected.is_empty()
    return consensus.decide(sifted.prices, order=order, bound_bps=bound).to_dicts()


def test_the_most_preferred_source_is_taken_with_the_distance_of_the_others():
    (one,) = decide(told("yahoo", "100.2"), told("tiingo", "100"))
    assert (one["source"], one["sources"], one["close"]) == ("tiingo", 2, 100)
    assert one["deviation_bps"] == pytest.approx(20)
    assert json.loads(one["deviations"]) == {"yahoo": pytest.approx(20)}
    assert one["quality_flag"] == consensus.OK


def test_the_distance_is_of_the_worst_of_the_four_prices():
    (one,) = decide(told("yahoo", "100", low="99"), told("tiingo", "100"))
    assert one["deviation_bps"] == pytest.approx(100)
    assert one["quality_flag"] == consensus.PRICES_DIFFER


def test_two_that_disagree_are_flagged_and_the_preferred_stays():
    (one,) = decide(told("yahoo", "102"), told("tiingo", "100"))
    assert (one["source"], one["quality_flag"]) == ("tiingo", consensus.PRICES_DIFFER)


def test_of_three_the_odd_one_out_is_passed_over_and_still_flagged():
    (one,) = decide(told("tiingo", "110"), told("polygon", "100"), told("yahoo", "100.1"))
    assert (one["source"], one["quality_flag"]) == ("polygon", consensus.PRICES_DIFFER)
    assert json.loads(one["deviations"])["tiingo"] == pytest.approx(1000)


def test_events_of_one_that_is_passed_over_are_not_believed():
    (one,) = decide(
        told("tiingo", "400", split="1"),
        told("polygon", "100", split="4"),
        told("yahoo", "100", split="4"),
    )
    assert (one["source"], one["split_factor"]) == ("polygon", 4)
    assert one["quality_flag"] == consensus.SPLITS_DIFFER


def test_a_single_source_says_so():
    (one,) = decide(told("yahoo"))
    assert (one["sources"], one["quality_flag"], one["deviations"]) == (1, "single_source", "{}")
    assert one["deviation_bps"] is None


def test_each_session_is_decided_on_its_own():
    first, second = decide(told("tiingo"), told("yahoo", session="2024-01-03"))
    assert [first["source"], second["source"]] == ["tiingo", "yahoo"]
    assert [first["session"], second["session"]] == [date(2024, 1, 2), date(2024, 1, 3)]


def test_events_come_from_the_first_who_speaks_of_them():
    (one,) = decide(told("tiingo"), told("yahoo", dividend="0.5", split="2"))
    assert (one["source"], one["div_cash"], one["split_factor"]) == ("tiingo", 0.5, 2)
    (one,) = decide(told("tiingo"), told("yahoo"))
    assert (one["div_cash"], one["split_factor"]) == (None, None)


def test_splits_and_dividends_that_differ_are_flagged():
    split = decide(told("tiingo", split="4"), told("yahoo", split="1"))
    assert split[0]["quality_flag"] == consensus.SPLITS_DIFFER
    paid = decide(told("tiingo", dividend="0.2"), told("yahoo", dividend="0"))
    assert paid[0]["quality_flag"] == consensus.DIVIDENDS_DIFFER
    rounded = decide(told("tiingo", dividend="0.205"), told("yahoo", dividend="0.20499"))
    assert rounded[0]["quality_flag"] == consensus.OK


def test_a_source_that_nobody_ranked_comes_last():
    (one,) = decide(told("mine", "1"), told("yahoo", "1"))
    assert one["source"] == "yahoo"


def test_equal_input_in_another_order_gives_the_same():
    rows = [told(name, price) for name, price in zip(ORDER, ("99", "100", "101"), strict=True)]
    assert decide(*rows) == decide(*reversed(rows))
