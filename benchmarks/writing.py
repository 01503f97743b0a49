"""Bars into the warehouse, beside the database's own bare bulk write and pandas.to_sql."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import databases
import harness
import polars as pl
import sample
from databases import Database
from harness import Context, Figure, Goal

from bentley.stages.ingest import _CHUNK_ROWS as CHUNK
from bentley.stages.positions import SOURCE
from bentley.warehouse import bars
from bentley.warehouse.database import BULK_LOG_PAGES
from bentley.warehouse.schema import binance_ohlcv
from bentley.warehouse.warehouse import Warehouse

GOAL = Goal(0.8, at_least=True)


def measure(context: Context) -> Iterator[Figure]:
    """Write the same fresh bars to the same empty table in turn, a commit every chunk."""
    count, repeats = (40_000, 3) if context.quick else (200_000, 7)
    frame = sample.bars(count)
    with databases.kinds(context) as kinds:
        for kind in kinds:
            what = f"{kind.name}: write {count:,} bars"
            yield from beside(kind, frame, what, lambda kind=kind: _ours(kind, frame), repeats)


def beside(
    kind: Database,
    frame: pl.DataFrame,
    what: str,
    ours: harness.Way,
    repeats: int,
    *,
    flushed: bool = True,
) -> Iterator[Figure]:
    """Compare a way to write bars with the bare one of a database, and with pandas.

    Where ours is `flushed` at its end alone, so is the bare one.
    """
    bulk = "bare executemany" if kind.server is None else "bare LOAD DATA"
    ways = {
        "bentley": ours,
        bulk: Bare(kind, sample.ready(frame), flushed=flushed).write,
        "pandas.to_sql": lambda: _pandas(kind, frame),
    }
    found = harness.alternate(ways, repeats, lambda text: kind.context.say(f"{kind.name}, {text}"))
    for peer, goal in ((bulk, GOAL), ("pandas.to_sql", None)):
        yield Figure(
            what=what,
            unit="bars/s",
            ours=frame.height / found["bentley"],
            peer_name=peer,
            peer=frame.height / found[peer],
            ratio=found[peer] / found["bentley"],
            goal=goal,
            runs=repeats,
        )


def _ours(kind: Database, frame: pl.DataFrame) -> float:
    """As the ingest stage writes: exact frames, read back for what differs, a chunk a commit."""
    with kind.warehouse() as warehouse:
        start = time.perf_counter()
        for chunk in frame.iter_slices(CHUNK):
            with warehouse.writing() as connection:
                bars.upsert(connection, chunk, batch_id=1, source=SOURCE)
        return _checked(warehouse, time.perf_counter() - start, frame.height)


def _pandas(kind: Database, frame: pl.DataFrame) -> float:
    """Append the same rows by pandas, decimals as text, a chunk a commit."""
    chunks = [chunk.to_pandas() for chunk in sample.ready(frame).iter_slices(CHUNK)]
    with kind.warehouse() as warehouse:
        start = time.perf_counter()
        for chunk in chunks:
            with warehouse.writing() as connection:
                chunk.to_sql(binance_ohlcv.name, connection, if_exists="append", index=False)
        return _checked(warehouse, time.perf_counter() - start, frame.height)


class Bare:
    """The least that the database itself needs: no comparison, no conversion, ready input."""

    def __init__(self, kind: Database, rows: pl.DataFrame, *, flushed: bool) -> None:
        self.kind = kind
        self.flushed = flushed
        self.height = rows.height
        self.names = rows.columns
        chunks = list(rows.iter_slices(CHUNK))
        self.tuples = [chunk.rows() for chunk in chunks] if kind.server is None else []
        self.files = [] if kind.server is None else [self._file(chunk) for chunk in chunks]

    def write(self) -> float:
        """Write it all into an empty table."""
        with self.kind.warehouse() as warehouse:
            quote = warehouse.engine.dialect.identifier_preparer.quote
            columns = ", ".join(quote(name) for name in self.names)
            with _driver(warehouse) as cursor:
                start = time.perf_counter()
                if self.kind.server is None:
                    self._executemany(cursor, columns)
                else:
                    self._load(cursor, columns)
                seconds = time.perf_counter() - start
            return _checked(warehouse, seconds, self.height)

    def _executemany(self, cursor: Any, columns: str) -> None:
        marks = ", ".join("?" * len(self.names))
        if not self.flushed:
            cursor.execute("PRAGMA synchronous=NORMAL")
            cursor.execute(f"PRAGMA wal_autocheckpoint={BULK_LOG_PAGES}")
        for at, tuples in enumerate(self.tuples, 1):
            if at == len(self.tuples):
                cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("BEGIN IMMEDIATE")
            cursor.executemany(f"INSERT INTO binance_ohlcv ({columns}) VALUES ({marks})", tuples)
            cursor.execute("COMMIT")
        if not self.flushed:
            cursor.execute("PRAGMA wal_checkpoint").fetchall()  # ours leaves its file whole, too

    def _load(self, cursor: Any, columns: str) -> None:
        for path in self.files:
            cursor.execute(
                f"LOAD DATA LOCAL INFILE '{path.as_posix()}' INTO TABLE binance_ohlcv "
                f"CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' ({columns})"
            )
            cursor.execute("COMMIT")

    def _file(self, chunk: pl.DataFrame) -> Path:
        path = self.kind.context.fresh("load") / "rows.csv"
        chunk.write_csv(path, include_header=False, quote_style="never")
        return path


@contextmanager
def _driver(warehouse: Warehouse) -> Iterator[Any]:
    """Reach the driver itself, with the settings that the warehouse gives its connections."""
    raw = warehouse.engine.raw_connection()
    try:
        yield raw.cursor()
    finally:
        raw.close()


def _checked(warehouse: Warehouse, seconds: float, rows: int) -> float:
    with warehouse.reading() as connection:
        stored = connection.exec_driver_sql("SELECT COUNT(*) FROM binance_ohlcv").scalar()
    if stored != rows:
        msg = f"{stored} of {rows} rows are in the table"
        raise AssertionError(msg)
    return seconds
