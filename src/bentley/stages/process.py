"""The KNIME stage: what is new in `binance_ohlcv` through the workflow into `knime_processed`.

One run takes every unconsumed ingest batch, recomputes each series from its first changed
bar to as far behind the last as the windows reach, and folds the result in one transaction
with its counts, its rejects and the record of what it consumed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from bentley.domain import bars as domain_bars
from bentley.domain import intervals
from bentley.domain.errors import described
from bentley.settings import Settings
from bentley.stages import engines, intake
from bentley.stages.closing import DEAD
from bentley.stages.engines import WorkflowEngine
from bentley.stages.report import StageReport, of_batch
from bentley.warehouse import bars, ledger, processed, quarantine
from bentley.warehouse.ledger import INGEST, PROCESS, Range
from bentley.warehouse.processed import Span
from bentley.warehouse.quarantine import Brief
from bentley.warehouse.schema import knime_landing
from bentley.warehouse.warehouse import Warehouse

WINDOW_BARS = 20
"""The longest window of the workflow: how far a changed bar reaches forward."""

_LOCK_SECONDS = 900.0

Progress = Callable[[int], None]


def process(
    settings: Settings,
    *,
    pipeline_runs: Iterable[str] = (),
    dag_run: str | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> StageReport:
    """Process everything that is committed upstream and not yet consumed.

    With `again`, the bars that the settings select (symbols, intervals, since, until) are
    computed once more, whether they are new or not. `pipeline_runs` are added to those that the batch inherits. Raises what the workflow's
    engine raises; then nothing is stored and nothing consumed.
    """
    with (
        Warehouse.open(settings) as warehouse,
        warehouse.alone(PROCESS, wait_seconds=_LOCK_SECONDS),
    ):
        _close_dead(warehouse)
        with warehouse.reading() as connection:
            taken = ledger.unconsumed(connection, PROCESS)
        name = engines.name(settings)
        if not taken and not again:
            return StageReport(PROCESS, name, settings.origin)
        with warehouse.writing() as connection:
            batch_id = ledger.begin(
                connection,
                PROCESS,
                engine=name,
                parents=[batch.id for batch in taken],
                pipeline_runs=pipeline_runs,
                dag_run=dag_run,
                exchange_time=max((batch.exchange_time or 0 for batch in taken), default=None),
            )
        try:
            # Inside the batch: what can't even start must be seen in the ledger, too.
            engine = engines.choose(settings, warehouse)
            selected = _selected(settings, warehouse) if again else []
            spans = merge([*(piece for batch in taken for piece in batch.ranges), *selected])
            _compute(engine, spans, batch_id, progress)
            rejects = _fold(settings, warehouse, spans, [batch.id for batch in taken], batch_id)
        except BaseException as error:
            _abandon(warehouse, batch_id, described(error))
            raise
        with warehouse.reading() as connection:
            batch = ledger.get(connection, batch_id)
        assert batch is not None  # noqa: S101 - it was committed above
        return of_batch(batch, origin=settings.origin, rejects=rejects)


def _selected(settings: Settings, warehouse: Warehouse) -> Iterator[Range]:
    with warehouse.reading() as connection:
        for symbol in settings.symbols:
            for interval in settings.intervals:
                found = bars.extent(connection, symbol, interval)
                if found is None:
                    continue
                first, last, rows = found
                first = max(first, settings.since or first)
                last = min(last, last if settings.until is None else settings.until - 1)
                if first <= last:
                    yield Range(symbol, interval, first, last, rows)


def merge(ranges: Iterable[Range]) -> list[Span]:
    """Turn the ranges of several batches into one span a series, extended by the windows."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for piece in ranges:
        key = (piece.symbol, piece.interval)
        first, last = found.get(key, (piece.first_open, piece.last_open))
        found[key] = (min(first, piece.first_open), max(last, piece.last_open))
    return [
        Span(symbol, interval, first, last + (WINDOW_BARS + 1) * intervals.millis(interval))
        for (symbol, interval), (first, last) in sorted(found.items())
    ]


def _compute(
    engine: WorkflowEngine, spans: Sequence[Span], batch_id: int, progress: Progress | None
) -> None:
    for span in spans:
        step = intervals.millis(span.interval)
        for since, until in _chunks(span, engine.chunk_bars):
            engine.run(
                {
                    "landing_table": knime_landing.name,
                    "batch_id": str(batch_id),
                    "symbol": span.symbol,
                    "interval": span.interval,
                    "step_ms": str(step),
                    "since_ms": str(since),
                    "until_ms": str(until),
                }
            )
            if progress is not None:
                progress((until - since) // step)


def _chunks(span: Span, bars: int) -> Iterator[tuple[int, int]]:
    """Cut a span into pieces of at most so many bars, in time order."""
    size = bars * intervals.millis(span.interval)
    for since in range(span.since, span.until, size):
        yield since, min(since + size, span.until)


def _close_dead(warehouse: Warehouse) -> None:
    # A sync that was killed leaves rows that no other run of it may ever come to announce.
    with warehouse.lock(INGEST, wait_seconds=0) as held:
        if held:
            intake.close_dead(warehouse)
    with warehouse.reading() as connection:
        dead = ledger.running(connection, PROCESS)
    for batch in dead:
        _abandon(warehouse, batch.id, DEAD)


def _abandon(warehouse: Warehouse, batch_id: int, error: str) -> None:
    with warehouse.writing() as connection:
        processed.clear_landing(connection, [batch_id])
        ledger.close(connection, batch_id, checksum=None, error=error)


def _fold(
    settings: Settings,
    warehouse: Warehouse,
    spans: Sequence[Span],
    taken: Sequence[int],
    batch_id: int,
) -> tuple[Brief, ...]:
    with warehouse.writing() as connection:
        ranges = []
        rejects: list[Brief] = []
        read = written = rejected = 0
        for span in spans:
            done = processed.fold(connection, span, batch_id=batch_id, taken=taken)
            read += done.read
            written += done.written
            rejected += done.rejected
            rejects += done.rejects
            if done.range is not None:
                ranges.append(done.range)
        spoiled = quarantine.excess(
            rejected, read, settings.max_rejected_share, named=rejects, kept=False
        )
        if spoiled:
            raise spoiled
        ledger.add(
            connection,
            batch_id,
            read=read,
            written=written,
            news=read,
            rejected=rejected,
            ranges=ranges,
        )
        checksum = domain_bars.checksum(processed.of_batch(connection, batch_id, ranges))
        ledger.consume(connection, PROCESS, taken, by=batch_id)
        processed.clear_landing(connection, [batch_id])
        ledger.close(
            connection,
            batch_id,
            checksum=checksum,
            watermark=max((piece.last_open for piece in ranges), default=None),
        )
    return tuple(rejects[: quarantine.NAMED])
