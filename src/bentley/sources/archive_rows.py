"""What is in an archive of klines: its bars and its rejects, piece by piece.

A line as the exchange writes it is read straight into numbers. Any other goes the way of every
row, cell by cell, which tells what is wrong with it; what both take they read alike.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple, cast

import polars as pl

from bentley.domain import bars as domain_bars
from bentley.domain.bars import BEYOND, DECIMAL, DECIMALS, FIELDS, INTEGERS, PRECISION, SCALE
from bentley.domain.errors import DataError
from bentley.sources.archives import Archive

BLOCK_BYTES = 1 << 21
"""So much of an archive's text is read at once: ten to fifteen days of minutes."""

_CELLS = (*FIELDS[2:], "ignore")

_PLAIN_CELLS = {
    **dict.fromkeys(INTEGERS, "[0-9]{1,18}"),
    **dict.fromkeys(("open_time", "close_time"), "[1-9][0-9]{12}(?:[0-9]{3})?"),
    **dict.fromkeys(DECIMALS, rf"[0-9]{{1,{PRECISION - SCALE}}}(?:\.[0-9]{{1,{SCALE}}})?"),
    "ignore": r"[0-9.]*\r?",
}
_PLAIN_LINE = f"^{','.join(_PLAIN_CELLS[name] for name in _CELLS)}$"
_PLAIN_TYPES = {
    name: DECIMAL if name in DECIMALS else pl.Int64 if name in INTEGERS else pl.String
    for name in _CELLS
}
_EPOCH = "^(?:[0-9]{13}|[0-9]{16}|[0-9]{19})$"
_LAST_MS = 10**13 - 1
_NO_CELL = b"\x1f"


class Piece(NamedTuple):
    """A part of an archive: what its `read` rows hold. Nothing follows the `last` one."""

    bars: pl.DataFrame
    """In BAR_SCHEMA."""
    rejected: pl.DataFrame
    """In RAW_SCHEMA with a `reason` behind; rows of a wrong shape, too, some with BEYOND."""
    read: int
    last: bool


def pieces(file: Path, archive: Archive, *, sizes: Iterator[int] | None = None) -> Iterator[Piece]:
    """Read an archive as a stream, in pieces of `sizes` (BLOCK_BYTES each) bytes of text.

    A header line is left out. What ends within an archive is closed, whatever any clock says; a
    week that reaches beyond its month is not, for it may have been published before. Raises DataError for a file that is no such archive.
    """
    sizes = sizes or repeat(BLOCK_BYTES)
    try:
        with zipfile.ZipFile(file) as opened:
            (name,) = opened.namelist()
            length = opened.getinfo(name).file_size
            with opened.open(name) as stream:
                for block, last in _blocks(cast("zipfile.ZipExtFile", stream), length, sizes):
                    yield _piece(block, archive, last=last)
    except (
        zipfile.BadZipFile,
        zlib.error,
        pl.exceptions.PolarsError,
        NotImplementedError,
        ValueError,
        EOFError,
    ) as error:
        msg = f"{file} is not a zip of one CSV file: {error}"
        raise DataError(msg) from error


def _blocks(
    stream: zipfile.ZipExtFile, length: int, sizes: Iterator[int]
) -> Iterator[tuple[bytes, bool]]:
    """Cut a file into blocks of whole lines, and say of each whether it is the last.

    What is left of its `length` is cut evenly, into as few blocks as `sizes` allow.
    """
    rest = b""
    first = True
    while block := stream.read(_even(length, next(sizes))):
        length -= len(block)
        if first and block[:9].lower() == b"open_time":
            block = block[block.index(b"\n") + 1 :]
        first = False
        last = not stream.peek(1)
        if last and not block.endswith(b"\n"):
            block += b"\n"
        whole, _, rest = (rest + block).rpartition(b"\n")
        if whole.strip():
            yield whole, last


def _even(length: int, size: int) -> int:
    blocks = max(1, math.ceil(length / size))
    return max(1, math.ceil(length / blocks))


def _piece(block: bytes, archive: Archive, *, last: bool) -> Piece:
    bars = _plain(block, archive)
    if bars is None:
        return _told(block, archive, last=last)
    return Piece(bars, domain_bars.NO_REJECTS, bars.height, last)


def _plain(block: bytes, archive: Archive) -> pl.DataFrame | None:
    """The bars of lines that are all as the exchange writes them and hold nothing wrong; else None.

    To read a line as one cell and hold it against one pattern takes a quarter of what it takes to
    make twelve texts of it and look at each.
    """
    if _NO_CELL in block:
        return None
    lines = _csv(block, {"line": pl.String}, separator=_NO_CELL.decode())
    plain = pl.col("line").str.contains(_PLAIN_LINE).fill_null(value=False)
    if not lines.select(plain.all()).item():
        return None
    read = _csv(block, _PLAIN_TYPES)
    if read.height != lines.height:
        return None
    opened = pl.col("open_time")
    times = (_as_ms(name) for name in ("open_time", "close_time"))
    found = read.with_columns(
        *times, symbol=pl.lit(archive.symbol), interval=pl.lit(archive.interval)
    )
    inside = opened.is_between(archive.start, archive.end - 1)
    if not found.select(inside.all()).item():
        return None
    return domain_bars.sound(found, now=archive.end)


def _as_ms(name: str) -> pl.Expr:
    time = pl.col(name)
    return pl.when(time > _LAST_MS).then(time // 1000).otherwise(time)


def _told(block: bytes, archive: Archive, *, last: bool) -> Piece:
    """Tell bars from what is none, and why."""
    good, bad = _cells(block, archive)
    sifted = domain_bars.sift(good, now=archive.end)
    rejected = pl.concat([sifted.rejected, bad], how="diagonal")
    return Piece(sifted.bars, rejected, good.height + bad.height, last)


def _cells(block: bytes, archive: Archive) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cut lines into cells: rows in RAW_SCHEMA, and those of a wrong shape with a `reason`."""
    texts = block.decode("utf-8", errors="replace").split("\n")
    lines = pl.Series(
        "line", [text.removesuffix("\r") for text in texts if text not in {"", "\r"}], pl.String
    )
    names = [*_CELLS, BEYOND]
    cut = lines.str.splitn(",", len(names)).struct.rename_fields(names).struct.unnest()
    series = {"symbol": pl.lit(archive.symbol), "interval": pl.lit(archive.interval)}
    found = cut.with_columns(pl.when(pl.all() != "").then(pl.all()).name.keep(), **series)
    # the first 13 digits are milliseconds, whatever follows them
    opened = pl.col("open_time").str.slice(0, 13).cast(pl.Int64, strict=False)
    beyond = pl.col(BEYOND)
    moment = pl.from_epoch(opened, "ms").dt.strftime(" (%Y-%m-%dT%H:%M:%SZ)")
    reason = pl.coalesce(
        pl.when(beyond.str.contains("[^,]")).then(
            pl.format("the line has more than 12 cells; behind them {}", beyond.str.slice(0, 99))
        ),
        pl.when(~opened.is_between(archive.start, archive.end - 1)).then(
            pl.format(
                f"open_time {{}}{{}} lies outside the archive {archive.label}",
                "open_time",
                pl.when(pl.col("open_time").str.contains(_EPOCH))
                .then(moment)
                .otherwise(pl.lit("")),
            )
        ),
    )
    marked = found.with_columns(reason=reason).select(*FIELDS, "reason", BEYOND)
    sound = marked["reason"].is_null()
    good, bad = marked.filter(sound).select(FIELDS), marked.filter(~sound)
    return good, bad if bad[BEYOND].count() else bad.drop(BEYOND)


def _csv(
    block: bytes, schema: Mapping[str, type[pl.DataType] | pl.DataType], **form: Any
) -> pl.DataFrame:
    file = io.BytesIO(block)
    return pl.read_csv(
        file, has_header=False, schema=schema, quote_char=None, encoding="utf8-lossy", **form
    )
