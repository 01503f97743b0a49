"""Bars written: what differs and nothing else, whichever way they take."""

import random
import tempfile
from decimal import Decimal

import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentley.domain.errors import FatalError
from bentley.warehouse import bars, bulk
from bentley.warehouse.ledger import Range
from bentley.warehouse.schema import binance_ohlcv
from unit.stages.chain_support import HOUR, LATER, START, bar, frame, rows_of, series


def put(warehouse, rows, *, batch=1, now=LATER):
    with warehouse.writing() as connection:
        return bars.upsert(connection, frame(rows, now=now), batch_id=batch, source="test")


def stored(warehouse, *names):
    return rows_of(warehouse, binance_ohlcv, *names)


def test_the_same_again_writes_nothing(warehouse):
    rows = series(50)
    first = put(warehouse, rows)
    assert (first.rows, first.news) == (50, 50)
    assert first.ranges == (Range("BTCUSDT", "1h", START, START + 49 * HOUR, 50),)
    before = stored(warehouse)
    again = put(warehouse, rows, batch=2)
    assert (again.rows, again.news, again.ranges) == (0, 0, ())
    assert stored(warehouse) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("close", "101.00000001"),
        ("volume", "10.00000001"),
        ("trades", "8"),
        ("close_time", str(START + 3 * HOUR + 5)),
        ("taker_buy_quote_volume", "0.00000000"),
    ],
)
def test_only_what_differs_is_written(warehouse, name, value):
    rows = [bar(at) for at in range(10)]
    put(warehouse, rows)
    rows[3][name] = value
    done = put(warehouse, rows, batch=2)
    assert (done.rows, done.news) == (1, 1)
    assert done.ranges == (Range("BTCUSDT", "1h", START + 3 * HOUR, START + 3 * HOUR, 1),)
    assert [batch for (batch,) in stored(warehouse, "batch_id")] == [1] * 3 + [2] + [1] * 6
    assert stored(warehouse, name)[3][0] == Decimal(value)


def test_counts_and_ranges_of_several_series(warehouse):
    rows = [*series(5), *series(3, symbol="ETHUSDT", first=7), *series(2, interval="2h")]
    rows = [row for row in rows if row["interval"] == "1h"] + [
        bar(at, interval="2h", close_time=START + (at + 2) * HOUR - 1)
        for at in ((-START // HOUR) % 2, (-START // HOUR) % 2 + 2)
    ]
    random.Random(3).shuffle(rows)
    done = put(warehouse, rows)
    assert [(r.symbol, r.interval, r.rows) for r in done.ranges] == [
        ("BTCUSDT", "1h", 5),
        ("BTCUSDT", "2h", 2),
        ("ETHUSDT", "1h", 3),
    ]
    assert (done.ranges[2].first_open, done.ranges[2].last_open) == (
        START + 7 * HOUR,
        START + 9 * HOUR,
    )


def test_a_forming_bar_is_no_news_is_renewed_and_then_closes(warehouse):
    now = START + HOUR // 2
    done = put(warehouse, [bar(0, "100.00000000")], now=now)
    assert (done.rows, done.news) == (1, 0)
    assert done.ranges == (Range("BTCUSDT", "1h", START, START, 1),)
    assert done.fresh["open_time"].to_list() == [START]
    assert put(warehouse, [bar(0, "100.00000000")], batch=2, now=now).rows == 0
    assert put(warehouse, [bar(0, "101.00000000")], batch=3, now=now).news == 0
    assert stored(warehouse, "is_closed", "batch_id") == [(0, 3)]
    closing = put(warehouse, [bar(0, "101.00000000")], batch=4)
    assert (closing.rows, closing.news) == (1, 1)
    assert stored(warehouse, "is_closed", "batch_id") == [(1, 4)]


def test_a_closed_bar_is_never_overwritten_by_a_forming_one(warehouse):
    put(warehouse, [bar(0, "100.00000000")])
    before = stored(warehouse)
    late = put(warehouse, [bar(0, "99.00000000")], batch=2, now=START + HOUR // 2)
    assert (late.rows, late.news, late.ranges) == (0, 0, ())
    assert stored(warehouse) == before


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4)), min_size=1, max_size=8),
        max_size=5,
    ),
    st.integers(0, 10**9),
)
def test_the_last_version_of_every_bar_stands(warehouse, writes, name):
    symbol = f"H{name}"
    with warehouse.writing() as connection:
        connection.execute(binance_ohlcv.delete().where(binance_ohlcv.c.symbol == symbol))
    wanted = {}
    for batch, write in enumerate(writes, 1):
        versions = dict(write)
        rows = [bar(at, f"{close}.00000000", symbol=symbol) for at, close in versions.items()]
        done = put(warehouse, rows, batch=batch)
        changed = {at for at, close in versions.items() if wanted.get(at, (0,))[0] != close}
        assert done.rows == done.news == len(changed) == sum(r.rows for r in done.ranges)
        wanted |= {at: (versions[at], batch) for at in changed}
    found = [
        ((open_time - START) // HOUR, int(close), batch)
        for of, open_time, close, batch in stored(
            warehouse, "symbol", "open_time", "close", "batch_id"
        )
        if of == symbol
    ]
    assert found == [(at, *wanted[at]) for at in sorted(wanted)]


def test_load_data_and_prepared_rows_store_the_same(warehouse, monkeypatch):
    """On SQLite both are prepared rows; on a server the file must really be taken."""
    taken = []
    load = bulk._load
    monkeypatch.setattr(
        bulk,
        "_load",
        lambda *given, new: taken.append(given[2].texts[0].count(b"\n")) or load(*given, new=new),
    )
    rows = [
        *series(40),
        bar(41, volume="18251592538769.00000000", quote_volume="230976895658.80542100"),
        bar(42, "0.00000001", low="0.00000001"),
    ]
    stored_by = []
    for limit in (10**9, 1):
        monkeypatch.setattr(bulk, "_LOAD_FROM_ROWS", limit)
        with warehouse.writing() as connection:
            connection.execute(binance_ohlcv.delete())
        assert put(warehouse, rows).rows == 42
        stored_by.append([row[:-1] for row in stored(warehouse)])  # the last is the time
    assert stored_by[0] == stored_by[1]
    assert taken == ([] if warehouse.engine.dialect.name == "sqlite" else [42])


@pytest.mark.parametrize("known", [0, 700])
@pytest.mark.parametrize("source", ["test", 'it\'s 100% \\n, "quoted"'])
def test_bars_prepared_ahead_are_stored_like_any(warehouse, monkeypatch, known, source):
    """Also where some are stored already, and where a word can't be written into the statement."""
    monkeypatch.setattr(bulk, "_LOAD_FROM_ROWS", 1)
    wanted = frame(series(2_500))
    dialect = warehouse.engine.dialect.name
    found = []
    for ahead in (None, bars.prepared(wanted, dialect=dialect)):
        assert ahead is None or ahead.text is not None
        with warehouse.writing() as connection:
            connection.execute(binance_ohlcv.delete())
        put(warehouse, series(known))
        with warehouse.writing() as connection:
            done = bars.upsert(connection, wanted, batch_id=2, source=source, ahead=ahead)
        assert done.rows == done.news == 2_500 - known
        assert [one.rows for one in done.ranges] == [2_500 - known]
        found.append([row[:-1] for row in stored(warehouse)])  # the last is the time
    assert len(found[0]) == 2_500
    assert found[0] == found[1]
    assert [row[-2:] for row in found[0]] == [("test", 1)] * known + [(source, 2)] * (2_500 - known)


def test_load_data_replaces_whole_rows(warehouse, monkeypatch):
    monkeypatch.setattr(bulk, "_LOAD_FROM_ROWS", 1)
    put(warehouse, series(20))
    changed = series(20, seed=2)
    assert put(warehouse, changed, batch=2).rows == 20
    assert [f"{close:f}" for (close,) in stored(warehouse, "close")] == [
        row["close"] for row in changed
    ]


def test_load_data_is_to_replace_only_where_something_is_stored(warehouse, monkeypatch):
    if warehouse.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no LOAD DATA")
    monkeypatch.setattr(bulk, "_LOAD_FROM_ROWS", 1)
    said = []
    sa.event.listen(warehouse.engine, "before_cursor_execute", lambda *given: said.append(given[2]))
    for rows, replaced in ((series(20), False), (series(20, seed=2), True)):
        said.clear()
        put(warehouse, rows)
        (load,) = [statement for statement in said if statement.startswith("LOAD DATA")]
        assert (" REPLACE INTO " in load) is replaced


def test_load_data_leaves_no_file_whoever_is_killed_and_takes_a_folder_of_any_name(
    warehouse, monkeypatch, tmp_path
):
    folder = tmp_path / "100% of it's"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(bulk, "_LOAD_FROM_ROWS", 1)
    said, there = [], []

    def look(*given):
        said.append(given[2])
        there.extend(folder.iterdir())

    sa.event.listen(warehouse.engine, "before_cursor_execute", look)
    assert put(warehouse, series(20)).rows == len(stored(warehouse)) == 20
    loads = [statement for statement in said if statement.startswith("LOAD DATA")]
    assert len(loads) == (warehouse.engine.dialect.name != "sqlite")
    assert there == []


def test_a_key_that_came_since_it_was_looked_for_is_replaced(warehouse, monkeypatch):
    """Another process wrote after the look, which only a lock that was lost would let it."""
    monkeypatch.setattr(bulk, "_LOAD_FROM_ROWS", 1)
    put(warehouse, series(20))
    monkeypatch.setattr(
        bars,
        "_stored",
        lambda *_: bars.BAR_SCHEMA.to_frame().with_columns(batch_id=pl.lit(None, pl.Int64)),
    )
    changed = series(30, seed=2)
    put(warehouse, changed, batch=2)
    assert [(f"{close:f}", batch) for close, batch in stored(warehouse, "close", "batch_id")] == [
        (row["close"], 2) for row in changed
    ]


def test_a_cell_that_load_data_would_change_is_an_error_and_nothing_is_stored(
    warehouse, monkeypatch
):
    if warehouse.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no LOAD DATA")
    monkeypatch.setattr(bulk, "_LOAD_FROM_ROWS", 1)
    rows = frame([bar(0), bar(1)]).with_columns(symbol=pl.Series(["BTCUSDT", "X" * 40]))
    with (
        pytest.raises(FatalError, match=r"did not store every cell|Data too long"),
        warehouse.writing() as connection,
    ):
        bars.upsert(connection, rows, batch_id=1, source="test")
    assert stored(warehouse) == []


def test_a_server_that_forbids_load_data_takes_prepared_rows(warehouse, monkeypatch, request):
    if warehouse.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no LOAD DATA")
    monkeypatch.setattr(bulk, "_LOAD_FROM_ROWS", 1)
    monkeypatch.setattr(bulk, "_load", lambda *_, **__: pytest.fail("the file was sent"))
    server = request.getfixturevalue("mariadb")
    with server.admin() as admin, admin.cursor() as cursor:
        cursor.execute("SET GLOBAL local_infile = 0")
    try:
        assert put(warehouse, series(30)).rows == 30
    finally:
        with server.admin() as admin, admin.cursor() as cursor:
            cursor.execute("SET GLOBAL local_infile = 1")
    assert len(stored(warehouse)) == 30


@pytest.mark.parametrize("step", [1, 7, 10, 11, 1000])
def test_the_bars_of_a_batch_come_in_pieces_and_in_key_order(warehouse, step):
    rows = [*series(21), *series(5, symbol="ADAUSDT")]
    done = put(warehouse, rows)
    put(warehouse, [bar(4, "1.00000000")], batch=2)
    with warehouse.reading() as connection:
        pieces = list(bars.of_batch(connection, 1, done.ranges, step=step))
    assert all(0 < piece.height <= step for piece in pieces)
    whole = pl.concat(pieces)
    assert whole.height == 25
    assert START + 4 * HOUR not in whole.filter(symbol="BTCUSDT")["open_time"].to_list()
    assert whole.select("symbol", "open_time").equals(
        whole.select("symbol", "open_time").sort("symbol", "open_time")
    )


def test_extent_and_last_open(warehouse):
    put(warehouse, [bar(0), bar(1), bar(5), bar(9, symbol="ETHUSDT")])
    with warehouse.reading() as connection:
        assert bars.extent(connection, "BTCUSDT", "1h") == (START, START + 5 * HOUR, 3)
        assert bars.last_open(connection, "BTCUSDT", "1h") == START + 5 * HOUR
        assert bars.extent(connection, "BTCUSDT", "4h") is None
        assert bars.last_open(connection, "NOPE", "1h") is None


def test_names_differ_by_case(warehouse):
    """MySQL compares text without regard to case unless it is told otherwise."""
    put(warehouse, [bar(0), bar(0, symbol="btcusdt", close="1.00000000")])
    assert stored(warehouse, "symbol") == [("BTCUSDT",), ("btcusdt",)]
    with warehouse.reading() as connection:
        found = connection.scalar(
            sa.select(sa.func.count()).where(binance_ohlcv.c.symbol == "btcusdt")
        )
    assert found == 1
