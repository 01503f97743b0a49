"""What is stored of each series, as every command that tells of it says it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from bentley.domain import intervals
from bentley.domain.clock import iso
from bentley.stages.reading import Series
from bentley.warehouse import bars, gaps
from bentley.warehouse.warehouse import Warehouse

_HOUR_MS = 3_600_000


def coverage(
    warehouse: Warehouse, wanted: Iterable[Series], *, end: int
) -> Iterator[dict[str, Any]]:
    """Describe each series; `behind` counts the bars that the grid expects up to `end` (UTC ms)."""
    with warehouse.reading() as connection:
        for symbol, interval in wanted:
            found = bars.extent(connection, symbol, interval)
            if found is None:
                yield {"symbol": symbol, "interval": interval, "rows": 0}
                continue
            first, last, rows = found
            missing = gaps.of_series(connection, symbol, interval)
            closed = bars.last_close(connection, symbol, interval)
            yield {
                "symbol": symbol,
                "interval": interval,
                "rows": rows,
                "first": iso(first),
                "last": iso(last),
                "gaps": len(missing),
                "missing_bars": sum(gap.bars for gap in missing),
                "freshness_hours": None if closed is None else (end - closed) / _HOUR_MS,
                "behind": intervals.expected(last + 1, end, interval),
            }
