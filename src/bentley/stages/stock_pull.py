"""One source's prices of every ticker into `stock_prices`, one batch a run.

A ticker is asked for from a few sessions before the last one stored, so that corrections are
seen. Where a split or dividend came, or adjusted prices that are stored have changed, the source
has rewritten the ticker's adjusted history: all of it is fetched again before a row is written.
A ticker is one transaction: its rows, its events, its counts, and how far it has been read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import polars as pl
from sqlalchemy.engine import Connection

from bentley.domain import sessions, stocks
from bentley.domain.errors import (
    BentleyError,
    ConfigurationError,
    FatalError,
    RetriableError,
    described,
)
from bentley.settings import Settings
from bentley.sources.source import Fetched, Period, Source
from bentley.stages import stock_ties
from bentley.stages.closing import DEAD, Counted, counted
from bentley.stages.report import StageReport, of_batch
from bentley.warehouse import ledger, quarantine, states
from bentley.warehouse import stocks as stored
from bentley.warehouse.ledger import STOCKS, Batch
from bentley.warehouse.quarantine import Brief
from bentley.warehouse.warehouse import Warehouse

LOOKBACK_SESSIONS = 5
"""Stored sessions that every pull reads again, for corrections that came late."""

_LOCK_SECONDS = 900.0
_STALE_MS = 20 * 3_600_000
_WHOLE_AGAIN_MS = 7 * 86_400_000
"""So often all of a ticker is read again, for what was corrected or told late, further back."""

_GIVES_UP_AFTER = 3
"""A source that fails so many tickers in a row for a passing reason is down."""

_NOISE = 1e-6
_DAY = timedelta(days=1)

Progress = Callable[[str], None]


def clock() -> int:
    """Now, in UTC milliseconds: no source of stocks has a clock to go by."""
    return ledger.now_ms()


def wanted_tickers(settings: Settings) -> tuple[str, ...]:
    """The universe's tickers; ConfigurationError where it has none."""
    if settings.tickers:
        return settings.tickers
    msg = "no tickers: name some in BENTLEY_TICKERS, like AAPL,SPY, or in the universe file"
    raise ConfigurationError(msg)


def pull(
    settings: Settings,
    source: Source,
    *,
    stale_before: int | None = None,
    again: bool = False,
    dag_run: str | None = None,
    progress: Progress | None = None,
) -> StageReport:
    """Bring what is new of every ticker from one source, and what it has corrected.

    A ticker whose latest session is stored is asked for again only where it was read before
    `stale_before` (UTC milliseconds; 20 hours ago by default), and all of it once a week. With
    `again`, everything from the settings' `since` on is read once more. A ticker that fails is
    named among the failures, and the others stay whole; past the share that
    BENTLEY_MAX_FAILED_SHARE allows, and for a limit, the batch fails, with what succeeded in it.
    Raises ConfigurationError without tickers or the source's key, RetriableError where all that
    failed may pass or a limit was met, FatalError for other failures past the share.
    """
    tickers = wanted_tickers(settings)
    if (reason := source.missing(settings)) is not None:
        msg = f"{source.title} can't be asked: {reason}"
        raise ConfigurationError(msg)
    with (
        Warehouse.open(settings) as warehouse,
        warehouse.alone(f"{STOCKS}.{source.name}", wait_seconds=_LOCK_SECONDS),
    ):
        close_dead(warehouse, STOCKS, source.name)
        with warehouse.writing() as connection:
            batch_id = ledger.begin(connection, STOCKS, engine=source.name, dag_run=dag_run)
        run = _Run(settings, warehouse, source, batch_id, stale_before=stale_before, again=again)
        try:
            run.read_all(tickers, progress)
        except BaseException as error:
            _close(warehouse, batch_id, error=described(error))
            raise
        details = {
            "failures": run.named,
            "asked": run.asked,
            "reread": run.reread,
            "behind": run.behind(tickers),
        }
        excess = over_share(run.failures, len(tickers), settings.max_failed_share)
        batch = _close(
            warehouse, batch_id, details=details, error=None if excess is None else str(excess)
        )
    if excess is not None:
        raise excess
    return of_batch(
        batch,
        origin=settings.origin,
        failures=tuple(run.named),
        rejects=tuple(run.rejects),
        details=details,
    )


def close_dead(warehouse: Warehouse, stage: str, engine: str) -> None:
    """Close the batches of a source whose process died; the caller holds the source's lock."""
    with warehouse.reading() as connection:
        dead = [one for one in ledger.running(connection, stage) if one.engine == engine]
    for batch in dead:
        _close(warehouse, batch.id, error=DEAD)


def over_share(
    failures: dict[str, BentleyError], of: int, share: float
) -> RetriableError | FatalError | None:
    """Return the error where more tickers failed than may; None where the rest is to be kept.

    A limit is never forgiven: the same tickers would be left out every time.
    """
    if not failures:
        return None
    if len(failures) <= share * of and not any(map(is_limit, failures.values())):
        return None
    said = "; ".join(f"{ticker}: {error}" for ticker, error in failures.items())
    msg = f"{len(failures)} of {of} tickers failed, what the others gave is stored ({said})"
    passing = [error for error in failures.values() if isinstance(error, RetriableError)]
    if len(passing) == len(failures) or any(map(is_limit, passing)):
        waits = [error.retry_after or 0.0 for error in passing]
        return RetriableError(msg, retry_after=max(waits) or None)
    return FatalError(msg)


def read_each(
    tickers: Iterable[str], read: Callable[[str], None], progress: Progress | None
) -> dict[str, BentleyError]:
    """Read each ticker and return the errors of those that failed.

    A source that asks to wait, or that fails several tickers in a row, is asked no more.
    """
    failures: dict[str, BentleyError] = {}
    in_a_row = 0
    down: RetriableError | None = None
    for ticker in tickers:
        if down is not None:
            msg = f"not asked for any more: {down}"
            failures[ticker] = RetriableError(msg, retry_after=down.retry_after)
            continue
        if progress is not None:
            progress(ticker)
        try:
            read(ticker)
        except ConfigurationError:
            raise
        except RetriableError as error:
            failures[ticker] = error
            in_a_row += 1
            if in_a_row >= _GIVES_UP_AFTER or is_limit(error):
                down = error
        except BentleyError as error:
            failures[ticker] = error
            in_a_row = 0
        else:
            in_a_row = 0
    return failures


@dataclass(frozen=True)
class _Plan:
    """From where on a ticker is asked for, and from where on it is to be whole."""

    start: date
    since: date
    last: date | None
    whole_at: int


class _Run:
    """The state of one run of the stage."""

    def __init__(
        self,
        settings: Settings,
        warehouse: Warehouse,
        source: Source,
        batch_id: int,
        *,
        stale_before: int | None,
        again: bool,
    ) -> None:
        self.settings = settings
        self.warehouse = warehouse
        self.source = source
        self.batch_id = batch_id
        self.again = again
        self.now = clock()
        self.stale_before = self.now - _STALE_MS if stale_before is None else stale_before
        self.failures: dict[str, BentleyError] = {}
        self.asked = 0
        self.reread: list[str] = []
        self.rejects: list[Brief] = []

    @property
    def named(self) -> list[dict[str, str]]:
        """The failures as a report lists them."""
        return [
            {"symbol": ticker, "interval": stored.INTERVAL, "message": f"{ticker}: {error}"}
            for ticker, error in self.failures.items()
        ]

    @property
    def _name(self) -> str:
        return f"{STOCKS}.{self.source.name}"

    def read_all(self, tickers: Iterable[str], progress: Progress | None) -> None:
        """Read each ticker, those first that were asked for longest ago: a limit starves none."""
        with self.warehouse.reading() as connection:
            known = states.under(connection, self._name, "")
        asked = {ticker: state["asked_at"] for ticker, state in known.items()}
        in_turn = sorted(tickers, key=lambda ticker: asked.get(ticker, 0))
        self.failures = read_each(in_turn, self._read, progress)

    def _read(self, ticker: str) -> None:
        plan = self._plan(ticker)
        if plan is None or plan.start > self._due():
            return
        self.asked += 1
        fetched, sifted = self._fetch(ticker, plan.start)
        if plan.start > plan.since and self._is_rewritten(ticker, sifted.prices, plan):
            self.reread.append(ticker)
            fetched, sifted = self._fetch(ticker, plan.since)
        with self.warehouse.writing() as connection:
            named = quarantine.put(
                connection, sifted.rejected, batch_id=self.batch_id, stage=STOCKS
            )
            bad = quarantine.excess(
                sifted.rejected.height,
                fetched.rows.height,
                self.settings.max_rejected_share,
                named=named,
            )
            ranges = stored.upsert(connection, sifted.prices, batch_id=self.batch_id)
            rows = sum(one.rows for one in ranges)
            ledger.add(
                connection,
                self.batch_id,
                read=fetched.rows.height,
                written=rows,
                news=rows,
                rejected=sifted.rejected.height,
                ranges=ranges,
            )
            if bad is None:
                # What was asked for, not what came: a source that has less is not asked for ever.
                state = {
                    "since": plan.since.isoformat(),
                    "asked_at": self.now,
                    "whole_at": plan.whole_at,
                }
                states.save(connection, self._name, ticker, state, batch_id=self.batch_id)
        self.rejects = [*self.rejects, *named][: quarantine.NAMED]
        if bad is not None:
            raise bad
        stock_ties.every_event_is_stored(sifted.rejected)
        if sifted.prices["adj_close"].count():
            with self.warehouse.reading() as connection:
                known = stored.prices(connection, ticker, source=self.source.name)
            until = self.settings.until
            newest = (until is None or until > self.now) and stock_ties.nothing_followed(
                known["session"][-1], sifted.forming, now=self.now
            )
            stock_ties.tied(self.source, known, newest=newest)

    def _plan(self, ticker: str) -> _Plan | None:
        """From where on to ask; None where nothing new can be there."""
        wanted = self._since()
        with self.warehouse.reading() as connection:
            state = states.load(connection, self._name, ticker)
            last = stored.last_session(connection, ticker, self.source.name)
        if state is None:
            return _Plan(wanted, wanted, last, self.now)
        since = date.fromisoformat(state["since"])
        if self.again or wanted < since:
            return _Plan(min(wanted, since), min(wanted, since), last, self.now)
        if self.now - state["whole_at"] >= _WHOLE_AGAIN_MS:
            return _Plan(since, since, last, self.now)
        fresh = state["asked_at"] >= self.stale_before
        if fresh and last is not None and last >= self._due():
            return None
        start = since if last is None else sessions.before(last, LOOKBACK_SESSIONS)
        return _Plan(max(start, since), since, last, state["whole_at"])

    def behind(self, tickers: Iterable[str]) -> dict[str, int]:
        """How many sessions each ticker lacks that are due; those without a price lack all."""
        due = self._due()
        found = {}
        with self.warehouse.reading() as connection:
            for ticker in tickers:
                last = stored.last_session(connection, ticker, self.source.name)
                first = self._since() if last is None else last + _DAY
                if (count := sessions.between(first, due).height) > 0:
                    found[ticker] = count
        return found

    def _since(self) -> date:
        if self.settings.since is not None:
            return sessions.day_of(self.settings.since)
        return sessions.day_of(self.now) - self.settings.history_days * _DAY

    def _due(self) -> date:
        """The latest session that is to be there."""
        return sessions.latest(min(self.now, self.settings.until or self.now))

    def _fetch(self, ticker: str, start: date) -> tuple[Fetched, stocks.Sifted]:
        until = min(self.now + 1, self.settings.until or self.now + 1)
        period = Period(sessions.start_of(start), until)
        fetched = self.source.pull(self.settings, ticker, period)
        return fetched, stocks.sift(fetched.rows, now=self.now)

    def _is_rewritten(self, ticker: str, fresh: pl.DataFrame, plan: _Plan) -> bool:
        """Whether the adjusted prices before these are others now: by an event, or by what differs."""
        told = fresh.filter(pl.col("adj_close").is_not_null())
        if not told.height:
            return False
        events = stocks.actions(told)
        if plan.last is not None and events.filter(pl.col("session") > plan.last).height:
            return True
        with self.warehouse.reading() as connection:
            known = stored.prices(
                connection, ticker, source=self.source.name, first=plan.start
            ).filter(pl.col("adj_close").is_not_null())
        both = told.join(known, on="session", suffix="_known")
        # Some sources give other last digits from one answer to the next.
        ratio = both["adj_close"].cast(pl.Float64) / both["adj_close_known"].cast(pl.Float64)
        return bool(((ratio - 1).abs() > _NOISE).any())


def is_limit(error: BentleyError) -> bool:
    """Whether a server asks to be left alone for a while."""
    return isinstance(error, RetriableError) and error.retry_after is not None


def _close(
    warehouse: Warehouse,
    batch_id: int,
    *,
    details: dict[str, Any] | None = None,
    error: str | None = None,
) -> Batch:
    """Count the batch's rows back from the table and close it on what is found there."""

    def count(connection: Connection, batch: Batch) -> Counted:
        rows, checksum, watermark = stored.count_batch(connection, batch_id, batch.ranges)
        return Counted(rows, rows, watermark, checksum)

    return counted(warehouse, batch_id, count, what="prices", details=details, error=error)
