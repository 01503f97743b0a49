"""Rows that no table may hold: kept as they came, with their reason, once each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain.clock import in_ms
from bentley.domain.errors import DataError
from bentley.warehouse.ledger import INGEST, PROCESS, now_ms
from bentley.warehouse.schema import binance_ohlcv, knime_processed, quarantine

FORGIVEN = 10
"""So many bad rows pass whatever their share, where any may pass."""

_TABLES = {INGEST: binance_ohlcv, PROCESS: knime_processed}
_LONGEST_REASON = 2_000
_KEYS_AT_ONCE = 5_000
"""SQLite takes some 32,000 parameters in one statement."""


def put(connection: Connection, rejected: pl.DataFrame, *, batch_id: int, stage: str) -> None:
    """Keep rows that have a `reason`; one seen before stays with the batch that found it first."""
    rows = {}
    for row in rejected.to_dicts():
        reason = row.pop("reason")
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
            "found_at": now_ms(),
        }
    c = quarantine.c.fingerprint
    fingerprints = list(rows)
    for at in range(0, len(fingerprints), _KEYS_AT_ONCE):
        piece = fingerprints[at : at + _KEYS_AT_ONCE]
        known = set(connection.scalars(sa.select(c).where(c.in_(piece))))
        new = [rows[fingerprint] for fingerprint in piece if fingerprint not in known]
        if new:
            connection.execute(quarantine.insert(), new)


def excess(rejected: int, read: int, share: float, *, first: str) -> DataError | None:
    """Return the error where more rows are bad than leaves the rest to be trusted, or None.

    A few bad rows never fail a batch by their share, for an hourly run reads only a few rows;
    a share of 0 lets none pass.
    """
    if rejected <= (max(FORGIVEN, share * read) if share else 0):
        return None
    msg = (
        f"{rejected} of {read} rows are bad (the first: {first}), more than the share of "
        f"{share:g} that BENTLEY_MAX_REJECTED_SHARE allows; see the table {quarantine.name}"
    )
    return DataError(msg, rejected=rejected, read=read)


@dataclass(frozen=True)
class Reject:
    """A row that was refused: its key as text, its reason, and its cells as they came.

    `stands` says that no good row has taken its key since; None where keys are not compared.
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
    stands = sa.case(*((c.stage == stage, ~_taken(table)) for stage, table in _TABLES.items()))
    rows = connection.execute(
        sa.select(quarantine, stands.label("stands"))
        .where(*which)
        .order_by(c.found_at.desc(), c.batch_id.desc(), c.symbol, c.interval, c.open_time)
        .limit(limit)
    )
    named = [field.name for field in fields(Reject)]
    found = []
    for row in rows:
        values = {name: getattr(row, name) for name in named}
        values |= {
            "content": json.loads(row.content),
            "stands": None if row.stands is None else bool(row.stands),
        }
        found.append(Reject(**values))
    return count or 0, found


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
