"""A market of recorded klines: a folder of files, read when first asked for."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np

from bentley.domain import intervals as grid
from bentley.domain.errors import ConfigurationError
from bentley.services.exchange import table
from bentley.services.exchange.forming import as_seen
from bentley.services.exchange.market import CLOSE_TIME, Row
from bentley.services.exchange.table import Table

_FILE = re.compile(r"([A-Z0-9]+)-(\d+[smhdw])(?:-\d{4}-\d{2}(?:-\d{2})?)?\.csv(?:\.zst)?")
_DAY = 86_400_000
_QUIET = 2
"""Steps without a bar after which a symbol counts as ended (a day at the least)."""


class _Series(NamedTuple):
    """One symbol's rows of one interval, as `forming` reads them."""

    table: Table
    step: int

    def between(self, start: int, end: int) -> list[Row]:
        first, last = np.searchsorted(self.table.open_times, [start, end])
        return self.table.rows(int(first), int(last))

    def covers(self, start: int, end: int) -> bool:
        opened = self.table.open_times
        return bool(opened[0] <= start and opened[-1] + self.step > end)

    def opened(self, start: int, end: int) -> bool:
        first = int(np.searchsorted(self.table.open_times, start))
        return int(np.searchsorted(self.table.open_times, end, side="right")) > first


class RecordedMarket:
    """Serves a folder of `SYMBOL-INTERVAL.csv[.zst]`, or of monthly or daily parts of these.

    Twelve columns, with or without a header, times in milli- or microseconds. `symbols`
    restricts it to the named. ConfigurationError names the folder, or the file and line.
    """

    def __init__(self, folder: Path, symbols: Collection[str] | None = None) -> None:
        self.folder = Path(folder)
        self._files = _scan(self.folder, symbols)
        self._tables: dict[tuple[str, str], Table] = {}
        self._lock = Lock()

    @property
    def origin(self) -> str:
        """`replay:` and the folder's name."""
        return f"replay:{self.folder.resolve().name}"

    def symbols(self) -> tuple[str, ...]:
        """Every symbol that has a file, in alphabetical order."""
        return tuple(sorted({symbol for symbol, _ in self._files}))

    def intervals(self, symbol: str) -> tuple[str, ...]:
        """The intervals recorded for `symbol`, the shortest first."""
        return tuple(name for name in grid.MILLIS if (symbol, name) in self._files)

    def trading(self, symbol: str, now: int) -> bool:
        """Whether a bar opened in the last day before `now`, or the last two steps if longer.

        A symbol whose first bar is still to come is not listed yet.
        """
        for interval in self.intervals(symbol):
            opened = self._table(symbol, interval).open_times
            place = int(np.searchsorted(opened, now, side="right"))
            quiet = max(_DAY, _QUIET * grid.millis(interval))
            if place and now - int(opened[place - 1]) < quiet:
                return True
        return False

    def klines(  # noqa: PLR0917 as Market has it
        self,
        symbol: str,
        interval: str,
        start: int | None,
        end: int | None,
        limit: int,
        now: int,
    ) -> list[Row]:
        """Rows with start <= open_time <= end, to the character, as seen at `now`."""
        rows = self._table(symbol, interval)
        until = now if end is None else min(now, end)
        last = int(np.searchsorted(rows.open_times, until, side="right"))
        if start is None:
            first = max(0, last - limit)
        else:
            first = int(np.searchsorted(rows.open_times, start))
            last = min(last, first + limit)
        return [
            seen
            for row in rows.rows(first, last)
            if (seen := row if row[CLOSE_TIME] < now else self._forming(symbol, interval, row, now))
        ]

    def last_close(
        self, symbols: Collection[str] | None = None, intervals: Sequence[str] | None = None
    ) -> int:
        """The last close time recorded, in UTC milliseconds; reads the files that it covers."""
        chosen = [
            (symbol, interval)
            for symbol, interval in self._files
            if (symbols is None or symbol in symbols)
            and (intervals is None or interval in intervals)
        ]
        if not chosen:
            msg = f"{self.folder} holds no klines of {symbols or 'any symbol'} at {intervals}"
            raise ConfigurationError(msg)
        return max(int(self._table(*key).close_times.max()) for key in chosen)

    def first_open(self, symbols: Collection[str], intervals: Sequence[str]) -> int:
        """The first open time recorded of the named, in UTC milliseconds."""
        return min(
            int(self._table(*key).open_times[0])
            for key in self._files
            if key[0] in symbols and key[1] in intervals
        )

    def fingerprint(self, symbol: str, interval: str, rows: int | None = None) -> tuple[int, str]:
        """The number of all rows, or of the first `rows` if there are so many, and their digest."""
        table = self._table(symbol, interval)
        count = len(table.starts) if rows is None else min(rows, len(table.starts))
        text = table.data[table.starts[0] : table.ends[count - 1]]
        return count, blake2b(text, digest_size=16).hexdigest()

    def _forming(self, symbol: str, interval: str, row: Row, now: int) -> Row | None:
        step = grid.millis(interval)
        finer = [
            _Series(self._table(symbol, name), grid.millis(name))
            for name in reversed(self.intervals(symbol))
            if grid.millis(name) < step
        ]
        return as_seen(row, step, finer, now)

    def _table(self, symbol: str, interval: str) -> Table:
        key = (symbol, interval)
        with self._lock:
            if key not in self._tables:
                parts = [(path, table.load(path)) for path in self._files[key]]
                self._tables[key] = table.joined(parts)
            return self._tables[key]


def _scan(folder: Path, symbols: Collection[str] | None) -> dict[tuple[str, str], list[Path]]:
    if not folder.is_dir():
        msg = f"{folder} is not a folder; name one that holds SYMBOL-INTERVAL.csv[.zst] files"
        raise ConfigurationError(msg)
    files: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match and match[2] in grid.MILLIS:
            files.setdefault((match[1], match[2]), []).append(path)
    if not files:
        msg = f"{folder} holds no recorded klines: no file is named like BTCUSDT-1h.csv[.zst]"
        raise ConfigurationError(msg)
    if symbols is not None:
        known = {symbol for symbol, _ in files}
        if missing := sorted(set(symbols) - known):
            msg = f"{folder} holds no klines of {', '.join(missing)}; it has {sorted(known)}"
            raise ConfigurationError(msg)
        files = {key: paths for key, paths in files.items() if key[0] in symbols}
    for paths in files.values():
        for path in paths:
            table.check_head(path)
    return files
