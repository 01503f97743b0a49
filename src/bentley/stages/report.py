"""What a stage says of one run of itself, for people, for --json and for Airflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bentley.warehouse.ledger import TRACK, Batch
from bentley.warehouse.quarantine import Brief


@dataclass(frozen=True)
class StageReport:
    """The counts of one batch; `batch_id` None means that there was nothing to do."""

    stage: str
    engine: str
    origin: str
    batch_id: int | None = None
    status: str = "nothing to do"
    rows_read: int = 0
    rows_written: int = 0
    rows_news: int = 0
    rows_rejected: int = 0
    watermark: int | None = None
    seconds: float = 0.0
    series: tuple[Mapping[str, Any], ...] = ()
    failures: tuple[Mapping[str, str], ...] = ()
    rejects: tuple[Brief, ...] = ()
    """The first of the rows that were rejected."""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """The counts in a line."""
        what = "runs" if self.stage == TRACK else "written"
        return (
            f"{self.rows_read} read, {self.rows_written} {what}, {self.rows_rejected} rejected, "
            f"{self.seconds:.1f} s"
        )

    def to_dict(self) -> dict[str, Any]:
        """Make plain values for JSON."""
        return asdict(self)


def of_batch(batch: Batch, *, origin: str, **more: Any) -> StageReport:
    """Report a closed batch."""
    return StageReport(
        stage=batch.stage,
        engine=batch.engine,
        origin=origin,
        batch_id=batch.id,
        status=batch.status,
        rows_read=batch.rows_read,
        rows_written=batch.rows_written,
        rows_news=batch.rows_news,
        rows_rejected=batch.rows_rejected,
        watermark=batch.watermark,
        seconds=batch.seconds or 0.0,
        **more,
    )
