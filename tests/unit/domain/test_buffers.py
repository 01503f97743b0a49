"""A column's values come out byte for byte, whatever pieces it lies in."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest

from bentley.domain.bars import DECIMAL
from bentley.domain.buffers import values

NUMBERS = [0, 1, -1, 2**63 - 1, -(2**63), 1_700_000_000_000]
AMOUNTS = [Decimal(text) for text in ("0", "0.00000001", "-1.5", "99999999999999999999.12345678")]


def joined(column):
    return b"".join(bytes(piece) for piece in values(column))


def whole(numbers):
    return b"".join(number.to_bytes(8, "little", signed=True) for number in numbers)


def test_whole_numbers_and_decimals():
    assert joined(pl.Series(NUMBERS)) == whole(NUMBERS)
    places = [int(amount.scaleb(8)) for amount in AMOUNTS]
    expected = b"".join(number.to_bytes(16, "little", signed=True) for number in places)
    assert joined(pl.Series(AMOUNTS, dtype=DECIMAL)) == expected


@pytest.mark.parametrize(("start", "length"), [(0, 0), (0, 4), (2, 3), (5, 1), (6, 0)])
def test_a_part_of_a_column(start, length):
    part = pl.Series(NUMBERS).slice(start, length)
    assert joined(part) == whole(NUMBERS[start : start + length])


def test_a_column_of_several_pieces():
    column = pl.concat([pl.Series(NUMBERS[:2]), pl.Series(NUMBERS[2:])], rechunk=False)
    assert column.n_chunks() == 2
    assert joined(column) == whole(NUMBERS)
    first = next(values(column))  # and whoever stops early leaves nothing behind
    del first
    assert joined(column) == whole(NUMBERS)


def test_what_has_no_such_values_is_refused():
    with pytest.raises(TypeError, match="a column of Int32"):
        joined(pl.Series([1], dtype=pl.Int32))
    with pytest.raises(ValueError, match="1 of the 2 values of 'trades' are missing"):
        joined(pl.Series("trades", [1, None]))
