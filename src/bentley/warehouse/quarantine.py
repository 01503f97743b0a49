"""Rows that no table may hold: kept as they came, with their reason, once each."""

from __future__ import annotations

import hashlib
import json

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain.errors import DataError
from bentley.warehouse.ledger import INGEST, PROCESS, now_ms
from bentley.warehouse.schema import binance_ohlcv, knime_processed, quarantine

FORGIVEN = 10
"""So many bad rows pass whatever their share, where any may pass."""

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
            "open_time": _label(row.get("open_time", row.get("session"))),
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


def standing(connection: Connection, symbol: str, interval: str) -> int:
    """Count the keys of a series that were refused and that no good row has taken since."""
    c = quarantine.c
    found = 0
    for stage, table in ((INGEST, binance_ohlcv), (PROCESS, knime_processed)):
        taken = sa.exists().where(
            table.c.symbol == symbol,
            table.c.interval == interval,
            table.c.open_time == sa.cast(c.open_time, sa.BigInteger),
        )
        keys = sa.select(sa.func.count(c.open_time.distinct())).where(
            c.stage == stage, c.symbol == symbol, c.interval == interval, ~taken
        )
        found += connection.scalar(keys) or 0
    return found


def _label(value: object) -> str | None:
    return None if value is None else str(value)[:190]
