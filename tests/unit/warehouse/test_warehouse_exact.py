"""Decimals in and out of both databases, digit for digit."""

import itertools
from decimal import Decimal

import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentley.domain.bars import BAR_SCHEMA, DECIMAL, DECIMALS
from bentley.domain.errors import DataError, FatalError
from bentley.warehouse import bars, bulk, frames
from bentley.warehouse.ledger import Range
from bentley.warehouse.schema import Exact, binance_ohlcv, exact_text
from unit.stages.chain_support import HOUR, START, bar, frame

LARGEST = "99999999999999999999.99999999"
SAMPLES = (
    LARGEST,
    "-" + LARGEST,
    "0.00000001",
    "0.00000000",
    "18251592538769.00000000",
    "230976895658.80542100",
    "584239876543210.12345678",
    "0.10000000",
    "9007199254740993.00000001",
)
NUMBERS = itertools.count()

decimals = st.one_of(
    st.sampled_from(SAMPLES),
    st.integers(-(10**28) + 1, 10**28 - 1).map(lambda n: f"{Decimal(n).scaleb(-8):f}"),
    st.integers(0, 10**12).map(lambda n: f"{Decimal(n).scaleb(-8):f}"),
)


def made(symbol, table):
    """Bars whose decimals are given, without a look at whether a market could have them."""
    count = len(table)
    return pl.DataFrame(
        {
            "symbol": [symbol] * count,
            "interval": ["1h"] * count,
            "open_time": [START + at * HOUR for at in range(count)],
            "close_time": [START + at * HOUR + 1 for at in range(count)],
            "trades": [1] * count,
            "is_closed": [True] * count,
        }
        | {name: [cells[at] for cells in table] for at, name in enumerate(DECIMALS)}
    ).select(pl.col(name).cast(dtype) for name, dtype in BAR_SCHEMA.items())


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(table=st.lists(st.tuples(*[decimals] * 8), min_size=1, max_size=6))
def test_what_goes_in_comes_out_to_the_last_digit(warehouse, table):
    symbol = f"S{next(NUMBERS)}"
    given_bars = made(symbol, table)
    with warehouse.writing() as connection:
        bars.upsert(connection, given_bars, batch_id=1, source="test")
    with warehouse.reading() as connection:
        fetched = bars._fetch(connection, Range(symbol, "1h", 0, 2**62, 0))
        c = binance_ohlcv.c
        plain = connection.execute(
            sa.select(*(c[name] for name in DECIMALS)).where(c.symbol == symbol)
        ).all()
    assert fetched.drop("batch_id").equals(given_bars)
    assert [tuple(f"{cell:f}" for cell in row) for row in plain] == [
        tuple(f"{Decimal(cell):.8f}" for cell in row) for row in table
    ]
    exact = frames.read(warehouse, symbol, "1h", exact=True)
    assert exact.select(given_bars.columns).equals(given_bars)
    floats = frames.read(warehouse, symbol, "1h")
    for at, name in enumerate(DECIMALS):
        assert floats[name].to_list() == [float(row[at]) for row in table]


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**28) + 1, 10**28 - 1))
def test_the_text_of_a_number_is_one_and_the_same(units):
    number = Decimal(units).scaleb(-8)
    text = exact_text(number)
    assert text == exact_text(str(number)) == exact_text(text + "000")
    assert Decimal(text) == number
    assert len(text.partition(".")[2]) == 8


@pytest.mark.parametrize(
    "value", ["0.000000001", "1" + "0" * 20, "1.123456789", "NaN", "Infinity", "abc"]
)
def test_what_does_not_fit_is_refused_and_never_rounded(warehouse, value):
    with pytest.raises(DataError, match=r"does not fit DECIMAL\(28,8\)"):
        exact_text(value)
    row = frame([bar(0)]).drop("is_closed").to_dicts()[0]
    row |= {"is_closed": 1, "source": "test", "batch_id": 1, "updated_at": 1, "volume": value}
    with (
        pytest.raises((DataError, sa.exc.StatementError)) as caught,
        warehouse.writing() as connection,
    ):
        connection.execute(binance_ohlcv.insert(), row)
    assert "does not fit" in str(caught.value)
    with warehouse.reading() as connection:
        assert bars.extent(connection, "BTCUSDT", "1h") is None


@pytest.mark.parametrize("load_from", [1, 10**9])
def test_a_frame_with_other_decimals_is_refused_whole(warehouse, monkeypatch, load_from):
    monkeypatch.setattr(bulk, "_LOAD_FROM_ROWS", load_from)
    finer = frame([bar(0)]).with_columns(
        pl.lit("1.1234567891").cast(pl.Decimal(38, 10)).alias("volume")
    )
    with pytest.raises(FatalError, match="volume"), warehouse.writing() as connection:
        bulk.write(
            connection,
            binance_ohlcv,
            finer.with_columns(
                pl.col("is_closed").cast(pl.Int8),
                source=pl.lit("test"),
                batch_id=pl.lit(1),
                updated_at=pl.lit(1),
            ),
        )
    with warehouse.reading() as connection:
        assert bars.extent(connection, "BTCUSDT", "1h") is None


def test_numbers_are_compared_as_numbers(warehouse):
    """On SQLite they are text, and as text 9999.96 lies above 29300."""
    rows = [bar(0, high="9999.96000000"), bar(1, high="29300.00000000")]
    with warehouse.writing() as connection:
        bars.upsert(connection, frame(rows), batch_id=1, source="test")
    found = frames.read(warehouse, "BTCUSDT", "1h", exact=True)
    assert found["high"].dtype == DECIMAL
    assert found["high"].max() == Decimal("29300.00000000")


def test_the_column_type_reads_back_decimals():
    assert Exact().process_result_value("1.50000000", None) == Decimal("1.5")
    assert Exact().process_result_value(None, None) is None
    assert Exact().process_bind_param(None, None) is None
