"""Gaps found as bars come, in whatever order they come, are those of the whole series."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentley.domain import intervals
from bentley.warehouse import bars, gaps
from bentley.warehouse.gaps import Gap
from bentley.warehouse.ledger import Range
from unit.stages.chain_support import HOUR, START, bar, frame

NUMBERS = itertools.count()


def put(warehouse, symbol, hours, *, batch=1):
    with warehouse.writing() as connection:
        rows = frame([bar(at, symbol=symbol) for at in sorted(hours)])
        for touched in bars.upsert(connection, rows, batch_id=batch, source="test").ranges:
            gaps.record(connection, touched, batch_id=batch)


def recorded(warehouse, symbol, **limits):
    with warehouse.reading() as connection:
        return gaps.of_series(connection, symbol, "1h", **limits)


def expected(symbol, hours):
    """The gaps of a whole series, from the hours that it has."""
    return [
        Gap(symbol, "1h", START + (a + 1) * HOUR, START + (b - 1) * HOUR, b - a - 1)
        for a, b in itertools.pairwise(sorted(hours))
        if b - a > 1
    ]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sets(st.integers(0, 30), min_size=1, max_size=8), min_size=1, max_size=6))
def test_bar_by_bar_is_as_all_at_once(warehouse, chunks):
    symbol = f"G{next(NUMBERS)}"
    seen = set()
    for batch, hours in enumerate(chunks, 1):
        put(warehouse, symbol, hours, batch=batch)
        seen |= hours
        assert recorded(warehouse, symbol) == expected(symbol, seen)
    whole = f"G{next(NUMBERS)}"
    put(warehouse, whole, seen)
    assert [vars(gap) | {"symbol": ""} for gap in recorded(warehouse, whole)] == [
        vars(gap) | {"symbol": ""} for gap in recorded(warehouse, symbol)
    ]


def test_deriving_again_changes_nothing(warehouse):
    put(warehouse, "BTCUSDT", {0, 1, 5, 9})
    before = recorded(warehouse, "BTCUSDT")
    for first, last in [(0, 9), (1, 5), (5, 5), (0, 0)]:
        with warehouse.writing() as connection:
            touched = Range("BTCUSDT", "1h", START + first * HOUR, START + last * HOUR, 1)
            gaps.record(connection, touched, batch_id=2)
        assert recorded(warehouse, "BTCUSDT") == before
    assert [gap.bars for gap in before] == [3, 3]


def test_series_do_not_touch_each_other(warehouse):
    put(warehouse, "BTCUSDT", {0, 5})
    put(warehouse, "ETHUSDT", {0, 2, 5})
    put(warehouse, "ETHUSDT", {1})
    assert [gap.bars for gap in recorded(warehouse, "BTCUSDT")] == [4]
    assert [gap.bars for gap in recorded(warehouse, "ETHUSDT")] == [2]


def test_a_range_finds_the_gaps_that_reach_into_it(warehouse):
    put(warehouse, "BTCUSDT", {0, 4, 8, 12})

    def between(since, until):
        limits = {"since": START + since * HOUR, "until": START + until * HOUR}
        return [
            (gap.first_open - START) // HOUR for gap in recorded(warehouse, "BTCUSDT", **limits)
        ]

    assert between(0, 13) == [1, 5, 9]
    assert between(3, 6) == [1, 5]
    assert between(4, 5) == []
    assert between(3, 4) == [1]


@pytest.mark.parametrize("interval", ["1w", "3d", "15m"])
def test_each_interval_has_its_own_grid(warehouse, interval):
    step = intervals.millis(interval)
    first = intervals.ceil(START, interval)
    rows = [
        bar(0, interval=interval, open_time=first + at * step, close_time=first + at * step + 1)
        for at in (0, 1, 4)
    ]
    with warehouse.writing() as connection:
        for touched in bars.upsert(connection, frame(rows), batch_id=1, source="t").ranges:
            gaps.record(connection, touched, batch_id=1)
    with warehouse.reading() as connection:
        (gap,) = gaps.of_series(connection, "BTCUSDT", interval)
    assert (gap.first_open, gap.last_open, gap.bars) == (first + 2 * step, first + 3 * step, 2)
