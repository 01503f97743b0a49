"""What an Airbyte server wrote to its landing table, folded into `binance_ohlcv`.

The rows pass the same checks as those of the embedded connector. A destination may keep every
version of a row (append) or the last (deduped): they are read in the order of their extraction,
so the last one counts either way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any

import polars as pl
import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from bentley.domain import bars as domain_bars
from bentley.domain.bars import DECIMALS, FIELDS, INTEGERS, SUPERSEDED, Sifted
from bentley.domain.clock import iso, parse_time
from bentley.domain.errors import ConfigurationError
from bentley.settings import Settings
from bentley.stages.coverage import coverage, ended
from bentley.stages.intake import Intake, begun, clock, finished
from bentley.stages.report import StageReport
from bentley.warehouse import bars, states
from bentley.warehouse.schema import metadata
from bentley.warehouse.warehouse import Warehouse

ENGINE = "airbyte-server"
EXTRACTED_AT = "_airbyte_extracted_at"
ANSWERED_AT = "answered_at"
"""The exchange's own clock at its answer, by the connector; tables of others lack it."""

CLOCKS_APART_MS = 10_000
"""So far the clock that Airbyte stamps rows with may run ahead of the exchange's."""

_CHUNK_ROWS = 20_000
_UNSURE = {"before": None, "last": None}
"""A position from which the table is read whole."""

_log = structlog.get_logger(__name__)


def fold(
    settings: Settings,
    *,
    job_id: int | None = None,
    started: int | None = None,
    pipeline_runs: Iterable[str] = (),
    dag_run: str | None = None,
    again: bool = False,
    progress: Callable[[int], None] | None = None,
) -> StageReport:
    """Take in what the landing table holds of the wanted series and was not folded in before.

    `job_id` is the job that brought it, for the record, and `started` its start by Airbyte's
    clock, None where it is not known or it brought nothing; with `again` the table is read whole.
    Raises ConfigurationError that names a table, a column or all series that are missing,
    DataError when too many rows are bad, RetriableError for a database or exchange out of reach.
    """
    with begun(settings, engine=ENGINE, pipeline_runs=pipeline_runs, dag_run=dag_run) as (
        warehouse,
        batch_id,
    ):
        now = clock(settings, warehouse, batch_id)
        run = _Run(settings, warehouse, batch_id, now=now, started=started, progress=progress)
        run.read(again=again)
        wanted = [(one, other) for one in settings.symbols for other in settings.intervals]
        end = min(now, settings.until or now)
        series = tuple(coverage(warehouse, wanted, end=end))
        failures = _missing(settings, series, fault=run.intake.first_reason)
        failures += ended(settings, series, known=failures)
        return finished(settings, run.intake, series=series, failures=failures, job=job_id)


def _missing(
    settings: Settings, series: Iterable[dict[str, Any]], *, fault: str
) -> list[dict[str, str]]:
    """Name the series that nothing is stored of; ConfigurationError where that is all of them.

    `fault` is the first that a row was rejected for.
    """
    series = list(series)
    failures = [
        {
            "symbol": one["symbol"],
            "interval": one["interval"],
            "message": f"{one['symbol']} {one['interval']}: {settings.airbyte_table} has brought "
            "no bar of it; is it in the configuration of the connection's source?",
        }
        for one in series
        if not one["rows"]
    ]
    if len(failures) == len(series):
        rejected = [f"rows were rejected, the first because {fault}"] if fault else []
        said = [failure["message"] for failure in failures]
        raise ConfigurationError("; ".join([*rejected, *said]))
    return failures


class _Run:
    """One reading of the table."""

    def __init__(
        self,
        settings: Settings,
        warehouse: Warehouse,
        batch_id: int,
        *,
        now: int,
        started: int | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.settings = settings
        self.warehouse = warehouse
        self.now = now
        self.started = None if started is None else started - CLOCKS_APART_MS
        self.progress = progress
        self.intake = Intake(
            warehouse, batch_id, source=ENGINE, max_share=settings.max_rejected_share
        )
        self.columns = {name: settings.landing_columns.get(name, name) for name in FIELDS}

    def read(self, *, again: bool) -> None:
        """Store what is new, then keep how far that was.

        A job's rows are all there at its end, which every fold waits for; those of another that
        is at work meanwhile may come in any order. So a fold begins where the last one but one
        ended: by the end of the last, all rows from before that were there.
        """
        table, own = self.settings.airbyte_table, self._position
        with self.warehouse.reading() as connection:
            self.answered = ANSWERED_AT in _check(connection, table, self.columns)
            newest = self._newest(connection)
            positions = states.under(connection, ENGINE, f"{table}/")
        if newest is not None:
            self._check_stamp(newest)
        known = positions.pop(own, None)
        since = None if known is None or again else known["before"]
        if since is not None and (newest is None or newest < since):
            _log.warning("the landing table was made anew: it is read whole", since=since)
            since = None
        # Killed midway it leaves earlier versions: only a whole reading sees the later ones again.
        unsure = dict.fromkeys(positions, _UNSURE)
        if known is not None and since is None:
            unsure[own] = _UNSURE
        self._save(unsure)
        last = None if known is None else known["last"]
        first_of_job = None
        with closing(self._rows(since)) as chunks:
            for rows in chunks:
                if first_of_job is None and self.started is not None:
                    stamps = (row[-1] for row in rows)
                    first_of_job = next((at for at in stamps if _time(at) >= self.started), None)
                self._store(rows)
                last = rows[-1][-1]
        if spoiled := self.intake.spoiled():
            raise spoiled
        if last is not None:
            before = None if known is None else known["last"]
            positions[own] = {"before": before or first_of_job, "last": last}
        self._save(positions)

    def _save(self, positions: dict[str, Any]) -> None:
        if not positions:
            return
        with self.warehouse.writing() as connection:
            for name, state in positions.items():
                states.save(connection, ENGINE, name, state, batch_id=self.intake.batch_id)

    @property
    def _position(self) -> str:
        """The name of the position: another selection begins anew, since it missed other rows."""
        given = self.settings
        of = (
            given.airbyte_connection_id,
            self.columns,
            sorted(given.symbols),
            sorted(given.intervals),
            given.since,
            given.until,
        )
        digest = hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]
        return f"{given.airbyte_table}/{digest}"

    def _newest(self, connection: Connection) -> str | None:
        newest = sa.cast(sa.func.max(sa.column(EXTRACTED_AT)), sa.String)
        table = sa.table(self.settings.airbyte_table)
        found: str | None = connection.scalar(sa.select(newest).select_from(table))
        return found

    def _check_stamp(self, newest: str) -> None:
        """Raise ConfigurationError where rows are not stamped in UTC.

        A destination writes its stamps as UTC, and a session of another zone shifts them: then they
        lie ahead of the exchange's clock, or the job's own lie before its start.
        """
        at, table = _time(newest), self.settings.airbyte_table
        if at > self.now + CLOCKS_APART_MS:
            wrong = f"ahead of the exchange's clock {iso(self.now)}"
        elif self.started is not None and at < self.started:
            wrong = f"before the job's start at {iso(self.started + CLOCKS_APART_MS)}"
        else:
            return
        msg = (
            f"the newest row of {table} bears {EXTRACTED_AT} {iso(at)}, {wrong}: let the sessions of "
            "the connection's destination be in UTC, and see that it writes to this table"
        )
        raise ConfigurationError(msg)

    def _rows(self, since: str | None) -> Generator[list[tuple[Any, ...]], None, None]:
        """Read pieces of the table, every cell as the text that the database makes of it.

        One query to its end and not page by page: no index holds the order of the pages, so the
        server would sort what is left for each of them.
        """
        cells = [sa.cast(sa.column(theirs), sa.String) for theirs in self.columns.values()]
        answered: sa.ColumnElement[Any] = sa.column(ANSWERED_AT) if self.answered else sa.null()
        extracted: sa.ColumnClause[Any] = sa.column(EXTRACTED_AT)
        query = (
            sa.select(*cells, sa.cast(answered, sa.String), sa.cast(extracted, sa.String))
            .select_from(sa.table(self.settings.airbyte_table))
            .order_by(extracted)
        )
        if since is not None:
            query = query.where(extracted >= since)
        streamed = {"stream_results": True, "max_row_buffer": _CHUNK_ROWS}
        with (
            self.warehouse.reading() as connection,
            connection.execute(query, execution_options=streamed) as result,
        ):
            for rows in result.partitions(_CHUNK_ROWS):
                yield [tuple(row) for row in rows]

    def _store(self, rows: list[tuple[Any, ...]]) -> None:
        schema = dict.fromkeys((*FIELDS, ANSWERED_AT, EXTRACTED_AT), pl.String)
        raw = pl.DataFrame(rows, schema=schema, orient="row")
        # A JSON column gives its text in quotes, one of decimals whole numbers with zeros behind.
        raw = raw.with_columns(pl.col(*FIELDS, ANSWERED_AT).str.replace('^"(.*)"$', "$1"))
        raw = raw.with_columns(pl.col(*INTEGERS, ANSWERED_AT).str.replace(r"\.0+$", ""))
        wanted = [
            pl.col(name).str.strip_chars().is_in([*values, ""]) | pl.col(name).is_null()
            for name, values in (
                ("symbol", self.settings.symbols),
                ("interval", self.settings.intervals),
            )
        ]
        raw = raw.filter(*wanted)
        read = raw.height
        raw = raw.with_columns(
            pl.Series(ANSWERED_AT, map(_answer, raw[ANSWERED_AT]), dtype=pl.Int64),
            pl.Series(EXTRACTED_AT, map(_time, raw[EXTRACTED_AT]), dtype=pl.Int64),
        )
        raw = self._without_overtaken(raw)
        sifted = domain_bars.sift(raw, now=self._clocks(raw))
        sifted, read = self._within(_without_superseded(sifted), read)
        self.intake.store(sifted, read=read)
        if self.progress is not None:
            self.progress(self.intake.read)

    def _without_overtaken(self, raw: pl.DataFrame) -> pl.DataFrame:
        """Leave out versions of closed bars that another way in has brought since, and corrected."""
        opened = pl.col("open_time").str.slice(0, 13).cast(pl.Int64, strict=False)
        keyed = raw.with_columns(_opened=opened)
        spans = keyed.group_by("symbol", "interval").agg(
            first=pl.col("_opened").min(), last=pl.col("_opened").max()
        )
        with self.warehouse.reading() as connection:
            settled = [
                bars.settled(connection, symbol, interval, first, last, besides=ENGINE)
                for symbol, interval, first, last in spans.drop_nulls().iter_rows()
            ]
        if not any(one.height for one in settled):
            return raw
        known = pl.concat(settled).rename({"open_time": "_opened"})
        at = pl.coalesce(ANSWERED_AT, EXTRACTED_AT)
        newer = pl.col("settled_at").is_null() | (pl.col("settled_at") < at)
        found = keyed.join(
            known, on=("symbol", "interval", "_opened"), how="left", maintain_order="left"
        )
        return found.filter(newer).select(raw.columns)

    def _clocks(self, raw: pl.DataFrame) -> pl.Series:
        """The exchange's clock as each row may at most know it: that of the answer it came in.

        A row that is old, of a bar that was forming then, is no closed bar now. Airbyte stamps a row
        when it is written out, which may be long after the answer. So without the answer's time the
        clock is that of the job's start, or, of other jobs, as long before as a job may take.
        """
        longest = int(self.settings.stage_timeout_minutes * 60_000) + CLOCKS_APART_MS
        extracted = pl.col(EXTRACTED_AT)
        start = extracted - longest
        if self.started is not None:
            start = pl.when(extracted >= self.started).then(self.started).otherwise(start)
        known = pl.coalesce(ANSWERED_AT, start)
        return raw.select(pl.min_horizontal(known, pl.lit(self.now, pl.Int64))).to_series()

    def _within(self, sifted: Sifted, read: int) -> tuple[Sifted, int]:
        """Leave out the bars before `since` and from `until` on."""
        since, until = self.settings.since or 0, self.settings.until
        kept = sifted.bars.filter(pl.col("open_time") >= since)
        if until is not None:
            kept = kept.filter(pl.col("open_time") < until)
        return sifted._replace(bars=kept), read - (sifted.bars.height - kept.height)


def _without_superseded(sifted: Sifted) -> Sifted:
    """Forget earlier versions: a table that is appended to holds them, and they are no fault."""
    rejected = sifted.rejected
    return sifted._replace(rejected=rejected.filter(pl.col("reason") != SUPERSEDED))


def _time(text: str | None) -> int:
    try:
        return parse_time(text or "")
    except ConfigurationError:
        msg = f"{EXTRACTED_AT} holds {text!r}, which is no time: is the table Airbyte's own?"
        raise ConfigurationError(msg) from None


def _answer(text: str | None) -> int | None:
    """Read the time of an answer; None for what is none: that may be a column of another's."""
    try:
        return parse_time(text or "")
    except ConfigurationError:
        return None


def _check(connection: Connection, table: str, columns: dict[str, str]) -> set[str]:
    """Name the table's columns; ConfigurationError says what is missing, and what is there."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(table):
        others = sorted(set(inspector.get_table_names()) - {*metadata.tables, "alembic_version"})
        msg = (
            f"the table {table} (BENTLEY_AIRBYTE_TABLE) is not in the warehouse's database; beside "
            f"Bentley's own there is {', '.join(others) or 'none'}. The connection's destination "
            "must write to that database"
        )
        raise ConfigurationError(msg)
    types = {column["name"]: column["type"] for column in inspector.get_columns(table)}
    missing = [name for name in (*columns.values(), EXTRACTED_AT) if name not in types]
    if missing:
        msg = (
            f"the table {table} lacks {', '.join(missing)}; it has {', '.join(types)}. Map a column "
            "of another name in BENTLEY_AIRBYTE_COLUMNS, and let the destination write typed tables"
        )
        raise ConfigurationError(msg)
    # MySQL's JSON holds doubles; MariaDB's is text, and is found as such.
    inexact: tuple[type[Any], ...] = (sa.Float, sa.Integer, sa.JSON)
    if connection.dialect.name == "sqlite":  # it makes floats of what is declared so, too
        inexact = (*inexact, sa.Numeric)
    kinds = {columns[name]: types[columns[name]] for name in DECIMALS}
    rounded = [
        name
        for name, kind in kinds.items()
        if isinstance(kind, inexact)
        or (isinstance(kind, sa.Numeric) and (kind.scale or 0) < domain_bars.SCALE)
    ]
    if rounded:
        shown = ", ".join(f"{name} {kinds[name]}" for name in rounded)
        msg = (
            f"the table {table} keeps {shown}, which have lost digits "
            "already: let the source's schema say text for them, as the connector's own does"
        )
        raise ConfigurationError(msg)
    return set(types)
