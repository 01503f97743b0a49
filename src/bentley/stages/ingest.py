"""The Airbyte stage: the exchange's klines into `binance_ohlcv`, one batch a run.

With an Airbyte server its job does the reading (`airbyte_job`). Else the connector is run here:
a run reads each series from a few bars before where the last one ended, so that late
corrections are seen, and the head before what is stored where an earlier start is asked for.
Every chunk of rows is one transaction with its counts, its gaps and the states it covers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

import polars as pl
import structlog
from sqlalchemy.engine import Connection

from bentley.airbyte import failures as airbyte_failures
from bentley.airbyte import protocol, runner
from bentley.domain import bars as domain_bars
from bentley.domain.clock import iso
from bentley.domain.errors import ConfigurationError
from bentley.settings import Settings
from bentley.stages import airbyte_job, positions
from bentley.stages.coverage import coverage, ended
from bentley.stages.intake import Intake, begun, clock, finished
from bentley.stages.layout import CONNECTOR
from bentley.stages.reading import Mark, Reading, Series, plan
from bentley.stages.report import StageReport
from bentley.warehouse import bars
from bentley.warehouse.warehouse import Warehouse

ENGINE = "airbyte-cdk"
STREAM = "klines"
LOOKBACK_BARS = 3
"""Stored bars that every run reads again, for corrections that came late."""

_CHUNK_ROWS = 20_000
Progress = Callable[[int], None]

_log = structlog.get_logger(__name__)


def sync(
    settings: Settings,
    *,
    pipeline_runs: Iterable[str] = (),
    dag_run: str | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> StageReport:
    """Bring what is new, and what was corrected, into the warehouse.

    An Airbyte server does it where one is configured. With `again`, everything from the settings'
    `since` on is read once more.
    Raises RetriableError when the exchange or the database can't be reached, DataError when
    too many rows are bad, ConfigurationError when no symbol is known to the exchange.
    """
    if settings.synced_by_server:
        return airbyte_job.sync(
            settings, pipeline_runs=pipeline_runs, dag_run=dag_run, again=again, progress=progress
        )
    with begun(settings, engine=ENGINE, pipeline_runs=pipeline_runs, dag_run=dag_run) as (
        warehouse,
        batch_id,
    ):
        # Inside the batch: an exchange out of reach must be seen in the ledger, too.
        now = clock(settings, warehouse, batch_id)
        run = _Run(settings, warehouse, batch_id, now=now, again=again, progress=progress)
        run.read_all()
        end = min(now, settings.until or now)
        series = tuple(coverage(warehouse, run.wanted, end=end))
        run.failures += ended(settings, series, known=run.failures)
        failures = [*run.failures, *run.holes]
        return finished(settings, run.intake, series=series, failures=failures)


class _Run:
    """The state of one run of the stage."""

    def __init__(
        self,
        settings: Settings,
        warehouse: Warehouse,
        batch_id: int,
        *,
        now: int,
        again: bool,
        progress: Progress | None,
    ) -> None:
        self.settings = settings
        self.warehouse = warehouse
        self.batch_id = batch_id
        self.now = now
        self.again = again
        self.progress = progress
        self.intake = Intake(
            warehouse, batch_id, source=positions.SOURCE, max_share=settings.max_rejected_share
        )
        self.failures: list[dict[str, str]] = []
        self.holes: list[dict[str, str]] = []
        self.wanted = [
            (symbol, interval) for symbol in settings.symbols for interval in settings.intervals
        ]

    def read_all(self) -> None:
        """Make every pass that this run needs."""
        with self.warehouse.reading() as connection:
            marks = {
                series: mark
                for series in self.wanted
                if (mark := positions.load(connection, series)) is not None
            }
        for reading in plan(
            self.wanted,
            marks,
            since=self.settings.since,
            until=self.settings.until,
            now=self.now,
            history_days=self.settings.history_days,
            lookback_bars=LOOKBACK_BARS,
            again=self.again,
        ):
            self._pass(reading)
        if spoiled := self.intake.spoiled():
            self._step_back(marks)
            raise spoiled
        failed = self._failed()
        if failed.issuperset(self.wanted):
            msg = "; ".join(failure["message"] for failure in self.failures)
            raise ConfigurationError(msg)

    def _step_back(self, marks: Mapping[Series, Mark]) -> None:
        """Put the positions back, so that the next run reads all of it again."""
        with self.warehouse.writing() as connection:
            for series in self.wanted:
                if series in marks:
                    positions.save(connection, series, marks[series], batch_id=self.batch_id)
                else:
                    positions.forget(connection, series)

    def _failed(self) -> set[Series]:
        return {(failure["symbol"], failure["interval"]) for failure in self.failures}

    def _pass(self, reading: Reading) -> None:
        chunks = runner.read(
            runner.declarative(CONNECTOR),
            _config(self.settings, reading),
            [STREAM],
            _states(reading),
            catalog=protocol.incremental_catalog([STREAM]),
            batch_rows=_CHUNK_ROWS,
            on_log=_forward_log,
        )
        try:
            with closing(chunks):  # an error of ours ends the source, too, and at once
                for chunk in chunks:
                    self._store(chunk, reading)
        except airbyte_failures.SourceConfigurationError as error:
            # The source came to its end: what it names is wrong, what it doesn't name is whole.
            named = [_named(failure) for failure in error.failures]
            if not error.orderly or None in named:
                raise
            # A series may be read twice, its head after its tail: it fails once.
            self.failures += [
                failure for failure in named if failure and failure not in self.failures
            ]
        if reading.tail:
            return
        with self.warehouse.writing() as connection:
            for series in sorted(reading.starts.keys() - self._failed()):
                known = positions.load(connection, series)
                if known is None or reading.starts[series] >= known.since:
                    continue
                if reading.end < known.since:
                    self.holes.append(_hole(series, reading, known))
                    continue
                mark = Mark(reading.starts[series], known.cursor)
                positions.save(connection, series, mark, batch_id=self.batch_id)

    def _store(self, chunk: runner.Batch, reading: Reading) -> None:
        def then(connection: Connection) -> None:
            for message in chunk.states if reading.tail else ():
                self._advance(connection, message, reading)

        sifted = domain_bars.sift(_raw(chunk.rows), now=self.now)
        self.intake.store(sifted, read=len(chunk.rows), then=then)
        if self.progress is not None:
            self.progress(self.intake.read)

    def _advance(
        self, connection: Connection, message: Mapping[str, Any], reading: Reading
    ) -> None:
        """Move the cursors on, in the transaction of the rows that they cover."""
        for entry in message["stream"]["stream_state"].get("states", ()):
            series = (entry["partition"]["symbol"], entry["partition"]["interval"])
            if series not in reading.starts:
                continue
            known = positions.load(connection, series)
            cursor = int(entry["cursor"]["open_time"])
            if known is not None:
                mark = Mark(known.since, max(cursor, known.cursor))
            elif bars.last_open(connection, *series) is not None:
                mark = Mark(reading.starts[series], cursor)
            else:  # the state that the source was given, back from a series without a bar
                continue
            positions.save(connection, series, mark, batch_id=self.batch_id)


def _hole(series: Series, reading: Reading, known: Mark) -> dict[str, str]:
    """Say what nobody asked for between a head and what is stored behind it."""
    symbol, interval = series
    message = (
        f"{symbol} {interval}: the bars from {iso(reading.end)} to {iso(known.since)} were never "
        f"asked for and stand as a gap: bentley sync --since {iso(reading.starts[series])} "
        "fetches them"
    )
    return {"symbol": symbol, "interval": interval, "message": message}


def _config(settings: Settings, reading: Reading) -> dict[str, Any]:
    return {
        "base_url": settings.exchange_url,
        "symbols": sorted({symbol for symbol, _ in reading.starts}),
        "intervals": sorted({interval for _, interval in reading.starts}),
        "start_time": min(reading.starts.values()),
        "end_time": reading.end,
        "lookback_bars": 0,  # the starts say where each series is read from
    }


def _states(reading: Reading) -> list[dict[str, Any]]:
    """Write the starts of a pass as the state messages that the source reads them from."""
    states = [
        {
            "partition": {"symbol": symbol, "interval": interval},
            "cursor": {"open_time": str(start)},
        }
        for (symbol, interval), start in sorted(reading.starts.items())
    ]
    stream = {"stream_descriptor": {"name": STREAM}, "stream_state": {"states": states}}
    return [{"type": "STREAM", "stream": stream}]


def _raw(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Rows as they came, every cell as text."""
    columns = {
        name: [
            cell if cell is None or isinstance(cell, str) else str(cell)
            for cell in (row.get(name) for row in rows)
        ]
        for name in domain_bars.FIELDS
    }
    return pl.DataFrame(columns, schema=domain_bars.RAW_SCHEMA)


def _named(failure: protocol.Failure) -> dict[str, str] | None:
    """A failure of one series, with its symbol and interval; None for one of the whole."""
    symbol, interval = failure.detail.get("symbol"), failure.detail.get("interval")
    if symbol is None or interval is None:
        return None
    return {"symbol": symbol, "interval": interval, "message": failure.message}


def _forward_log(level: str, message: str) -> None:
    # Errors come back as failures of the read, each once; here they are pages of traceback.
    if level in {"WARN", "FATAL"}:
        _log.warning("the connector says", level=level, message=message.partition("\n")[0])
