"""Checks the prices of stocks against themselves and against where they came from."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain import consensus, sessions, stocks
from bentley.domain.errors import BentleyError
from bentley.settings import Settings
from bentley.sources import catalog
from bentley.sources.source import Period, Source
from bentley.stages.table_checks import Check, Kept, as_written, compared, told
from bentley.warehouse import ledger
from bentley.warehouse import stocks as stored
from bentley.warehouse.ledger import CONSENSUS, STOCKS, Batch, Range
from bentley.warehouse.schema import stock_consensus, stock_prices

SAMPLE_SESSIONS = 20
_CELLS = ("session", *stocks.PRICES, "volume")


def checks(connection: Connection, settings: Settings) -> list[Check]:
    """Recompute checksums, the consensus and the gaps of every ticker.

    Nothing where there is no ticker, and none is lost.
    """
    tickers = _tickers(connection)
    written = as_written(connection, "checksums of stocks are the ledger's", _PRICES)
    if not tickers and written.held:
        return []
    return [
        written,
        _decided(connection, settings, tickers),
        _gaps(connection, tickers),
    ]


def _tickers(connection: Connection) -> list[str]:
    """List the tickers of either table: prices without a consensus are wrong, too."""
    of_each = (sa.select(table.c.ticker) for table in (stock_prices, stock_consensus))
    return sorted(connection.scalars(sa.union(*of_each)))


def _within(batch: Batch, span: Range) -> sa.ColumnElement[bool]:
    c = stock_prices.c
    days = sessions.day_of(span.first_open), sessions.day_of(span.last_open)
    return sa.and_(c.ticker == span.symbol, c.source == batch.engine, c.session.between(*days))


def _checksum(connection: Connection, batch: Batch) -> str:
    return stored.count_batch(connection, batch.id, batch.ranges)[1]


_PRICES = Kept(STOCKS, stock_prices, "price", _within, _checksum)


def _decided(connection: Connection, settings: Settings, tickers: Iterable[str]) -> Check:
    """Decide every session anew, but for those whose prices no consensus has taken yet.

    A pull that is at work has stored some, which are announced at its end.
    """
    untaken = [*ledger.unconsumed(connection, CONSENSUS), *ledger.running(connection, STOCKS)]
    waiting = {span.symbol for batch in untaken for span in batch.ranges}
    wrong: list[str] = []
    count = 0
    for ticker in tickers:
        if ticker in waiting:
            continue
        anew = consensus.decide(
            stored.prices(connection, ticker),
            order=settings.sources,
            bound_bps=settings.consensus_bps,
        )
        kept = stored.decided(connection, ticker)
        columns = list(consensus.SCHEMA)
        differing = pl.concat(
            [
                anew.join(kept, on=columns, how="anti", nulls_equal=True),
                kept.join(anew, on=columns, how="anti", nulls_equal=True),
            ]
        )
        count += anew.height
        wrong += [f"{ticker} {day}" for day in sorted(set(differing["session"]))]
    said = f"{count} sessions decided anew"
    if wrong:
        said = f"{told(wrong)}: were the sources or the bound changed? bentley stocks consensus --again"
    return Check("the consensus follows from the prices", not wrong, said)


def _gaps(connection: Connection, tickers: Iterable[str]) -> Check:
    """Derive every ticker's missing sessions anew."""
    wrong, count = [], 0
    for ticker in tickers:
        found, recorded = (
            stored.missing(connection, ticker),
            stored.recorded_gaps(connection, ticker),
        )
        count += sum(missing for *_, missing in found)
        if found != recorded:
            wrong.append(f"{ticker} has {len(found)} gaps, {len(recorded)} are recorded")
    detail = f"{count} missing sessions, each recorded"
    return Check("every missing session is recorded", not wrong, told(wrong) or detail)


def sample(
    connection: Connection, settings: Settings, chance: random.Random
) -> list[tuple[Source, str, pl.DataFrame]]:
    """Read some sessions of a ticker, by chance, of each source that gave any."""
    return list(_samples(connection, settings, chance))


def _samples(
    connection: Connection, settings: Settings, chance: random.Random
) -> Iterator[tuple[Source, str, pl.DataFrame]]:
    tickers = _tickers(connection)
    for name in settings.sources:
        for ticker in chance.sample(tickers, len(tickers)):
            rows = stored.prices(connection, ticker, source=name)
            if rows.height:
                start = chance.randrange(max(1, rows.height - SAMPLE_SESSIONS + 1))
                yield catalog.named(name), ticker, rows.slice(start, SAMPLE_SESSIONS)
                break


def against_sources(
    settings: Settings, samples: Iterable[tuple[Source, str, pl.DataFrame]]
) -> Check:
    """Compare the raw prices of the samples with what their sources say of them now."""
    wrong: list[str] = []
    unasked: list[str] = []
    count = 0
    for source, ticker, rows in samples:
        if (reason := source.missing(settings)) is not None:
            unasked.append(f"{source.title}: {reason}")
            continue
        try:
            first, last = rows["session"][0], rows["session"][-1]
            period = Period(sessions.start_of(first), sessions.start_of(last) + 1)
            answer = source.pull(settings, ticker, period)
            said = stocks.sift(answer.rows, now=ledger.now_ms()).prices
            due = rows if answer.since <= period.since else rows.clear()
            differing = due.select(_CELLS).join(said.select(_CELLS), on=_CELLS, how="anti")
            count += due.height
            wrong += [f"{source.name} {ticker} {day}" for day in differing["session"]]
        except BentleyError as error:
            unasked.append(str(error))
    return compared("sampled prices are their sources'", wrong, unasked, count, "session")
