"""The KNIME stage with KNIME_EXECUTABLE set: KNIME is believed by what landed, not by its exit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from chain_support import batches, digest, ingest_batch, rows_of, series
from sqlalchemy.engine import URL

from bentley.domain.errors import ConfigurationError, FatalError
from bentley.knime import jdbc
from bentley.stages import engines
from bentley.stages.process import process
from bentley.warehouse.ledger import COMMITTED, FAILED, PROCESS
from bentley.warehouse.schema import knime_processed
from bentley.warehouse.warehouse import Warehouse

STANDIN = Path(__file__).resolve().parents[2] / "contract" / "knime_batch"


@pytest.fixture
def launcher(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "knime"
    folder.mkdir()
    path = folder / "knime"
    script = Path(__file__).with_name("knime_launcher.py")
    path.write_text(f'#!/bin/sh\nPYTHONPATH={STANDIN} exec {sys.executable} {script} "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("LAUNCHER_DOES", "work")
    monkeypatch.setenv("LAUNCHER_SEEN", str(tmp_path / "seen"))
    return path


COMPUTED = (
    *("simple_return", "log_return", "true_range", "typical_price", "vwap", "taker_buy_share"),
    *("sma_20", "high_20", "low_20", "volume_20"),
)


def varied(count: int) -> list[dict[str, str]]:
    """Bars of which no two neighbours are alike in range or volume."""
    return [
        row | {"high": f"{900 + at % 7}.5", "low": f"0.{1 + at % 9}", "volume": f"{10 + at % 5}"}
        for at, row in enumerate(series(count))
    ]


def computed(rows: list[dict[str, str]]) -> np.ndarray:
    """What the columns are defined to hold for bars without a gap, NaN where that is nothing."""
    high, low, close, volume, quote, taker = (
        np.array([float(row[name]) for row in rows])
        for name in ("high", "low", "close", "volume", "quote_volume", "taker_buy_base_volume")
    )
    last = np.append(np.nan, close[:-1])
    highs, lows, closes, volumes = (
        np.lib.stride_tricks.sliding_window_view(np.append(np.full(19, np.nan), cells), 20)
        for cells in (high, low, close, volume)
    )
    return np.column_stack(
        [
            close / last - 1,
            np.log(close / last),
            np.max([high - low, abs(high - last), abs(low - last)], axis=0),
            (high + low + close) / 3,
            quote / volume,
            taker / volume,
            closes.mean(axis=1),
            highs.max(axis=1),
            lows.min(axis=1),
            volumes.sum(axis=1),
        ]
    )


def test_the_tables_hold_what_the_columns_are_defined_to(settings, mariadb, launcher, tmp_path):
    """By either route the same tables, and in them what plain Python makes of the raw bars.

    This is no comparison with KNIME: the stand-in runs the workflow on the embedded engine, too.
    What the two routes differ in is all around it: the arguments, the process, the landing table.
    """
    tables, bars = [], varied(60)
    for executable in (None, launcher):
        given = settings(warehouse_url=mariadb.database(), knime_executable=executable)
        with Warehouse.open(given) as warehouse:
            ingest_batch(warehouse, bars)
            report = process(given)
            assert report.engine == ("knime" if executable else "bentley-knime")
            assert report.rows_written == 60
            tables.append(digest(warehouse))
            found = rows_of(warehouse, knime_processed, *COMPUTED)
            np.testing.assert_allclose(np.array(found, dtype=float), computed(bars), rtol=1e-12)
    assert tables[0] == tables[1]
    seen = [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]
    assert len(seen) == 1
    assert "pw-7" not in json.dumps(seen)
    assert seen[0]["variables"]["symbol"] == "BTCUSDT"


@pytest.mark.parametrize(("behaviour", "said"), [("nothing", "60 of 60 bars"), ("fail", "KNIME")])
def test_what_did_not_land_is_not_processed(
    settings, mariadb, launcher, monkeypatch, behaviour, said
):
    monkeypatch.setenv("LAUNCHER_DOES", behaviour)
    given = settings(warehouse_url=mariadb.database(), knime_executable=launcher)
    with Warehouse.open(given) as warehouse:
        ingest_batch(warehouse, series(60))
        with pytest.raises(FatalError, match=said):
            process(given)
        assert [batch.status for batch in batches(warehouse, PROCESS)] == [FAILED]
        monkeypatch.setenv("LAUNCHER_DOES", "work")
        assert process(given).status == COMMITTED


@pytest.mark.parametrize("password", ["my secret", "a%41b", "100%+/&=?#@:", "p\u00e4ss w"])
def test_any_password_reaches_a_jdbc_address_and_comes_back(password):
    url = URL.create("mysql+pymysql", "knime", password, "db", 3307, "mansa_bot")
    address = engines._jdbc(url)
    assert "+" not in address
    assert jdbc.to_url(address) == url


def test_sqlite_is_refused_for_knime_itself(settings, launcher):
    given = settings(knime_executable=launcher)
    with Warehouse.open(given) as warehouse:
        ingest_batch(warehouse, series(5))
        with pytest.raises(ConfigurationError, match="BENTLEY_WAREHOUSE_URL"):
            process(given)
        assert [batch.status for batch in batches(warehouse, PROCESS)] == [FAILED]


def test_a_launcher_that_is_not_there_is_named(settings, mariadb):
    given = settings(warehouse_url=mariadb.database(), knime_executable="/nowhere/knime")
    with Warehouse.open(given) as warehouse:
        ingest_batch(warehouse, series(5))
    with pytest.raises(ConfigurationError, match="/nowhere/knime"):
        process(given)
