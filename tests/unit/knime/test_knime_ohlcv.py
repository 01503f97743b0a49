"""Our own workflow, against an oracle in plain Python and exact decimals."""

from __future__ import annotations

import csv
import importlib.util
import io
import itertools
import math
import random
import tempfile
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from knime_support import DECIMALS, LANDING_DOUBLES, sqlite_warehouse_in

from bentley.knime import engine, workflow

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "workflows" / "ohlcv_processing.knwf"
RECORDED = ROOT / "../shared/data/binance_klines"
HOUR = 3_600_000
START = 1_500_001_200_000 // HOUR * HOUR
PASSED_THROUGH = ("symbol", "interval", "open_time", "close_time", *DECIMALS, "trades")


@pytest.fixture(scope="module")
def loaded():
    return workflow.load(FILE)


def process(warehouse, loaded, since, until, *, batch=1, step=HOUR, interval="1h"):
    return engine.run(
        loaded,
        {
            "jdbc_url": warehouse.jdbc_url,
            "landing_table": "knime_landing",
            "batch_id": str(batch),
            "symbol": "BTCUSDT",
            "interval": interval,
            "step_ms": str(step),
            "since_ms": str(since),
            "until_ms": str(until),
        },
    )


def bar(at: int, close: float = 100.0, **changes: object) -> dict[str, object]:
    """A sound hourly bar `at` hours after START."""
    time = START + at * HOUR
    row: dict[str, object] = {
        "symbol": "BTCUSDT",
        "interval": "1h",
        "open_time": time,
        "close_time": time + HOUR - 1,
        "open": f"{close:.8f}",
        "high": f"{close + 1:.8f}",
        "low": f"{close - 1:.8f}",
        "close": f"{close:.8f}",
        "volume": "10.00000000",
        "quote_volume": f"{close * 10:.8f}",
        "taker_buy_base_volume": "4.00000000",
        "taker_buy_quote_volume": f"{close * 4:.8f}",
        "trades": 5,
        "is_closed": 1,
        "batch_id": 77,
    }
    return row | changes


def series(length: int, seed: int = 1) -> list[dict[str, object]]:
    rng = random.Random(seed)
    return [bar(at, round(100 + rng.uniform(-20, 20), 8)) for at in range(length)]


def oracle(rows: Sequence[dict[str, object]], step: int) -> dict[int, dict[str, object]]:
    """What each row must come out as, computed from its neighbours by their times."""
    good = {row["open_time"]: row for row in rows if fault(row, step) is None}
    return {row["open_time"]: _expected(row, good, step) for row in rows}


def fault(row: dict[str, object], step: int) -> str | None:
    if any(row[name] is None for name in (*DECIMALS, "close_time", "trades")):
        return "a cell is missing"
    opened, closed = row["open_time"], row["close_time"]
    o, h, low, c, v, q, tb, tq = (Decimal(str(row[name])) for name in DECIMALS)
    checks = {
        "open_time is off the grid": opened % step != 0,
        "close_time lies outside the bar": not opened <= closed < opened + step,
        "a price is not above zero": min(o, h, low, c) <= 0,
        "a volume or the number of trades is negative": min(v, q, tb, tq, row["trades"]) < 0,
        "high lies below open, low or close": h < max(o, low, c),
        "low lies above open or close": low > min(o, c),
        "the taker's volume exceeds the volume": tb > v,
    }
    return next((name for name, wrong in checks.items() if wrong), None)


def _expected(row, good, step):
    reason = fault(row, step)
    result = dict.fromkeys(LANDING_DOUBLES) | {"reject_reason": reason, "quality_flag": "rejected"}
    if reason is not None:
        return result
    at = row["open_time"]
    h, low, c, v, q, tb = (
        float(row[name])
        for name in ("high", "low", "close", "volume", "quote_volume", "taker_buy_base_volume")
    )
    result["typical_price"] = (h + low + c) / 3
    if v > 0:
        result |= {"vwap": q / v, "taker_buy_share": tb / v}
    before = good.get(at - step)
    if before is not None:
        p = float(before["close"])
        result["simple_return"] = c / p - 1
        result["log_return"] = math.log(c / p)
        result["true_range"] = max(h - low, abs(h - p), abs(low - p))
    window = [good.get(at - back * step) for back in range(20)]
    if all(one is not None for one in window):
        result["sma_20"] = math.fsum(float(one["close"]) for one in window) / 20
        result["volume_20"] = math.fsum(float(one["volume"]) for one in window)
        result["high_20"] = max(float(one["high"]) for one in window)
        result["low_20"] = min(float(one["low"]) for one in window)
    early = row["close_time"] < at + step - 1
    flags = {"zero_volume": v == 0, "early_close": early, "after_gap": before is None}
    result["quality_flag"] = next((name for name, holds in flags.items() if holds), "ok")
    return result


def assert_matches(found, rows, step=HOUR, since=0):
    expected = oracle(rows, step)
    by_time = {row["open_time"]: row for row in rows}
    wanted = [time for time in expected if time >= since]
    assert [row["open_time"] for row in found] == sorted(wanted)
    for row in found:
        source, right = by_time[row["open_time"]], expected[row["open_time"]]
        for name in PASSED_THROUGH:
            assert row[name] == source[name], (row["open_time"], name)
        assert row["source_batch_id"] == source["batch_id"]
        for name, value in right.items():
            if isinstance(value, float):
                assert row[name] == pytest.approx(value, rel=1e-12, abs=1e-14), (row, name)
            else:
                assert row[name] == value, (row["open_time"], name)


def test_the_committed_workflow_is_the_generated_one():
    path = ROOT / "workflows" / "build_ohlcv_processing.py"
    builder = importlib.util.module_from_spec(
        found := importlib.util.spec_from_file_location("build_ohlcv_processing", path)
    )
    found.loader.exec_module(builder)
    assert builder.build() == FILE.read_bytes()
    assert builder.build() == builder.build()


def test_it_needs_nothing_that_the_engine_lacks(loaded):
    assert engine.check(loaded) == []


def test_the_variables_are_strings_with_their_defaults(loaded):
    assert loaded.variables["landing_table"] == "knime_landing"
    assert set(loaded.variables) >= {
        "jdbc_url", "landing_table", "batch_id", "symbol", "interval", "step_ms", "since_ms",
        "until_ms",
    }  # fmt: skip
    assert all(isinstance(value, str) for value in loaded.variables.values())


def test_a_plain_series(warehouse, loaded):
    rows = series(60)
    warehouse.put(rows)
    process(warehouse, loaded, START, START + 60 * HOUR, batch=9)
    found = warehouse.landing()
    assert_matches(found, rows)
    assert {row["batch_id"] for row in found} == {9}
    assert found[0]["quality_flag"] == "after_gap"
    assert {row["quality_flag"] for row in found[1:]} == {"ok"}
    assert [row["sma_20"] is None for row in found] == [True] * 19 + [False] * 41


def test_only_closed_bars_of_the_one_series_in_the_range(warehouse, loaded):
    rows = series(40)
    rows[39]["is_closed"] = 0
    others = [bar(at, symbol="ETHUSDT") for at in range(40)]
    others += [bar(at, interval="4h") for at in range(0, 40, 4)]
    warehouse.put(rows + others)
    process(warehouse, loaded, START + 30 * HOUR, START + 60 * HOUR)
    assert_matches(warehouse.landing(), rows[:39], since=START + 30 * HOUR)


def test_gaps_zero_volume_and_early_closes(warehouse, loaded):
    rows = [row for at, row in enumerate(series(90)) if at not in {30, 31, 55}]
    by_time = {row["open_time"]: row for row in rows}
    quiet = by_time[START + 40 * HOUR]
    for name in DECIMALS[4:]:
        quiet[name] = "0.00000000"
    early = by_time[START + 45 * HOUR]
    early["close_time"] = early["open_time"] + 1000
    both = by_time[START + 32 * HOUR]
    both["close_time"] = both["open_time"] + 1000
    warehouse.put(rows)
    process(warehouse, loaded, START, START + 90 * HOUR)
    found = warehouse.landing()
    assert_matches(found, rows)
    flags = {(row["open_time"] - START) // HOUR: row["quality_flag"] for row in found}
    assert (flags[40], flags[45], flags[56]) == ("zero_volume", "early_close", "after_gap")
    assert flags[32] == "early_close"  # it comes before after_gap
    assert flags[41] == "ok"


BROKEN = [
    {"close": None},
    {"trades": None},
    {"open_time": START + 30 * HOUR + 1},
    {"close_time": START + 31 * HOUR},
    {"low": "0.00000000"},
    {"volume": "-1.00000000"},
    {"high": "50.00000000"},
    {"low": "150.00000000"},
    {"taker_buy_base_volume": "11.00000000"},
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda change: next(iter(change)))
def test_a_broken_bar_is_rejected_and_its_neighbours_see_a_gap(warehouse, loaded, broken):
    rows = [bar(at, 100.0 + at) for at in range(70)]
    rows[30] |= broken
    warehouse.put(rows)
    process(warehouse, loaded, START, START + 70 * HOUR)
    found = warehouse.landing()
    assert_matches(found, rows)
    assert found[30]["reject_reason"]
    assert found[30]["quality_flag"] == "rejected"
    assert [row["reject_reason"] for row in found if row is not found[30]] == [None] * 69
    assert found[31]["quality_flag"] == "after_gap"
    assert found[49]["sma_20"] is None
    assert found[50]["sma_20"] is not None


def test_weeks_open_on_mondays(warehouse, loaded):
    week = 7 * 24 * HOUR
    monday = 4 * 24 * HOUR + 2500 * week
    rows = [
        bar(0, interval="1w", open_time=monday + at * week, close_time=monday + (at + 1) * week - 1)
        for at in range(3)
    ]
    rows.append(
        bar(0, interval="1w", open_time=3000 * week, close_time=3001 * week - 1)  # a Thursday
    )
    warehouse.put(rows)
    process(warehouse, loaded, 0, 4000 * week, step=week, interval="1w")
    assert [row["reject_reason"] for row in warehouse.landing()] == [
        None, None, None, "open_time is off the grid",
    ]  # fmt: skip


def test_an_empty_range_writes_nothing(warehouse, loaded):
    warehouse.put(series(5))
    result = process(warehouse, loaded, START + 100 * HOUR, START + 200 * HOUR)
    assert warehouse.landing() == []
    assert result.nodes[-1].rows == 0


def test_exact_text_passes_through(warehouse, loaded):
    huge = "18251592538769.00000001"
    rows = [bar(0, volume=huge, quote_volume="230976895658.80542100")]
    if warehouse.mysql:
        rows[0]["quote_volume"] = "230976895658.80542100"
    warehouse.put(rows)
    process(warehouse, loaded, START, START + HOUR)
    (row,) = warehouse.landing()
    assert row["volume"] == huge
    assert row["quote_volume"] == "230976895658.80542100"


def _runs(warehouse, loaded, edges):
    for since, until in itertools.pairwise(edges):
        process(warehouse, loaded, since, until)
    return warehouse.landing()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.integers(1, 69), max_size=6),
    st.sets(st.integers(0, 69), max_size=4),
    st.sets(st.integers(0, 69), max_size=3),
    st.integers(0, 2**20),
)
def test_pieces_give_the_same_bits_as_the_whole(cuts, gaps, broken, seed):
    rows = [row for at, row in enumerate(series(70, seed)) if at not in gaps]
    for row in rows:
        if (row["open_time"] - START) // HOUR in broken:
            row["high"] = "1.00000000"
    edges = [START, *sorted({START + cut * HOUR for cut in cuts}), START + 70 * HOUR]
    one = workflow.load(FILE)
    with tempfile.TemporaryDirectory() as folder:
        for warehouse in sqlite_warehouse_in(Path(folder)):
            warehouse.put(rows)
            process(warehouse, one, START, START + 70 * HOUR)
            whole = warehouse.landing()
            warehouse.put(rows)
            assert _runs(warehouse, one, edges) == whole  # == on floats: to the bit
            assert_matches(whole, rows)


def test_hour_by_hour_gives_the_same_bits_as_the_whole(warehouse, loaded):
    rows = series(45, seed=5)
    del rows[21]
    warehouse.put(rows)
    process(warehouse, loaded, START, START + 45 * HOUR)
    whole = warehouse.landing()
    warehouse.put(rows)
    edges = [START + at * HOUR for at in range(46)]
    assert _runs(warehouse, loaded, edges) == whole


def _recorded(name: str, limit: int) -> list[dict[str, object]]:
    path = RECORDED / f"{name}.csv.zst"
    if not path.is_file():
        pytest.skip(f"{path} is not there: recorded data lies beside the repository")
    with zstandard.open(path, "rt") as file:
        cells = list(itertools.islice(csv.reader(io.StringIO(file.read())), 1, limit + 1))
    names = (
        "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume",
        "trades", "taker_buy_base_volume", "taker_buy_quote_volume",
    )  # fmt: skip
    rows = []
    for line in cells:
        row: dict[str, object] = dict(zip(names, line[:11], strict=True))
        for key in ("open_time", "close_time", "trades"):
            row[key] = int(row[key])
        for key in DECIMALS:
            row[key] = f"{Decimal(row[key]):.8f}"
        rows.append(row | {"symbol": "BTCUSDT", "interval": "1h", "is_closed": 1, "batch_id": 3})
    return rows


@pytest.mark.parametrize("name", ["BTCUSDT-1h", "ADAUSDT-1h"])
def test_recorded_bars_with_their_outages(warehouse, loaded, name):
    rows = _recorded(name, 12_000)
    warehouse.put(rows)
    process(warehouse, loaded, 0, rows[-1]["open_time"] + HOUR)
    found = warehouse.landing()
    assert_matches(found, rows)
    flags = {row["quality_flag"] for row in found}
    assert {"ok", "after_gap", "early_close"} <= flags
    assert sum(row["reject_reason"] is not None for row in found) == 0
