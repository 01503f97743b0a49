"""Verifies the chain from the tables, not from anyone's word, and reports what it found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain import intervals
from bentley.domain.clock import iso
from bentley.domain.words import counted
from bentley.settings import Settings
from bentley.sources import exchange
from bentley.stages import table_checks
from bentley.stages.table_checks import Check
from bentley.stages.track import tracking_uri
from bentley.tracking.runs import Tracker
from bentley.warehouse import bars, gaps, ledger, quarantine
from bentley.warehouse.gaps import Gap
from bentley.warehouse.ledger import INGEST, PROCESS, TRACK, Batch
from bentley.warehouse.processed import Span
from bentley.warehouse.schema import (
    knime_processed,
    mlflow_runs,
)
from bentley.warehouse.warehouse import Warehouse

_HOUR_MS = 3_600_000
_LATEST = 2**63 - 1
_LISTED_GAPS = 50


@dataclass(frozen=True)
class Coverage:
    """What is stored of one series; times in UTC milliseconds.

    `rejected` counts the refused rows that no good one has replaced; `freshness_hours` is the age
    of the newest bar that had closed by the time up to which bars were wanted.
    """

    symbol: str
    interval: str
    rows: int = 0
    first_open: int | None = None
    last_open: int | None = None
    last_close: int | None = None
    processed: int = 0
    rejected: int = 0
    gaps: int = 0
    missing_bars: int = 0
    freshness_hours: float | None = None
    gap_list: tuple[Gap, ...] = ()


@dataclass(frozen=True)
class Verification:
    """All checks over one state of the warehouse."""

    origin: str
    exchange_time: int
    checks: tuple[Check, ...]
    series: tuple[Coverage, ...]
    mlflow: tuple[dict[str, Any], ...] = field(default=())

    @property
    def held(self) -> bool:
        """Whether every check held."""
        return all(check.held for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Make plain values for JSON."""
        return asdict(self) | {"held": self.held}


def verify(
    settings: Settings, *, pipeline_run: str | None = None, selected: bool = False
) -> Verification:
    """Check the chain's tables against each other, the ledger, MLflow and the exchange's clock.

    With `pipeline_run`, the MLflow runs of that run are checked, and where it brought nothing
    new, or without one, the latest. With `selected`, rows and digits are compared from the
    settings' since to their until alone. Raises RetriableError for whatever can't be reached.
    """
    now = exchange.server_time(settings.exchange_url)
    since = settings.since if selected else None
    until = settings.until if selected else None
    wanted = [
        Span(symbol, interval, since or 0, _LATEST if until is None else until)
        for symbol in settings.symbols
        for interval in settings.intervals
    ]
    with Warehouse.open(settings) as warehouse, warehouse.snapshot() as connection:
        end = min(now, settings.until or now)
        coverage = [_cover(connection, span.symbol, span.interval, end) for span in wanted]
        processed = _processed_batches(connection, pipeline_run)
        claims = _claims(connection, processed)
        checks = [
            table_checks.rows_balance(connection, wanted),
            *_consumed(connection, pipeline_run),
            table_checks.checksums(connection, wanted),
            table_checks.gaps_agree(connection, wanted),
            _fresh(settings, coverage, now),
        ]
    logged, runs = _logged(settings, processed, claims)
    return Verification(
        settings.origin, now, (*checks[:4], logged, *checks[4:]), tuple(coverage), tuple(runs)
    )


def _cover(connection: Connection, symbol: str, interval: str, end: int) -> Coverage:
    found = bars.extent(connection, symbol, interval)
    if found is None:
        return Coverage(symbol, interval)
    first, last, rows = found
    done = knime_processed.c
    last_close = bars.last_close(connection, symbol, interval)
    closed = bars.last_close(connection, symbol, interval, before=end)
    processed = connection.scalar(
        sa.select(sa.func.count()).where(done.symbol == symbol, done.interval == interval)
    )
    missing = gaps.of_series(connection, symbol, interval)
    return Coverage(
        symbol,
        interval,
        rows,
        first,
        last,
        last_close,
        processed or 0,
        quarantine.standing(connection, symbol, interval),
        len(missing),
        sum(gap.bars for gap in missing),
        None if closed is None else (end - closed) / _HOUR_MS,
        tuple(missing),
    )


def _consumed(connection: Connection, pipeline_run: str | None) -> Iterator[Check]:
    """Check that nothing waits; what came after the run's own sync is another run's."""
    own = [] if pipeline_run is None else ledger.of_run(connection, pipeline_run)
    synced = [batch.id for batch in own if batch.stage == INGEST]
    for consumer, name in ((PROCESS, "every bar is processed"), (TRACK, "every batch is logged")):
        left = [
            batch
            for batch in ledger.unconsumed(connection, consumer)
            if not synced or min(batch.parents, default=batch.id) <= max(synced)
        ]
        detail = (
            f"{counted(len(left), 'batch', 'batches')} waiting, with "
            f"{counted(sum(batch.rows_news for batch in left), 'row')}"
            if left
            else "nothing waits"
        )
        yield Check(name, not left, detail)


def _fresh(settings: Settings, coverage: Iterable[Coverage], now: int) -> Check:
    """Check the age of what trades; a symbol that has ended, or is unknown, is only named.

    Beside others, that is: where nothing is fresh, there is nothing that this run has brought.
    """
    ages: list[float] = []
    stale: list[str] = []
    over: list[str] = []
    for one in coverage:
        # A bar counts once it has closed, so a series may lag by its own interval.
        bound = settings.freshness_hours + intervals.millis(one.interval) / _HOUR_MS
        age = one.freshness_hours
        ahead = one.last_close is not None and one.last_close >= now
        if ahead and not settings.replayed:  # a replay may begin again at an earlier time
            stale.append(
                f"{one.symbol} {one.interval} has a bar that closed at {iso(one.last_close)}, "
                f"ahead of the exchange's clock {iso(now)}"
            )
            continue
        if age is not None and age <= bound:
            ages.append(age)
            continue
        state = exchange.status(settings.exchange_url, one.symbol)
        seen = "no closed bar" if age is None else f"{age:.1f} h old (bound {bound:g} h)"
        found = stale if state == "TRADING" else over
        found.append(f"{one.symbol} {one.interval} is {state}: {seen}")
    fresh = (
        f"the oldest series that trades is {max(ages):.2f} h old" if ages else "nothing is fresh"
    )
    detail = "; ".join([*(stale or [fresh]), *over])
    return Check("the data is fresh by the exchange's clock", bool(ages) and not stale, detail)


def _processed_batches(connection: Connection, pipeline_run: str | None) -> list[Batch]:
    if pipeline_run is not None:
        own = [
            batch
            for batch in ledger.of_run(connection, pipeline_run)
            if batch.stage == PROCESS and batch.status == ledger.COMMITTED
        ]
        if own:
            return own
    return ledger.recent(connection, PROCESS, limit=1)


def _claims(connection: Connection, batches: Sequence[Batch]) -> dict[int, str | None]:
    c = mlflow_runs.c
    rows = connection.execute(
        sa.select(c.processed_batch_id, c.run_id).where(
            c.processed_batch_id.in_([batch.id for batch in batches])
        )
    )
    return {row.processed_batch_id: row.run_id for row in rows}


def _logged(
    settings: Settings, batches: Sequence[Batch], claims: dict[int, str | None]
) -> tuple[Check, list[dict[str, Any]]]:
    tracker = Tracker(tracking_uri(settings))
    wrong, runs = [] if batches else ["no batch has ever been processed"], []
    for batch in batches:
        run_id = claims.get(batch.id)
        run = tracker.get(run_id) if run_id else None
        if run is None or not run.finished:
            wrong.append(
                f"batch {batch.id} has no finished run (id {run_id}); if it was deleted, "
                f"`mlflow runs restore --run-id {run_id}` brings it back"
            )
            continue
        for name in ("rows_read", "rows_written", "rows_rejected"):
            due = getattr(batch, name)
            if run.metrics.get(name) != due:
                wrong.append(f"batch {batch.id}: {name} {run.metrics.get(name)}, not {due}")
        runs.append(
            {
                "batch_id": batch.id,
                "run_id": run.run_id,
                "url": run.url,
                "metrics": dict(run.metrics),
            }
        )
    detail = "; ".join(wrong) or f"{counted(len(runs), 'run')} with the ledger's counts"
    return Check("the MLflow runs are there with the same counts", not wrong, detail), runs


def summary(found: Verification) -> str:
    """Name what did not hold, for an error."""
    failed = [f"{check.name}: {check.detail}" for check in found.checks if not check.held]
    return "; ".join(failed)


def table(found: Verification) -> list[str]:
    """List the series as a Markdown table, and their gaps below it."""
    lines = [
        "| series | bars | first | last | processed | rejected | gaps |",
        "| --- | ---: | --- | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {one.symbol} {one.interval} | {one.rows} | {iso(one.first_open)} "
        f"| {iso(one.last_open)} | {one.processed} | {one.rejected} "
        f"| {one.gaps} ({counted(one.missing_bars, 'bar')}) |"
        for one in found.series
    ]
    for one in found.series:
        if one.gap_list:
            lines += ["", f"Gaps of {one.symbol} {one.interval}, first to last missing bar:", ""]
            lines += [
                f"- {iso(gap.first_open)} to {iso(gap.last_open)}: {counted(gap.bars, 'bar')}"
                for gap in one.gap_list[:_LISTED_GAPS]
            ]
        if len(one.gap_list) > _LISTED_GAPS:
            lines.append(f"- and {len(one.gap_list) - _LISTED_GAPS} more")
    return lines
