"""What the ledger holds for a stage to do: what an event announces, and what wakes a consumer."""

from __future__ import annotations

from typing import Any

from bentley.settings import Settings
from bentley.stages import intake
from bentley.warehouse import ledger
from bentley.warehouse.ledger import INGEST, Batch
from bentley.warehouse.warehouse import Warehouse

_LONGEST_PATIENCE = 60.0


def announcement(settings: Settings, consumer: str) -> dict[str, Any] | None:
    """Sum up the batches that `consumer` has not consumed, whoever wrote them; None for none."""
    with Warehouse.open(settings) as warehouse, warehouse.reading() as connection:
        return _sum_up(ledger.unconsumed(connection, consumer), settings.origin)


def overdue(settings: Settings, consumer: str, *, after_seconds: float) -> dict[str, Any] | None:
    """Sum up what waits for `consumer` longer than `after_seconds` while it is not at work.

    A consumer that has failed is left alone for twice as long each time, up to a minute.
    A sync that was killed leaves its batch open, and its rows unannounced: it is closed here.
    """
    with Warehouse.open(settings) as warehouse:
        with warehouse.reading() as connection:
            orphaned = bool(ledger.running(connection, INGEST))
        if orphaned:
            with warehouse.lock(INGEST, wait_seconds=0) as held:
                if held:
                    intake.close_dead(warehouse)
        with warehouse.lock(consumer, wait_seconds=0) as held:
            if not held:
                return None
        with warehouse.reading() as connection:
            waiting = ledger.unconsumed(connection, consumer)
            failures, last = ledger.failing(connection, consumer)
        now = ledger.now_ms()
        patience = min(after_seconds * 2**failures, _LONGEST_PATIENCE) * 1000
        late = [batch for batch in waiting if now - (batch.ended_at or 0) >= after_seconds * 1000]
        return _sum_up(late, settings.origin) if now - last >= patience else None


def _sum_up(batches: list[Batch], origin: str) -> dict[str, Any] | None:
    if not batches:
        return None
    return {
        "batch_id": batches[-1].id,
        "batches": [batch.id for batch in batches][-50:],
        "rows": sum(batch.rows_news for batch in batches),
        "watermark": max((batch.watermark or 0) for batch in batches),
        "origin": origin,
    }
