"""What people write of every ticker into `stock_sentiment`, by the hour, one batch a run.

Only hours that are over are counted, each once: what was available when is never rewritten.
"""

from __future__ import annotations

from collections.abc import Callable

from bentley.domain.sentiment import HOUR_MS, by_hour
from bentley.settings import Settings
from bentley.sources.source import Period, Source
from bentley.stages.closing import DEAD, without_rows
from bentley.stages.report import StageReport, of_batch
from bentley.stages.stock_pull import clock, over_share, read_each, wanted_tickers
from bentley.warehouse import ledger, states
from bentley.warehouse import stocks as stored
from bentley.warehouse.ledger import SENTIMENT, Range
from bentley.warehouse.warehouse import Warehouse

FIRST_HOURS = 24
"""So far back a ticker's first pull reaches."""

_LOCK_SECONDS = 900.0


def pull(
    settings: Settings,
    source: Source,
    *,
    dag_run: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> StageReport:
    """Count the hours that are over since the last pull; raises what `stock_pull.pull` raises."""
    tickers = wanted_tickers(settings)
    with (
        Warehouse.open(settings) as warehouse,
        warehouse.alone(f"{SENTIMENT}.{source.name}", wait_seconds=_LOCK_SECONDS),
    ):
        with warehouse.reading() as connection:
            running = ledger.running(connection, SENTIMENT)
        for batch in running:
            if batch.engine == source.name:
                without_rows(warehouse, batch.id, DEAD)
        with warehouse.writing() as connection:
            batch_id = ledger.begin(connection, SENTIMENT, engine=source.name, dag_run=dag_run)
        try:

            def read(ticker: str) -> None:
                _count(settings, warehouse, source, ticker, batch_id=batch_id)

            failures = read_each(tickers, read, progress)
        except BaseException as error:
            without_rows(warehouse, batch_id, error)
            raise
        named = [
            {"symbol": ticker, "interval": "1h", "message": f"{ticker}: {error}"}
            for ticker, error in failures.items()
        ]
        excess = over_share(failures, len(tickers), settings.max_failed_share)
        with warehouse.writing() as connection:
            ledger.close(
                connection,
                batch_id,
                checksum=None,
                watermark=clock(),
                details={"failures": named},
                error=None if excess is None else str(excess),
            )
        with warehouse.reading() as connection:
            closed = ledger.get(connection, batch_id)
    if excess is not None:
        raise excess
    assert closed is not None  # noqa: S101
    return of_batch(closed, origin=settings.origin, failures=tuple(named))


def _count(
    settings: Settings,
    warehouse: Warehouse,
    source: Source,
    ticker: str,
    *,
    batch_id: int,
) -> None:
    name = f"{SENTIMENT}.{source.name}"
    until = clock() // HOUR_MS * HOUR_MS
    with warehouse.reading() as connection:
        state = states.load(connection, name, ticker)
    since = until - FIRST_HOURS * HOUR_MS if state is None else int(state["until"])
    if since >= until:
        return
    fetched = source.pull(settings, ticker, Period(since, until))
    whole = max(since, fetched.since)
    read_at = clock()  # after the answer: nobody knew of it before
    hours = by_hour(
        fetched.rows, ticker=ticker, source=source.name, since=whole, until=until, now=read_at
    )
    ranges = [Range(ticker, "1h", whole, until - HOUR_MS, hours.height)] if hours.height else []
    with warehouse.writing() as connection:
        stored.write_sentiment(connection, hours, batch_id=batch_id)
        ledger.add(
            connection,
            batch_id,
            read=fetched.rows.height,
            written=hours.height,
            news=hours.height,
            ranges=ranges,
        )
        states.save(connection, name, ticker, {"until": until}, batch_id=batch_id)
