"""Which rows are bars, which are not and why, and what a checksum tells apart."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentley.domain.bars import FIELDS, RAW_SCHEMA, checksum, sift

OPEN = 1_514_764_800_000
HOUR = 3_600_000
NOW = OPEN + 100 * HOUR


def row(**changed: str | None) -> dict[str, str | None]:
    return {
        "symbol": "BTCUSDT",
        "interval": "1h",
        "open_time": str(OPEN),
        "open": "10.00000000",
        "high": "12.00000000",
        "low": "9.00000000",
        "close": "11.00000000",
        "volume": "5.00000000",
        "close_time": str(OPEN + HOUR - 1),
        "quote_volume": "55.00000000",
        "trades": "3",
        "taker_buy_base_volume": "2.00000000",
        "taker_buy_quote_volume": "22.00000000",
    } | changed


def raw(*rows: dict[str, str | None]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=RAW_SCHEMA)


def test_a_sound_row_passes_as_it_is():
    bars, rejected = sift(raw(row()), now=NOW)
    assert rejected.height == 0
    assert bars.select(FIELDS).row(0)[3] == Decimal("10.00000000")
    assert bars["is_closed"].to_list() == [True]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"high": "8"}, "high 8.00000000 lies below"),
        ({"low": "11.5"}, "low 11.50000000 lies above"),
        ({"volume": "-1"}, "volume -1.00000000 is negative"),
        ({"close": "eleven"}, "close eleven is not a decimal number"),
        ({"close": "1e1"}, "close 1e1 is not a decimal number"),
        ({"close": "NaN"}, "close NaN is not a decimal number"),
        ({"close": "11.123456789"}, "close 11.123456789 has more digits"),
        ({"volume": "1" + "0" * 20}, "has more digits than the column"),
        ({"open": "0"}, "open 0.00000000 is not above zero"),
        ({"open_time": str(OPEN + 1)}, "is off the 1h grid"),
        ({"open_time": "soon"}, "open_time soon is not a whole number"),
        ({"trades": "-3"}, "trades -3 is not a whole number"),
        ({"close_time": str(OPEN + HOUR)}, "lies outside the bar"),
        ({"close_time": str(OPEN - 1)}, "lies outside the bar"),
        ({"interval": "7h"}, "interval 7h is not known"),
        ({"quote_volume": None}, "quote_volume is missing"),
        ({"symbol": ""}, "symbol is missing"),
        ({"taker_buy_base_volume": "6"}, "exceeds volume"),
        ({"trades": "9" * 19}, "trades 9999999999999999999 is not a whole number"),
        ({"close": "\u0661\u0661"}, "is not a decimal number"),
        ({"open_time": "\u0661" * 13}, "is not a whole number"),
        ({"open_time": f"{OPEN}00"}, "is not a whole number of milli-, micro- or nanoseconds"),
        ({"symbol": "B" * 33}, "is longer than 32"),
    ],
)
def test_a_bad_row_is_rejected_as_it_came_with_its_reason(changed, reason):
    later = row(open_time=str(OPEN + HOUR), close_time=str(OPEN + 2 * HOUR - 1))
    bars, rejected = sift(raw(later, row(**changed)), now=NOW)
    assert bars["open_time"].to_list() == [OPEN + HOUR]
    assert reason in rejected["reason"][0]
    for name, value in changed.items():
        assert rejected[name][0] == value


def test_trailing_zeros_are_no_digits():
    bars, rejected = sift(raw(row(close="0011.1234567800000")), now=NOW)
    assert rejected.height == 0
    assert bars["close"][0] == Decimal("11.12345678")


def test_microseconds_are_cut():
    long = row(open_time=f"{OPEN}000", close_time=f"{OPEN + HOUR - 1}999")
    bars, _ = sift(raw(long), now=NOW)
    assert (bars["open_time"][0], bars["close_time"][0]) == (OPEN, OPEN + HOUR - 1)


def test_an_equal_repeat_is_dropped_and_a_different_one_rejected():
    bars, rejected = sift(raw(row(), row(), row(close="10.5")), now=NOW)
    assert bars["close"].to_list() == [Decimal("10.50000000")]
    assert rejected["close"].to_list() == ["11.00000000"] * 2
    bars, rejected = sift(raw(row(), row()), now=NOW)
    assert (bars.height, rejected.height) == (1, 0)


@given(st.integers(min_value=OPEN - HOUR, max_value=OPEN + 2 * HOUR))
def test_a_bar_is_closed_only_once_its_close_time_has_passed(now):
    bars, _ = sift(raw(row()), now=now)
    assert bars["is_closed"][0] == (now > OPEN + HOUR - 1)


DECIMALS = st.decimals(min_value=0, max_value=Decimal(10) ** 19, places=8).map(lambda d: f"{d:f}")


@given(DECIMALS)
def test_no_digit_is_lost(text):
    bars, rejected = sift(raw(row(quote_volume=text)), now=NOW)
    assert rejected.height == 0
    assert bars["quote_volume"][0] == Decimal(text)


def test_nothing_is_lost_between_bars_and_rejects():
    rows = [
        row(open_time=str(OPEN + i * HOUR), close="x" if i % 3 == 0 else "11") for i in range(9)
    ]
    fixed = [r | {"close_time": str(int(r["open_time"] or 0) + HOUR - 1)} for r in rows]
    bars, rejected = sift(raw(*fixed), now=NOW)
    assert (bars.height, rejected.height) == (6, 3)


CELLS = st.one_of(st.none(), st.text(), st.from_regex(r"-?\d{0,25}(\.\d{0,12})?", fullmatch=True))


@given(st.sampled_from(FIELDS), CELLS)
def test_whatever_stands_in_a_cell_the_row_is_a_bar_or_a_reject(name, text):
    bars, rejected = sift(raw(row(**{name: text})), now=NOW)
    assert bars.height + rejected.height == 1
    if rejected.height:
        assert rejected[name][0] == text
        assert rejected["reason"][0]


def test_the_checksum_sees_every_digit_and_no_chunking():
    first, _ = sift(
        raw(row(), row(open_time=str(OPEN + HOUR), close_time=str(OPEN + 2 * HOUR - 1))), now=NOW
    )
    second, _ = sift(raw(row(close="11.00000001")), now=NOW)
    assert checksum([first]) == checksum([first[:1], first[1:]])
    assert checksum([first[:1]]) != checksum([second])
    assert checksum([first[:1]]) != checksum([first])
