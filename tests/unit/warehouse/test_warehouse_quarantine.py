"""Bad rows are kept as they came, once each."""

import json

import polars as pl

from bentley.domain.bars import RAW_SCHEMA, sift
from bentley.warehouse import quarantine
from bentley.warehouse.schema import quarantine as table
from unit.stages.chain_support import bar, rows_of


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


def test_more_rows_than_a_statement_takes_parameters(warehouse):
    rows = [bar(at, volume="-1.00000000") for at in range(33_000)]
    for batch in (1, 2):
        put(warehouse, rows, batch=batch)
    found = rows_of(warehouse, table, "batch_id")
    assert len(found) == 33_000
    assert set(found) == {(1,)}
