"""Bad rows are kept as they came, once each."""

import json

import polars as pl

from bentley.domain.bars import RAW_SCHEMA, sift
from bentley.warehouse import quarantine
from bentley.warehouse.schema import quarantine as table
from unit.stages.chain_support import bar, ingest_batch, rows_of


def put(warehouse, rows, *, batch=1, stage="ingest"):
    rejected = sift(pl.DataFrame(rows, schema=RAW_SCHEMA), now=2**60).rejected
    assert rejected.height == len(rows)
    with warehouse.writing() as connection:
        quarantine.put(connection, rejected, batch_id=batch, stage=stage)


def test_a_row_is_kept_as_it_came_with_its_reason(warehouse):
    bad = bar(3, volume="-1.00000000")
    put(warehouse, [bad], batch=7)
    ((batch, stage, symbol, interval, open_time, reason, content),) = rows_of(
        warehouse, table, "batch_id", "stage", "symbol", "interval", "open_time", "reason",
        "content",
    )  # fmt: skip
    assert (batch, stage, symbol, interval) == (7, "ingest", "BTCUSDT", "1h")
    assert open_time == bad["open_time"]
    assert reason == "volume -1.00000000 is negative"
    assert json.loads(content) == bad


def test_a_row_is_kept_once_with_the_batch_that_found_it_first(warehouse):
    bad = bar(3, volume="-1.00000000")
    for batch in (7, 8):
        put(warehouse, [bad, bad], batch=batch)
    assert rows_of(warehouse, table, "batch_id") == [(7,)]
    put(warehouse, [bar(3, volume="-2.00000000")], batch=9)
    put(warehouse, [bad], batch=9, stage="process")
    assert sorted(rows_of(warehouse, table, "batch_id")) == [(7,), (9,), (9,)]


def test_cells_of_any_length_and_script(warehouse):
    cells = ["x" * 100_000, "\u00fc\U0001f4c8 'quoted', \"twice\" % \\ \n", "", None]
    put(warehouse, [bar(at) | {"close": cell} for at, cell in enumerate(cells)])
    kept = [json.loads(content)["close"] for (content,) in rows_of(warehouse, table, "content")]
    assert sorted(kept, key=str) == sorted(cells, key=str)
    assert all(len(reason) <= 2_000 for (reason,) in rows_of(warehouse, table, "reason"))


def test_a_missing_key_is_no_obstacle(warehouse):
    row = bar(0) | {"symbol": None, "open_time": "y" * 500}
    put(warehouse, [row])
    ((symbol, open_time),) = rows_of(warehouse, table, "symbol", "open_time")
    assert (symbol, open_time) == (None, "y" * 190)


def test_a_key_is_in_milliseconds_in_whatever_its_row_came(warehouse):
    """So that a good row which came since takes its place."""
    good, micro, nano = (bar(at) for at in (0, 1, 2))
    put(warehouse, [
        micro | {"volume": "-1", "open_time": f"{micro['open_time']}000"},
        nano | {"volume": "-1", "open_time": f"{nano['open_time']}000999"},
    ])  # fmt: skip
    assert sorted(rows_of(warehouse, table, "open_time")) == [
        (micro["open_time"],),
        (nano["open_time"],),
    ]
    with warehouse.reading() as connection:
        assert quarantine.standing(connection, "BTCUSDT", "1h") == 2
    ingest_batch(warehouse, [good, micro])
    with warehouse.reading() as connection:
        assert quarantine.standing(connection, "BTCUSDT", "1h") == 1
        count, found = quarantine.newest(connection, limit=9)
    assert count == 2
    assert [(one.open_time, one.stands) for one in found] == [
        (micro["open_time"], False),
        (nano["open_time"], True),
    ]
    assert found[0].content["open_time"] == f"{micro['open_time']}000"


def test_the_newest_are_listed_of_what_is_asked_for(warehouse):
    put(warehouse, [bar(0, volume="-1")], batch=1)
    put(warehouse, [bar(0, volume="-1", symbol="ETHUSDT"), bar(1, volume="?")], batch=2)
    put(warehouse, [bar(2, volume="-1", interval="1d")], batch=3, stage="stocks")

    def found(**more):
        with warehouse.reading() as connection:
            count, rows = quarantine.newest(connection, **({"limit": 9} | more))
        return count, [(one.batch_id, one.symbol) for one in rows]

    assert found() == (4, [(3, "BTCUSDT"), (2, "BTCUSDT"), (2, "ETHUSDT"), (1, "BTCUSDT")])
    assert found(limit=1) == (4, [(3, "BTCUSDT")])
    assert found(batch_id=2) == (2, [(2, "BTCUSDT"), (2, "ETHUSDT")])
    assert found(symbols=["ETHUSDT"]) == (1, [(2, "ETHUSDT")])
    assert found(intervals=["1d"]) == (1, [(3, "BTCUSDT")])
    assert found(intervals=["1d"], batch_id=1) == (0, [])
    with warehouse.reading() as connection:
        assert quarantine.newest(connection, limit=1)[1][0].stands is None


def test_rows_of_one_batch_are_listed_in_their_order_however_long_it_took_to_find_them(
    warehouse, monkeypatch
):
    ticks = iter(range(10**9))
    monkeypatch.setattr(quarantine, "now_ms", lambda: next(ticks))
    put(warehouse, [bar(at, volume="-1") for at in range(30)])
    with warehouse.reading() as connection:
        _, found = quarantine.newest(connection, limit=30)
    assert [one.open_time for one in found] == [bar(at)["open_time"] for at in range(30)]


def test_text_behind_the_last_cell_is_kept_with_the_row_that_has_it(warehouse):
    rows = pl.DataFrame([bar(0), bar(1)], schema=RAW_SCHEMA)
    rejected = rows.with_columns(reason=pl.lit("?"), beyond=pl.Series(["a,b", None]))
    with warehouse.writing() as connection:
        named = quarantine.put(connection, rejected, batch_id=1, stage="ingest")
        _, (first, second) = quarantine.newest(connection, limit=2)
    assert first.content == bar(0) | {"beyond": "a,b"}
    assert second.content == bar(1)
    assert [one["open_time"] for one in named] == [bar(0)["open_time"], bar(1)["open_time"]]


def test_more_rows_than_a_statement_takes_parameters(warehouse):
    rows = [bar(at, volume="-1.00000000") for at in range(33_000)]
    for batch in (1, 2):
        put(warehouse, rows, batch=batch)
    found = rows_of(warehouse, table, "batch_id")
    assert len(found) == 33_000
    assert set(found) == {(1,)}
