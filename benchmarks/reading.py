"""Bars out of the warehouse as floats, beside pandas.read_sql of the same columns."""

from __future__ import annotations

import time
from collections.abc import Iterator

import databases
import harness
import numpy as np
import pandas as pd
import sample
import sqlalchemy as sa
from harness import Context, Figure, Goal

from bentley.domain.bars import DECIMALS
from bentley.warehouse import bars, frames
from bentley.warehouse.schema import binance_ohlcv
from bentley.warehouse.warehouse import Warehouse

GOALS = {"SQLite": Goal(3, at_least=True), "MariaDB": Goal(5, at_least=True)}
OHLCV = ("open_time", "open", "high", "low", "close", "volume")
EVERY = tuple(column.name for column in binance_ohlcv.c)


def measure(context: Context) -> Iterator[Figure]:
    """Read one series in time order; both ways must give the same floats."""
    count, repeats = (40_000, 3) if context.quick else (500_000, 7)
    with databases.kinds(context) as kinds:
        for kind in kinds:
            context.say(f"{kind.name}: filling a table with {count:,} bars")
            with kind.warehouse() as warehouse:
                _fill(warehouse, count)
                for label, columns in (("OHLCV", OHLCV), ("all columns", EVERY)):
                    _compare(warehouse, columns)
                    found = harness.alternate(
                        {
                            "bentley": lambda w=warehouse, c=columns: _ours(w, c)[1],
                            "pandas": lambda w=warehouse, c=columns: _pandas(w, c)[1],
                        },
                        repeats,
                        lambda text, kind=kind: context.say(f"{kind.name}, {text}"),
                    )
                    yield Figure(
                        what=f"{kind.name}: read {label}, {count:,} bars",
                        unit="bars/s",
                        ours=count / found["bentley"],
                        peer_name="pandas.read_sql",
                        peer=count / found["pandas"],
                        ratio=found["pandas"] / found["bentley"],
                        goal=GOALS[kind.name],
                        runs=repeats,
                    )


def _fill(warehouse: Warehouse, count: int) -> None:
    for chunk in sample.bars(count).iter_slices(50_000):
        with warehouse.writing() as connection:
            bars.upsert(connection, chunk, batch_id=1, source="benchmark")


def _ours(warehouse: Warehouse, columns: tuple[str, ...]) -> tuple[pd.DataFrame, float]:
    start = time.perf_counter()
    frame = frames.read(warehouse, sample.SYMBOLS[0], sample.INTERVAL, columns=columns)
    seconds = time.perf_counter() - start
    return frame.to_pandas(), seconds


def _pandas(warehouse: Warehouse, columns: tuple[str, ...]) -> tuple[pd.DataFrame, float]:
    """Let the database cast the decimals to DOUBLE: the fastest way that pandas has to floats."""
    c = binance_ohlcv.c
    chosen = [
        sa.cast(c[name], sa.Double()).label(name) if name in DECIMALS else c[name]
        for name in columns
    ]
    query = (
        sa.select(*chosen)
        .where(c.symbol == sample.SYMBOLS[0], c.interval == sample.INTERVAL)
        .order_by(c.open_time)
    )
    start = time.perf_counter()
    with warehouse.reading() as connection:
        frame = pd.read_sql(query, connection)
    return frame, time.perf_counter() - start


def _compare(warehouse: Warehouse, columns: tuple[str, ...]) -> None:
    ours, theirs = _ours(warehouse, columns)[0], _pandas(warehouse, columns)[0]
    for name in columns:
        if name in DECIMALS:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-15)
            if theirs[name].dtype != np.float64:
                msg = f"pandas gave {theirs[name].dtype} for {name}"
                raise AssertionError(msg)
        elif list(ours[name]) != list(theirs[name]):
            msg = f"{name} differs"
            raise AssertionError(msg)
