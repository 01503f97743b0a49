"""History from archives into the table, beside the database's own bare bulk write."""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import databases
import polars as pl
import sample
import zstandard
from databases import Database
from harness import Context, Figure
from writing import beside

from bentley.domain.bars import FIELDS
from bentley.settings import load
from bentley.sources import archive_rows
from bentley.sources.archives import Archive
from bentley.stages.backfill import backfill
from bentley.warehouse.warehouse import Warehouse

RECORDED = Path(__file__).resolve().parents[2] / "shared" / "data" / "futures_1m"
"""Month files of another market, one minute, with a header line."""


def measure(context: Context) -> Iterator[Figure]:
    """Load the same bars, zipped by month, in turn with what is beside.

    Where recorded month files lie beside the checkout, they are loaded, too.
    """
    count, repeats = (100_000, 3) if context.quick else (500_000, 5)
    place = context.fresh("archives")
    frames = {"": sample.bars(count)}
    publish(place, frames[""])
    if RECORDED.is_dir():
        frames[" recorded"] = recorded(place)
    with databases.kinds(context) as kinds:
        for kind in kinds:
            for source, frame in frames.items():
                what = f"{kind.name}: {frame.height:,}{source} bars from archives"
                symbol = frame["symbol"][0]
                turns = repeats if frame.height >= count else 3 * repeats  # short ones scatter more
                yield from beside(
                    kind,
                    frame,
                    what,
                    lambda kind=kind, symbol=symbol: _ours(kind, place, symbol),
                    turns,
                    flushed=False,
                )


def recorded(root: Path) -> pl.DataFrame:
    """Publish the recorded month files as they are, and return their bars."""
    found = []
    for packed in sorted(RECORDED.glob("*-1m-*.csv.zst")):
        symbol, _, label = packed.name.removesuffix(".csv.zst").split("-", 2)
        with packed.open("rb") as file:
            text = zstandard.ZstdDecompressor().stream_reader(file).read()
        zipped = write_archive(root, symbol, "1m", label, text)
        archive = Archive(symbol, "1m", date.fromisoformat(f"{label}-01"), monthly=True)
        found += [piece.bars for piece in archive_rows.pieces(zipped, archive)]
    return pl.concat(found)


def _ours(kind: Database, place: Path, symbol: str) -> float:
    url = None if kind.server is None else kind.server.database()
    settings = load(
        home=kind.context.fresh("warehouse"),
        warehouse_url=url,
        archive=str(place),
        symbols=(symbol,),
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
    month = pl.from_epoch("open_time", time_unit="ms").dt.strftime("%Y-%m").alias("month")
    for (label,), rows in frame.with_columns(month).group_by("month", maintain_order=True):
        text = (
            rows.select(FIELDS[2:]).with_columns(ignore=pl.lit(0)).write_csv(include_header=False)
        )
        write_archive(root, symbol, interval, label, text.encode())


def write_archive(root: Path, symbol: str, interval: str, label: str, text: bytes) -> Path:
    """Write one month as the exchange does."""
    folder = root / f"data/spot/monthly/klines/{symbol}/{interval}"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{symbol}-{interval}-{label}.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as opened:
        opened.writestr(f"{file.stem}.csv", text)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_name(f"{file.name}.CHECKSUM").write_text(f"{digest}  {file.name}\n")
    return file
