"""Changes rows on their way out, for tests of late corrections and of rows that are wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bentley.domain.errors import ConfigurationError
from bentley.services.exchange.market import CELLS, CLOSE_TIME, OPEN_TIME, Row

_KNOWN = {"symbol", "interval", "open_time", "cells", "duplicates", "missing"}


class _Change(NamedTuple):
    cells: dict[str, Any]
    duplicates: tuple[dict[str, Any], ...]
    missing: bool


class Tampering:
    """Replaced cells, duplicates and withheld rows by symbol, interval and open time.

    A change shows once the row has closed: a candle that forms is served as it was.
    """

    def __init__(self) -> None:
        self._changes: dict[tuple[str, str, int], _Change] = {}

    def add(self, specifications: Iterable[Mapping[str, Any]]) -> None:
        """Take changes; the later one for a row holds. ConfigurationError names what is wrong.

        Each has `symbol`, `interval`, `open_time` (UTC milliseconds), and of `cells` (values
        by column name), `duplicates` (a list of the like, each a further row) and `missing`
        (true: the row is withheld).
        """
        self._changes |= dict(_read(given) for given in specifications)

    def clear(self) -> None:
        """Serve every row as it is again."""
        self._changes = {}

    def listed(self) -> list[dict[str, Any]]:
        """Every change in force."""
        return [
            {"symbol": symbol, "interval": interval, "open_time": at, **change._asdict()}
            for (symbol, interval, at), change in self._changes.items()
        ]

    def apply(self, symbol: str, interval: str, rows: list[Row], limit: int, now: int) -> list[Row]:
        """`rows` with the changes, `limit` at the most."""
        if not self._changes:
            return rows
        changed: list[Row] = []
        for row in rows:
            change = self._changes.get((symbol, interval, row[OPEN_TIME]))
            if change is None or row[CLOSE_TIME] >= now:
                changed.append(row)
                continue
            if not change.missing:
                changed.append(_replaced(row, change.cells))
            changed += [_replaced(row, cells) for cells in change.duplicates]
        return changed[:limit]


def _replaced(row: Row, cells: Mapping[str, Any]) -> Row:
    return tuple(cells.get(name, cell) for name, cell in zip(CELLS, row, strict=True))


def _read(given: Mapping[str, Any]) -> tuple[tuple[str, str, int], _Change]:
    if not isinstance(given, Mapping) or set(given) - _KNOWN:
        msg = f"a changed row is an object with {', '.join(sorted(_KNOWN))}, not {given!r}"
        raise ConfigurationError(msg)
    symbol, interval, at = (given.get(name) for name in ("symbol", "interval", "open_time"))
    if not (isinstance(symbol, str) and isinstance(interval, str) and isinstance(at, int)):
        msg = f"a changed row needs symbol, interval and open_time (milliseconds): {given!r}"
        raise ConfigurationError(msg)
    cells = _cells(given.get("cells", {}))
    duplicates = given.get("duplicates", [])
    if not isinstance(duplicates, list):
        msg = f"duplicates is a list of cells by column name, not {duplicates!r}"
        raise ConfigurationError(msg)
    change = _Change(cells, tuple(map(_cells, duplicates)), bool(given.get("missing", False)))
    return (symbol, interval, at), change


def _cells(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping) or (unknown := sorted(set(given) - set(CELLS))):
        wrong = given if not isinstance(given, Mapping) else ", ".join(unknown)
        msg = f"cells are values by column name ({', '.join(CELLS)}), not {wrong!r}"
        raise ConfigurationError(msg)
    return dict(given)
