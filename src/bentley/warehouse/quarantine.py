"""Rows that no table may hold: kept as they came, with their reason, once each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain.bars import BEYOND
from bentley.domain.clock import in_ms
from bentley.domain.errors import DataError
from bentley.warehouse.ledger import INGEST, PROCESS, now_ms
from bentley.warehouse.schema import binance_ohlcv, knime_processed, quarantine

FORGIVEN = 10
"""So many bad rows pass whatever their share, where any may pass."""

_TABLES = {INGEST: binance_ohlcv, PROCESS: knime_processed}
_LONGEST_REASON = 2_000
_LONGEST_NAMED = 300

NAMED = 5
"""So many rejects a report names."""

Brief = dict[str, str | None]
"""A reject's key and its reason, for a report."""

_KEYS_AT_ONCE = 5_000
"""SQLite takes some 32,000 parameters in one statement."""


def put(
    connection: Connection, rejected: pl.DataFrame, *, batch_id: int, stage: str
) -> list[Brief]:
    """Keep rows that have a `reason`; one seen before stays with the batch that found it first.

    Returns the first of them, seen before or not.
    """
    rows: dict[str, dict[str, Any]] = {}
    found_at = now_ms()
    for row in rejected.to_dicts():
        reason = row.pop("reason")
        if row.get(BEYOND) is None:
            row.pop(BEYOND, None)
        content = json.dumps(row, sort_keys=True, default=str)
        fingerprint = hashlib.sha256(f"{stage}\n{reason}\n{content}".encode()).hexdigest()
        rows[fingerprint] = {
            "fingerprint": fingerprint,
            "batch_id": batch_id,
            "stage": stage,
            "symbol": _label(row.get("symbol", row.get("ticker"))),
            "interval": _label(row.get("interval")),
            "open_time": _label(in_ms(row.get("open_time", row.get("session")))),
            "reason": reason[:_LONGEST_REASON],
            "content": content,
            "found_at": found_at,
        }
    c = quarantine.c.fingerprint
    fingerprints = list(rows)
    for at in range(0, len(fingerprints), _KEYS_AT_ONCE):
        piece = fingerprints[at : at + _KEYS_AT_ONCE]
        known = set(connection.scalars(sa.select(c).where(c.in_(piece))))
        new = [rows[fingerprint] for fingerprint in piece if fingerprint not in known]
        if new:
            connection.execute(quarantine.insert(), new)
    return [_brief(row) for row in islice(rows.values(), NAMED)]


def _brief(row: Mapping[str, Any]) -> Brief:
    named = {name: row[name] for name in ("symbol", "interval", "open_time")}
    return {**named, "reason": row["reason"][:_LONGEST_NAMED]}


def excess(
    rejected: int, read: int, share: float, *, named: Sequence[Brief], kept: bool = True
) -> DataError | None:
    """Return the error where more rows are bad than leaves the rest to be trusted, or None.

    It tells the first that is `named`, and where to find all if they are `kept`. A few bad rows
    never fail a batch by their share, for an hourly run reads only a few rows; a share of 0 lets
    none pass.
    """
    if rejected <= (max(FORGIVEN, share * read) if share else 0):
        return None
    first = f" (the first: {named[0]['reason']})" if named else ""
    msg = (
        f"{rejected} of {read} rows are bad{first}, more than the share of {share:g} that "
        "BENTLEY_MAX_REJECTED_SHARE allows"
    )
    if kept:
        msg += "; `bentley data rejected` lists them"
    return DataError(msg, rejected=rejected, read=read)


@dataclass(frozen=True)
class Reject:
    """A row that was refused: its key as text, its reason, and its cells as they came.

    `stands` says that the table has no good row of its key; None where keys are not compared.
    """

    batch_id: int
    stage: str
    symbol: str | None
    interval: str | None
    open_time: str | None
    reason: str
    content: Mapping[str, Any]
    found_at: int
    stands: bool | None


def newest(
    connection: Connection,
    *,
    symbols: Sequence[str] = (),
    intervals: Sequence[str] = (),
    batch_id: int | None = None,
    limit: int,
) -> tuple[int, list[Reject]]:
    """Count the rejects, of some symbols, intervals and one batch if given, and list the newest."""
    c = quarantine.c
    which = [
        *([c.symbol.in_(symbols)] if symbols else []),
        *([c.interval.in_(intervals)] if intervals else []),
        *([c.batch_id == batch_id] if batch_id is not None else []),
    ]
    count = connection.scalar(sa.select(sa.func.count()).select_from(quarantine).where(*which))
    # Only these few are looked up in the tables, and their long cells need not be sorted.
    order = (c.found_at.desc(), c.batch_id.desc(), c.symbol, c.interval, c.open_time)
    keys = connection.scalars(
        sa.select(c.fingerprint).where(*which).order_by(*order, c.fingerprint).limit(limit)
    ).all()
    stands = sa.case(*((c.stage == stage, ~_taken(table)) for stage, table in _TABLES.items()))
    rows = connection.execute(
        sa.select(quarantine, stands.label("stands")).where(c.fingerprint.in_(keys))
    )
    found = {row.fingerprint: _reject(row) for row in rows}
    return count or 0, [found[key] for key in keys]


def _reject(row: sa.Row[Any]) -> Reject:
    values = {field.name: getattr(row, field.name) for field in fields(Reject)}
    stands = None if row.stands is None else bool(row.stands)
    return Reject(**values | {"content": json.loads(row.content), "stands": stands})


def _taken(table: sa.Table) -> sa.Exists:
    c = quarantine.c
    return sa.exists().where(
        table.c.symbol == c.symbol,
        table.c.interval == c.interval,
        table.c.open_time == sa.cast(c.open_time, sa.BigInteger),
    )


def standing(connection: Connection, symbol: str, interval: str) -> int:
    """Count the keys of a series that were refused and that no good row has taken since."""
    c = quarantine.c
    found = 0
    for stage, table in _TABLES.items():
        keys = sa.select(sa.func.count(c.open_time.distinct())).where(
            c.stage == stage, c.symbol == symbol, c.interval == interval, ~_taken(table)
        )
        found += connection.scalar(keys) or 0
    return found


def _label(value: object) -> str | None:
    return None if value is None else str(value)[:190]
