"""Reads one recorded file of klines, keeping every cell as the text that it was.

The file's own bytes stay in memory with an index over them: the cells are cut out of them
only when they are served, so nothing can be rounded on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zstandard

from bentley.domain.errors import ConfigurationError
from bentley.services.exchange.market import CELLS, Row

_COLUMNS: tuple[frozenset[str], ...] = (
    frozenset({"open_time"}),
    frozenset({"open"}),
    frozenset({"high"}),
    frozenset({"low"}),
    frozenset({"close"}),
    frozenset({"volume"}),
    frozenset({"close_time"}),
    frozenset({"quote_volume", "quote_asset_volume"}),
    frozenset({"trades", "count", "number_of_trades"}),
    frozenset({"taker_buy_base", "taker_buy_base_volume", "taker_buy_volume"}),
    frozenset({"taker_buy_quote", "taker_buy_quote_volume"}),
    frozenset({"ignore"}),
)
"""The names that each of the twelve columns goes by, in the exchange's order."""

_COMMAS = len(CELLS) - 1
_MS_DIGITS = 13
_TIME_DIGITS = (_MS_DIGITS, 16)
_NINE = 9
_NEWLINE = ord("\n")
_PIECE = 1 << 23
_HEAD_BYTES = 4096

Times = npt.NDArray[np.int64]


class Table(NamedTuple):
    """Rows as bytes, with the place, open time and close time (UTC milliseconds) of each."""

    data: bytes
    starts: Times
    ends: Times
    open_times: Times
    close_times: Times

    def rows(self, first: int, last: int) -> list[Row]:
        """Rows first <= i < last; microseconds are cut to milliseconds."""
        if first >= last:
            return []
        text = self.data[self.starts[first] : self.ends[last - 1]].decode("ascii")
        opened = self.open_times[first:last].tolist()
        closed = self.close_times[first:last].tolist()
        rows: list[Row] = []
        for line, open_time, close_time in zip(text.split("\n"), opened, closed, strict=True):
            cells: list[Any] = line.split(",")
            cells[0], cells[6] = open_time, close_time
            if cells[8].isdigit():
                cells[8] = int(cells[8])
            rows.append(tuple(cells))
        return rows


def check_head(path: Path) -> None:
    """Check the file's first line without reading further; ConfigurationError names the file."""
    try:
        with path.open("rb") as file:
            if path.suffix == ".zst":
                with zstandard.ZstdDecompressor().stream_reader(file) as stream:
                    head = stream.read(_HEAD_BYTES)
            else:
                head = file.read(_HEAD_BYTES)
    except (OSError, zstandard.ZstdError) as error:
        raise _unreadable(path, error) from error
    line, _, _ = head.removeprefix(b"\xef\xbb\xbf").partition(b"\n")
    if not line.strip():
        raise _fault(path, 1, "the file is empty; it needs rows of 12 columns")
    _check_header(path, line.strip())


def load(path: Path) -> Table:
    """Read a `.csv` or `.csv.zst`; ConfigurationError names the file and the line at fault."""
    data = _read(path).removeprefix(b"\xef\xbb\xbf")
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if not data.isascii():
        line = next(i for i, text in enumerate(data.split(b"\n"), 1) if not text.isascii())
        raise _fault(path, line, "a cell holds characters that are not ASCII")
    begin, end = 0, len(data)
    while end and data[end - 1] == _NEWLINE:
        end -= 1
    head_end = data.find(b"\n") if b"\n" in data else len(data)
    header = _check_header(path, data[:head_end])
    if header:
        begin = head_end + 1
    if begin >= end:
        raise _fault(path, 1 + header, "the file holds no rows")
    return _indexed(path, data, begin, end, header)


def joined(parts: Sequence[tuple[Path, Table]]) -> Table:
    """One table of several files in order; ConfigurationError where a file goes back in time."""
    for (_, before), (path, after) in pairwise(parts):
        if after.open_times[0] <= before.open_times[-1]:
            reason = f"open_time {after.open_times[0]} does not follow {before.open_times[-1]}"
            raise _fault(path, 1, f"{reason} of the file before it; keep one file per time")
    tables = [table for _, table in parts]
    if len(tables) == 1:
        return tables[0]
    texts = [table.data[table.starts[0] : table.ends[-1]] for table in tables]
    moved = np.cumsum([0, *(len(text) + 1 for text in texts[:-1])])
    moved -= [int(table.starts[0]) for table in tables]
    return Table(
        b"\n".join(texts),
        np.concatenate([table.starts + by for table, by in zip(tables, moved, strict=True)]),
        np.concatenate([table.ends + by for table, by in zip(tables, moved, strict=True)]),
        np.concatenate([table.open_times for table in tables]),
        np.concatenate([table.close_times for table in tables]),
    )


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        if path.suffix == ".zst":
            with zstandard.ZstdDecompressor().stream_reader(data) as stream:
                return stream.read()
    except (OSError, zstandard.ZstdError) as error:
        raise _unreadable(path, error) from error
    return data


def _check_header(path: Path, line: bytes) -> bool:
    """Whether `line` is a header, after checking its columns."""
    names = [name.strip() for name in line.decode("ascii", "replace").split(",")]
    if len(names) != len(_COLUMNS):
        raise _fault(path, 1, f"{len(names)} columns instead of the {len(_COLUMNS)} of a kline")
    if names[0].isdigit():
        return False
    for number, (name, known) in enumerate(zip(names, _COLUMNS, strict=True), 1):
        if name.lower() not in known:
            expected = " or ".join(sorted(known))
            raise _fault(path, 1, f"column {number} is {name!r}, not {expected}")
    return True


def _indexed(path: Path, data: bytes, begin: int, end: int, skipped: int) -> Table:
    """Index data[begin:end] piece by piece, so that the memory needed besides it stays small."""
    pieces: list[Table] = []
    line = skipped + 1
    while begin < end:
        cut = data.find(b"\n", begin + _PIECE, end)
        until = end if cut < 0 else cut
        pieces.append(_piece(path, data, begin, until, line))
        line += len(pieces[-1].starts)
        begin = until + 1
    columns = zip(*(piece[1:] for piece in pieces), strict=True)
    table = Table(data, *(np.concatenate(column) for column in columns))
    if (wrong := np.flatnonzero(np.diff(table.open_times) <= 0)).size:
        row = int(wrong[0]) + 1
        reason = f"open_time {table.open_times[row]} does not follow {table.open_times[row - 1]}"
        raise _fault(path, row + skipped + 1, f"{reason}; rows must be in order, each once")
    return table


def _piece(path: Path, data: bytes, begin: int, end: int, line: int) -> Table:
    """The rows in data[begin:end], the first of which stands in `line` of the file."""
    buffer = np.frombuffer(data, dtype=np.uint8, count=end - begin, offset=begin)
    breaks = np.flatnonzero(buffer == _NEWLINE)
    starts = np.concatenate([[0], breaks + 1]).astype(np.int64)
    ends = np.concatenate([breaks, [len(buffer)]]).astype(np.int64)
    commas = np.flatnonzero(buffer == ord(","))
    first = np.searchsorted(commas, starts)
    counts = np.searchsorted(commas, ends) - first
    if (wrong := np.flatnonzero(counts != _COMMAS)).size:
        row = int(wrong[0])
        raise _fault(path, row + line, f"{counts[row] + 1} cells instead of {len(CELLS)}")
    cells = (
        ("open_time", starts, commas[first]),
        ("close_time", commas[first + 5] + 1, commas[first + 6]),
    )
    times: list[Times] = []
    for name, left, right in cells:
        read, legible = _times(buffer, left, right)
        if not legible.all():
            row = int(np.flatnonzero(~legible)[0])
            cell = buffer[left[row] : right[row]].tobytes().decode("ascii")
            reason = f"{name} {cell!r} is not epoch milliseconds or microseconds"
            raise _fault(path, row + line, reason)
        times.append(read)
    return Table(data, starts + begin, ends + begin, *times)


def _times(
    buffer: npt.NDArray[np.uint8], starts: Times, ends: Times
) -> tuple[Times, npt.NDArray[np.bool_]]:
    """The cells' first 13 digits as numbers, and which of them are times at all."""
    legible = np.isin(ends - starts, _TIME_DIGITS)
    times = np.zeros(len(starts), dtype=np.int64)
    for place in range(_MS_DIGITS):
        digits = buffer[np.where(legible, starts + place, 0)] - np.uint8(ord("0"))
        legible &= digits <= _NINE
        times = times * 10 + digits
    return times, legible


def _fault(path: Path, line: int, reason: str) -> ConfigurationError:
    return ConfigurationError(f"{path}, line {line}: {reason}")


def _unreadable(path: Path, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"{path} cannot be read: {error}")
