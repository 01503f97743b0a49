"""Series as frames: equal to what was recorded, and harmless to what is written next."""

import csv
import io
import itertools
import json
import subprocess
import sys
import textwrap
from urllib.parse import quote

import connectorx
import polars as pl
import pytest
import zstandard
from sqlalchemy.engine import make_url

from bentley.domain.bars import BAR_SCHEMA, DECIMALS, FIELDS
from bentley.domain.errors import RetriableError
from bentley.stages import process as stage
from bentley.warehouse import bars, frames
from bentley.warehouse.schema import COMPUTED, binance_ohlcv, knime_processed
from bentley.warehouse.warehouse import Warehouse
from unit.stages.chain_support import HOUR, START, bar, frame, ingest_batch, series

NAMES = [name for name in FIELDS if name not in {"symbol", "interval"}]


def put(warehouse, bars_given):
    with warehouse.writing() as connection:
        bars.upsert(connection, bars_given, batch_id=1, source="test")


def recorded_rows(folder, name, limit):
    with zstandard.open(folder / "binance_klines" / f"{name}.csv.zst", "rt") as file:
        rows = itertools.islice(csv.reader(io.StringIO(file.read())), 1, limit + 1)
        symbol, interval = name.split("-")
        return [
            dict(zip(NAMES, row, strict=False)) | {"symbol": symbol, "interval": interval}
            for row in rows
        ]


@pytest.mark.parametrize("name", ["BTCUSDT-1h", "ADAUSDT-1d"])
def test_recorded_rows_come_back_to_the_last_digit(warehouse, recorded, monkeypatch, name):
    monkeypatch.setattr(frames, "_PAGE", 300)
    rows = recorded_rows(recorded, name, 1000)
    put(warehouse, frame(rows))
    symbol, interval = name.split("-")
    exact = frames.read(warehouse, symbol, interval, exact=True)
    floats = frames.read(warehouse, symbol, interval)
    assert exact.height == floats.height == len(rows) > 900
    for column in FIELDS:
        given = [row[column] for row in rows]
        if column in DECIMALS:
            assert exact[column].cast(pl.String).to_list() == given
            assert floats[column].to_list() == [float(text) for text in given]
        else:
            assert exact[column].cast(pl.String).to_list() == given
    for column, dtype in BAR_SCHEMA.items():
        assert exact.schema[column] == dtype
        assert floats.schema[column] == (pl.Float64 if column in DECIMALS else dtype)
    assert exact.columns == [column.name for column in binance_ohlcv.c]


def test_range_columns_and_order(warehouse, monkeypatch):
    monkeypatch.setattr(frames, "_PAGE", 4)
    rows = series(12)
    put(warehouse, frame(rows[6:]))
    put(warehouse, frame(rows[:6]))
    put(warehouse, frame(series(12, symbol="ETHUSDT", seed=9)))
    found = frames.read(
        warehouse,
        "BTCUSDT",
        "1h",
        since=START + 2 * HOUR,
        until=START + 10 * HOUR,
        columns=("close", "is_closed"),
    )
    assert found.columns == ["close", "is_closed"]
    assert found["close"].to_list() == [float(row["close"]) for row in rows[2:10]]
    assert found["is_closed"].to_list() == [True] * 8
    assert frames.read(warehouse, "BTCUSDT", "1h", columns=("symbol",)).height == 12


@pytest.mark.parametrize("table", ["binance_ohlcv", "knime_processed"])
def test_an_empty_series_has_its_types(warehouse, table):
    put(warehouse, frame([bar(0)]))
    empty = frames.read(warehouse, "NOPE", "1h", table=table)
    assert empty.height == 0
    assert empty.schema["close"] == pl.Float64
    assert empty.schema["open_time"] == pl.Int64
    assert (
        frames.read(warehouse, "NOPE", "1h", table=table, exact=True).schema["volume"]
        == (BAR_SCHEMA["volume"])
    )


def test_computed_columns_come_back_to_the_bit(warehouse, opened, monkeypatch):
    monkeypatch.setattr(frames, "_PAGE", 7)
    ingest_batch(warehouse, series(40))
    stage.process(opened)
    found = frames.read(warehouse, "BTCUSDT", "1h", table="knime_processed")
    with warehouse.reading() as connection:
        c = knime_processed.c
        query = knime_processed.select().order_by(c.open_time)
        plain = [row._mapping for row in connection.execute(query)]
    assert found.height == 40
    for name in (*COMPUTED, "quality_flag", "source_batch_id", "batch_id"):
        assert found[name].to_list() == [row[name] for row in plain], name
    assert found["sma_20"].null_count() == 19


def test_a_read_does_not_lose_what_is_written_after_it(opened, warehouse):
    """A second SQLite in the process would free our locks, and drop the log being written."""
    put(warehouse, frame(series(5)))
    for at in range(5, 10):
        assert frames.read(warehouse, "BTCUSDT", "1h").height == at
        put(warehouse, frame([bar(at)]))
    assert frames.read(warehouse, "BTCUSDT", "1h").height == 10
    look = """
        import json, sys
        from bentley import settings
        from bentley.warehouse import frames
        from bentley.warehouse.warehouse import Warehouse
        given = json.loads(sys.argv[1])
        with Warehouse.open(settings.load(**given)) as warehouse:
            print(frames.read(warehouse, "BTCUSDT", "1h").height)
    """
    given = {"home": str(opened.home)}
    if opened.warehouse_url is not None:
        given["warehouse_url"] = opened.warehouse_url.get_secret_value()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(look), json.dumps(given)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("10", "")


@pytest.mark.parametrize("name", ["a b", "a#b", "ü", "a'b", "a%20b", "a?b"])
def test_a_home_of_any_name(settings, tmp_path, name):
    with Warehouse.open(settings(home=tmp_path / name)) as warehouse:
        put(warehouse, frame(series(3)))
        assert frames.read(warehouse, "BTCUSDT", "1h").height == 3
    assert (tmp_path / name / "mansa_bot.db").is_file()


PASSWORD = "s3cret p@ss/w:rd%25?#"


@pytest.fixture
def odd_user(mariadb):
    """A database whose user's password needs escapes, and its address."""
    url = mariadb.database()
    with mariadb.admin() as admin, admin.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE USER 'odd'@'127.0.0.1' IDENTIFIED BY %s", (PASSWORD,))
        cursor.execute("GRANT ALL ON *.* TO 'odd'@'127.0.0.1'")
    return url.replace("bentley:pw-7", f"odd:{quote(PASSWORD, safe='')}")


def test_a_password_of_any_characters(settings, odd_user):
    with Warehouse.open(settings(warehouse_url=odd_user)) as warehouse:
        put(warehouse, frame(series(3)))
        assert frames.read(warehouse, "BTCUSDT", "1h").height == 3
        assert PASSWORD not in warehouse.address


def test_an_address_with_options_is_read_by_them(settings, mariadb):
    """Through its socket alone: the port is another server's, or nobody's."""
    address = make_url(mariadb.database()).set(port=1, username="root", password="")
    address = address.update_query_dict({"unix_socket": str(mariadb.folder / "s")})
    given = settings(warehouse_url=address.render_as_string(hide_password=False))
    with Warehouse.open(given) as warehouse:
        put(warehouse, frame(series(30)))
        floats = frames.read(warehouse, "BTCUSDT", "1h")
        exact = frames.read(warehouse, "BTCUSDT", "1h", columns=("close", "is_closed"), exact=True)
    assert (floats.height, floats["close"].dtype) == (30, pl.Float64)
    assert exact.schema == {"close": BAR_SCHEMA["close"], "is_closed": pl.Boolean}
    assert floats["close"].to_list() == [float(value) for value in exact["close"]]


def test_a_failed_bulk_read_names_no_password(settings, odd_user, monkeypatch):
    def refused(address, *_args, **_given):
        msg = f"{address} does not answer to {PASSWORD}"
        raise RuntimeError(msg)

    with Warehouse.open(settings(warehouse_url=odd_user)) as warehouse:
        monkeypatch.setattr(connectorx, "read_sql", refused)
        with pytest.raises(RetriableError) as caught:
            frames.read(warehouse, "BTCUSDT", "1h")
    for secret in (PASSWORD, quote(PASSWORD, safe="")):
        assert secret not in str(caught.value)
    assert "does not answer" in str(caught.value)
