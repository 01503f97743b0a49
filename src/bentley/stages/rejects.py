"""The rows that were refused: why, and what they held."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bentley.domain.errors import ConfigurationError
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
    settings: Settings, *, limit: int, every: bool = True, batch_id: int | None = None
) -> Rejects:
    """List refused rows of every series and ticker, or of the settings' series; of one batch if given.

    Raises ConfigurationError for a `limit` below 1.
    """
    if limit < 1:
        msg = f"--limit {limit}: so many rows can't be shown; give 1 or more"
        raise ConfigurationError(msg)
    with Warehouse.open(settings) as warehouse, warehouse.snapshot() as connection:
        count, rows = quarantine.newest(
            connection,
            symbols=() if every else settings.symbols,
            intervals=() if every else settings.intervals,
            batch_id=batch_id,
            limit=limit,
        )
    return Rejects(settings.origin, count, tuple(rows))
