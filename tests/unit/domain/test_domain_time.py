"""Times and the grid."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentley.domain import intervals
from bentley.domain.clock import iso, parse_time
from bentley.domain.errors import ConfigurationError

MOMENTS = st.integers(min_value=1_000_000_000_000, max_value=4_000_000_000_000)
INTERVALS = st.sampled_from(sorted(intervals.MILLIS))


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("2018-01-01", 1_514_764_800_000),
        ("2018-01-01T00:00:00Z", 1_514_764_800_000),
        ("2018-01-01T01:00:00+01:00", 1_514_764_800_000),
        ("2018-01-01 00:00:00.123999", 1_514_764_800_123),
        ("1514764800", 1_514_764_800_000),
        ("1514764800000", 1_514_764_800_000),
        ("1514764800000999", 1_514_764_800_000),
        ("1735689600000000", 1_735_689_600_000),
        ("946684800", 946_684_800_000),
        ("946684800000", 946_684_800_000),
        ("946684800000999", 946_684_800_000),
        ("1514764800000999999", 1_514_764_800_000),
        ("20180101", 1_514_764_800_000),
        ("1970-01-01", 0),
    ],
)
def test_every_way_to_write_a_time(text, millis):
    assert parse_time(text) == millis


@pytest.mark.parametrize("text", ["", "yesterday", "2018-13-01", "12", "20240131120000"])
def test_what_is_no_time_is_named(text):
    with pytest.raises(ConfigurationError, match=repr(text)):
        parse_time(text)


@given(MOMENTS)
def test_a_time_written_is_read_back(moment):
    assert parse_time(iso(moment)) == moment


@given(MOMENTS, st.integers(min_value=0, max_value=999))
def test_more_digits_are_cut(moment, rest):
    assert parse_time(str(moment * 1000 + rest)) == moment


@given(MOMENTS, INTERVALS)
def test_the_grid_holds_a_time_between_floor_and_ceil(moment, interval):
    step = intervals.millis(interval)
    below, above = intervals.floor(moment, interval), intervals.ceil(moment, interval)
    assert below <= moment <= above
    assert above - below in {0, step}
    assert intervals.floor(above, interval) == above


def test_weeks_open_on_mondays():
    monday = intervals.floor(1_700_000_000_000, "1w")
    assert datetime.fromtimestamp(monday / 1000, tz=UTC).weekday() == 0


@given(MOMENTS, st.integers(min_value=0, max_value=500), INTERVALS)
def test_expected_counts_the_grid(first, bars, interval):
    step = intervals.millis(interval)
    end = first + bars * step + 1
    opens = range(intervals.ceil(first, interval), end, step)
    assert intervals.expected(first, end, interval) == len(opens)


def test_a_month_has_no_fixed_length():
    with pytest.raises(ConfigurationError, match="1M"):
        intervals.millis("1M")
