"""History in bulk: the exchange's archives into `binance_ohlcv`, by the same checks as a sync.

Archives are fetched, checked and read ahead of the database, within a bound of memory. A batch
takes some of them and is committed before the next begins, so that what is there can be
processed, a sync comes in between, and a run that ends anywhere goes on where it was.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import polars as pl
import structlog
from sqlalchemy.engine import Connection

from bentley.domain import intervals
from bentley.domain.bars import Sifted
from bentley.domain.errors import ConfigurationError, DataError, described
from bentley.settings import Settings
from bentley.sources import archive_rows, archives, exchange
from bentley.sources.archive_rows import Piece
from bentley.sources.archives import Archives
from bentley.stages import ahead, positions
from bentley.stages.archive_plan import SOURCE, Task, failure, plan, state_name
from bentley.stages.coverage import coverage
from bentley.stages.intake import Intake, close, close_dead
from bentley.stages.reading import Mark, Series
from bentley.stages.report import StageReport, of_batch
from bentley.warehouse import bars, bulk, ledger, quarantine, states
from bentley.warehouse.bars import Prepared, Written
from bentley.warehouse.ledger import INGEST, Batch
from bentley.warehouse.quarantine import Brief
from bentley.warehouse.warehouse import Warehouse

ENGINE = "archives"

_log = structlog.get_logger(__name__)

_LOCK_SECONDS = 900.0
_BATCH_ROWS = 1_000_000
_LETS_OTHERS_IN_SECONDS = 0.2
_FETCHED_AHEAD = 4
_READ_AHEAD = 1
_PREPARED_AHEAD = 1
_LANES = 2
"""So many chunks a server loads at once, each on a connection; SQLite has one writer."""

_TAKEN_BACK_MS = 600_000
"""So long a server may have to roll back what a failed batch left: two chunks at most."""

_FIRST_BYTES = 1 << 19
"""Small pieces at first, each twice the one before: the database has work while the next is read."""


@dataclass(frozen=True)
class Progress:
    """How far a backfill is: archives of all there are, rows, and which archive is at work."""

    archives: int
    of: int
    rows: int
    at: str


@dataclass(frozen=True)
class _Chunk:
    """A piece of an archive; the `last` one ends it, with an error or without."""

    task: Task
    sifted: Sifted | None = None
    read: int = 0
    last: bool = False
    error: DataError | None = None
    prepared: Prepared | None = None
    apart: bool = True
    """Whether its bars are others than those of the chunks before it."""


def backfill(
    settings: Settings,
    *,
    repair: bool = False,
    pipeline_runs: Iterable[str] = (),
    dag_run: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> StageReport:
    """Load the archives that cover the wanted series, or with `repair` their recorded gaps.

    An archive that is in the table already is passed over, unless it was published anew. What
    can't be read is named among the failures, and the others are loaded all the same. Raises
    ConfigurationError where there is no archive at all, RetriableError when the place or the
    database can't be reached, DataError when too many rows are bad.
    """
    started = time.monotonic()
    place = archives.at(
        settings.archive,
        today=lambda: archives.day_of(exchange.server_time(settings.exchange_url)),
    )
    wanted = [(symbol, interval) for symbol in settings.symbols for interval in settings.intervals]
    with Warehouse.open(settings) as warehouse:
        planned = plan(settings, warehouse, place, wanted, repair=repair)
        if not planned.tasks:
            raise ConfigurationError("; ".join(one["message"] for one in planned.failures))
        run = _Run(settings, warehouse, place, planned.tasks, progress)
        end = max(task.archive.end for task in planned.tasks)
        with ThreadPoolExecutor(1) as beside:  # the last batch is counted back meanwhile
            covered: list[Future[tuple[dict[str, Any], ...]]] = []

            def stored() -> None:
                until = min(end, settings.until or end)
                covered.append(beside.submit(lambda: tuple(coverage(warehouse, wanted, end=until))))

            done = run.load(stored, pipeline_runs=sorted(pipeline_runs), dag_run=dag_run)
            series = covered[0].result()
        with warehouse.reading() as connection:
            way = bulk.way(connection)
    details = {
        "archives": len(planned.tasks),
        "known": sum(task.known or task.passed for task in planned.tasks),
        "written_by": way,
        "batches": [batch.id for batch in done],
    }
    return replace(
        of_batch(done[-1], origin=settings.origin),
        rows_read=sum(batch.rows_read for batch in done),
        rows_written=sum(batch.rows_written for batch in done),
        rows_news=sum(batch.rows_news for batch in done),
        rows_rejected=sum(batch.rows_rejected for batch in done),
        seconds=time.monotonic() - started,
        series=series,
        failures=(*planned.failures, *run.failures),
        rejects=tuple(run.rejects[: quarantine.NAMED]),
        details=details,
    )


class _Run:
    """The state of one backfill."""

    def __init__(
        self,
        settings: Settings,
        warehouse: Warehouse,
        place: Archives,
        tasks: Sequence[Task],
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.settings = settings
        self.warehouse = warehouse
        self.place = place
        self.tasks = tasks
        self.progress = progress
        self.failures: list[dict[str, str]] = []
        self.rejects: list[Brief] = []
        self.archives = self.rows = 0
        self.covered: dict[Series, list[tuple[int, int]]] = {}  # what was read without a hole

    def load(
        self, stored: Callable[[], None], *, pipeline_runs: Sequence[str], dag_run: str | None
    ) -> list[Batch]:
        """Read every archive, and return the batches made of them.

        `stored` is called once all rows are, before the last batch is counted back and closed.
        """
        done: list[Batch] = []
        with (
            tempfile.TemporaryDirectory(prefix="bentley-archives-") as folder,
            closing(ahead.buffered(self._prepared(Path(folder)), depth=_PREPARED_AHEAD)) as chunks,
        ):
            for first in chunks:
                if done:
                    time.sleep(_LETS_OTHERS_IN_SECONDS)
                with self.warehouse.alone(INGEST, wait_seconds=_LOCK_SECONDS):
                    close_dead(self.warehouse)
                    with self.warehouse.writing() as connection:
                        batch_id = ledger.begin(
                            connection,
                            INGEST,
                            engine=ENGINE,
                            pipeline_runs=pipeline_runs,
                            dag_run=dag_run,
                            exchange_time=first.task.archive.end,
                        )
                    intake = Intake(
                        self.warehouse,
                        batch_id,
                        source=SOURCE,
                        max_share=self.settings.max_rejected_share,
                        bulk=True,
                    )
                    with closing(intake):
                        try:
                            self._fill(intake, chain([first], chunks))
                            if self.archives == len(self.tasks):
                                stored()
                            known = intake.counted()
                        except BaseException as error:
                            said = described(error)
                            _log.warning("stopped: what is stored is counted", batch=batch_id)
                            close(self.warehouse, batch_id, known=intake.seen(), error=said)
                            raise
                        self.rejects += intake.rejects
                        moved = partial(self._move, batch_id=batch_id)
                        done.append(close(self.warehouse, batch_id, known=known, then=moved))
        return done

    def _fill(self, intake: Intake, chunks: Iterator[_Chunk]) -> None:
        """Store chunks up to the end of an archive at which the batch is large enough."""
        with self.warehouse.reading() as connection:
            # Lanes that wait for rows which a server still takes back lock the gaps that these
            # leave, and with them each other.
            lately = ledger.now_ms() - _TAKEN_BACK_MS
            unsure = ledger.failed_since(connection, INGEST, lately)
            lanes = _LANES if bulk.loads_files(connection) and not unsure else 1
        stored = ahead.in_turn(partial(self._store, intake), _of_batch(chunks), threads=lanes)
        with closing(stored):
            for chunk, done in stored:
                if done is not None:
                    intake.look_back(done)
                archive = chunk.task.archive
                if chunk.error is not None:
                    self.failures.append(
                        failure(archive.symbol, archive.interval, str(chunk.error))
                    )
                self.rows += chunk.read
                self.archives += chunk.last
                if self.progress is not None:
                    at = state_name(archive)
                    self.progress(Progress(self.archives, len(self.tasks), self.rows, at))
                del chunk, done  # not to be kept while the next is stored

    def _store(
        self, intake: Intake, chunk: _Chunk, turn: Callable[[], None]
    ) -> tuple[_Chunk, Written | None]:
        """Store a chunk, which is committed after those before it; in a thread of a lane."""
        spoiled = None

        def then(connection: Connection) -> None:
            nonlocal spoiled
            spoiled = intake.spoiled() if chunk.last else None
            if chunk.last and chunk.error is None and spoiled is None and not chunk.task.passed:
                self._cover(connection, chunk.task, intake.batch_id)

        done = None
        if not chunk.apart:
            turn()
        if chunk.sifted is not None:
            done = intake.put(
                chunk.sifted, read=chunk.read, ahead=chunk.prepared, turn=turn, then=then
            )
        else:
            turn()
            with self.warehouse.writing() as connection:
                then(connection)
        if spoiled is not None:
            raise spoiled
        return chunk, done

    def _cover(self, connection: Connection, task: Task, batch_id: int) -> None:
        """Keep that an archive is read, and how far its series is without a hole."""
        archive = task.archive
        if task.whole and not task.known:
            state = {"sha256": task.digest}
            states.save(connection, SOURCE, state_name(archive), state, batch_id=batch_id)
        since, until = self.settings.since, self.settings.until
        first = archive.start if since is None else max(archive.start, since)
        end = archive.end if until is None else min(archive.end, until)
        spans = self.covered.setdefault((archive.symbol, archive.interval), [])
        if spans and spans[-1][1] == first:
            first = spans.pop()[0]
        spans.append((first, end))

    def _move(self, connection: Connection, batch_id: int) -> None:
        """Move the position of each series, where it and what was read join."""
        for series, spans in self.covered.items():
            for first, end in spans:
                last = bars.last_open(connection, *series, before=end)
                if last is None or last < first:
                    continue
                known = positions.load(connection, series)
                mark = Mark(first, last)
                if known is not None:
                    following = known.cursor + intervals.millis(series[1])
                    if end < known.since or first > following:
                        continue  # a hole lies between: the sync goes on from its own place
                    mark = Mark(min(first, known.since), max(last, known.cursor))
                if mark != known:
                    positions.save(connection, series, mark, batch_id=batch_id)

    def _prepared(self, folder: Path) -> Generator[_Chunk, None, None]:
        """Write out what another thread reads meanwhile; this runs in a thread of its own."""
        dialect = self.warehouse.engine.dialect.name
        reached = -1  # by this archive so far: another one has other bars
        with closing(ahead.buffered(self._chunks(folder), depth=_READ_AHEAD)) as chunks:
            for chunk in chunks:
                if chunk.sifted is None:
                    yield chunk
                else:
                    prepared = bars.prepared(chunk.sifted.bars, dialect=dialect)
                    apart = all(span.first_open > reached for span in prepared.spans)
                    yield replace(chunk, prepared=prepared, apart=apart)
                    reached = max([reached, *(span.last_open for span in prepared.spans)])
                if chunk.last:
                    reached = -1

    def _chunks(self, folder: Path) -> Generator[_Chunk, None, None]:
        """Read the archives in their order."""
        fetched = ahead.mapped(
            lambda task: self._fetch(task, folder), self.tasks, threads=_FETCHED_AHEAD
        )
        sizes = _sizes()
        with closing(fetched):
            for task, file in zip(self.tasks, fetched, strict=True):
                if file is None:
                    yield _Chunk(task, last=True)
                elif isinstance(file, DataError):
                    yield _Chunk(task, last=True, error=file)
                else:
                    yield from self._read(task, file, sizes)
                    if file.is_relative_to(folder):
                        file.unlink()

    def _fetch(self, task: Task, folder: Path) -> Path | DataError | None:
        if task.known or task.passed:
            return None
        try:
            return self.place.fetch(task.archive, task.digest, folder)
        except DataError as error:
            return error

    def _read(self, task: Task, file: Path, sizes: Iterator[int]) -> Iterator[_Chunk]:
        last = False
        try:
            for piece in archive_rows.pieces(file, task.archive, sizes=sizes):
                last = piece.last
                yield self._chunk(task, piece)
        except DataError as error:
            yield _Chunk(task, last=True, error=error)
        else:
            if not last:
                yield _Chunk(task, last=True)

    def _chunk(self, task: Task, piece: Piece) -> _Chunk:
        bars, rejected, read, last = piece
        if not task.whole:
            opened = pl.col("open_time")
            since, until = self.settings.since, self.settings.until
            inside = opened.is_between(since or 0, until or task.archive.end, closed="left")
            kept = bars.filter(inside)
            read -= bars.height - kept.height
            bars = kept
        return _Chunk(task, Sifted(bars, rejected), read, last)


def _sizes() -> Iterator[int]:
    size = _FIRST_BYTES
    while True:
        yield min(size, archive_rows.BLOCK_BYTES)
        size = min(2 * size, archive_rows.BLOCK_BYTES)


def _of_batch(chunks: Iterable[_Chunk]) -> Iterator[_Chunk]:
    """Take chunks up to the end of an archive at which there are enough for a batch."""
    read = 0
    for chunk in chunks:
        yield chunk
        read += chunk.read
        if chunk.last and read >= _BATCH_ROWS:
            return
