"""History from archives into the table, beside the database's own bare bulk write."""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import databases
import polars as pl
import sample
from databases import Database
from harness import Context, Figure
from writing import beside

from bentley.domain.bars import FIELDS
from bentley.settings import load
from bentley.stages.backfill import backfill
from bentley.warehouse.warehouse import Warehouse


def measure(context: Context) -> Iterator[Figure]:
    """Load the same bars, zipped by month, in turn with what is beside."""
    count, repeats = (100_000, 3) if context.quick else (500_000, 5)
    frame = sample.bars(count)
    place = context.fresh("archives")
    publish(place, frame)
    with databases.kinds(context) as kinds:
        for kind in kinds:
            what = f"{kind.name}: {count:,} bars from archives"
            yield from beside(kind, frame, what, lambda kind=kind: _ours(kind, place), repeats)


def _ours(kind: Database, place: Path) -> float:
    url = None if kind.server is None else kind.server.database()
    settings = load(
        home=kind.context.fresh("warehouse"),
        warehouse_url=url,
        archive=str(place),
        symbols=("BTCUSDT",),
        intervals=(sample.INTERVAL,),
    )
    Warehouse.open(settings).close()  # an empty table, as beside it
    start = time.perf_counter()
    report = backfill(settings)
    seconds = time.perf_counter() - start
    if report.failures or report.rows_rejected:
        raise AssertionError(report)
    return seconds


def publish(root: Path, frame: pl.DataFrame) -> None:
    """Write bars as the exchange publishes them: a zip a month, with its checksum."""
    symbol, interval = frame["symbol"][0], frame["interval"][0]
    folder = root / f"data/spot/monthly/klines/{symbol}/{interval}"
    folder.mkdir(parents=True)
    month = pl.from_epoch("open_time", time_unit="ms").dt.strftime("%Y-%m").alias("month")
    for (label,), rows in frame.with_columns(month).group_by("month", maintain_order=True):
        text = (
            rows.select(FIELDS[2:]).with_columns(ignore=pl.lit(0)).write_csv(include_header=False)
        )
        file = folder / f"{symbol}-{interval}-{label}.zip"
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
            opened.writestr(f"{file.stem}.csv", text)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        file.with_name(f"{file.name}.CHECKSUM").write_text(f"{digest}  {file.name}\n")
