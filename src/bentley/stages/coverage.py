"""What is stored of each series, as every command that tells of it says it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bentley.domain import intervals
from bentley.domain.clock import iso
from bentley.settings import Settings
from bentley.sources import exchange
from bentley.stages.reading import Series
from bentley.warehouse import bars, gaps
from bentley.warehouse.warehouse import Warehouse

_HOUR_MS = 3_600_000


def coverage(
    warehouse: Warehouse, wanted: Iterable[Series], *, end: int
) -> Iterator[dict[str, Any]]:
    """Describe each series as of the moment `end` (UTC ms).

    `freshness_hours` is the age of the newest bar that had closed by then, and `behind` how many
    bars the grid expects since the last that is stored.
    """
    with warehouse.reading() as connection:
        for symbol, interval in wanted:
            found = bars.extent(connection, symbol, interval)
            if found is None:
                yield {"symbol": symbol, "interval": interval, "rows": 0}
                continue
            first, last, rows = found
            missing = gaps.of_series(connection, symbol, interval)
            closed = bars.last_close(connection, symbol, interval, before=end)
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


def ended(
    settings: Settings, series: Iterable[Mapping[str, Any]], *, known: Iterable[Mapping[str, str]]
) -> list[dict[str, str]]:
    """Report the series that lag because their symbol doesn't trade any more.

    Those that have a `known` failure lag for that reason.
    """
    failed = {(failure["symbol"], failure["interval"]) for failure in known}
    failures = []
    for one in series:
        symbol, interval = one["symbol"], one["interval"]
        if one.get("behind", 0) <= 1 or (symbol, interval) in failed:
            continue
        state = exchange.status(settings.exchange_url, symbol)
        if state != exchange.TRADING:
            message = (
                f"{symbol} {interval} is {state} on the exchange: its last bar is of {one['last']}"
            )
            failures.append({"symbol": symbol, "interval": interval, "message": message})
    return failures
