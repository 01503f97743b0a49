"""The rows that were refused: why, and what they held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bentley.settings import Settings
from bentley.warehouse import quarantine
from bentley.warehouse.quarantine import Reject
from bentley.warehouse.warehouse import Warehouse


@dataclass(frozen=True)
class Rejects:
    """How many rows were refused, and the newest of them, newest first."""

    origin: str
    count: int
    rows: tuple[Reject, ...]

    def to_dict(self) -> dict[str, Any]:
        """Make plain values for JSON."""
        return asdict(self)


def rejects(
    settings: Settings,
    *,
    limit: int,
    symbols: Sequence[str] = (),
    intervals: Sequence[str] = (),
    batch_id: int | None = None,
) -> Rejects:
    """List refused rows: all, or those of some symbols or tickers, some intervals, one batch."""
    with Warehouse.open(settings) as warehouse, warehouse.snapshot() as connection:
        count, rows = quarantine.newest(
            connection,
            symbols=symbols,
            intervals=intervals,
            batch_id=batch_id,
            limit=limit,
        )
    return Rejects(settings.origin, count, tuple(rows))
