"""Prices of stocks in and out of their tables: by source, their events, and the consensus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import date

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain import consensus, sessions
from bentley.domain.stocks import FIELDS, KEY, actions
from bentley.warehouse import bulk
from bentley.warehouse.ledger import Range, now_ms
from bentley.warehouse.schema import (
    stock_actions,
    stock_consensus,
    stock_gaps,
    stock_prices,
    stock_sentiment,
)

INTERVAL = "1d"
"""How the ledger names the ranges of stocks; their open times are midnights of the sessions."""


def prices(
    connection: Connection,
    ticker: str,
    *,
    source: str | None = None,
    first: date = date.min,
    last: date = date.max,
) -> pl.DataFrame:
    """Rows of a ticker in PRICE_SCHEMA, of one source or of all, by source and session."""
    c = stock_prices.c
    where = [c.ticker == ticker, c.session.between(first, last)]
    if source is not None:
        where.append(c.source == source)
    query = sa.select(*(c[name] for name in FIELDS)).where(*where)
    return bulk.frame(connection, query.order_by(c.source, c.session))


def upsert(connection: Connection, fresh: pl.DataFrame, *, batch_id: int) -> list[Range]:
    """Write the rows of one ticker and source (PRICE_SCHEMA) that differ from what is stored.

    Their splits and dividends go with them. Returns the range that was written, if any.
    """
    if not fresh.height:
        return []
    ticker, source = fresh["ticker"][0], fresh["source"][0]
    days = _extent(fresh)
    known = prices(connection, ticker, source=source, first=days[0], last=days[1])
    new = fresh.join(known, on=FIELDS, how="anti", nulls_equal=True)
    if not new.height:
        return []
    stamped = new.with_columns(
        batch_id=pl.lit(batch_id, pl.Int64), updated_at=pl.lit(now_ms(), pl.Int64)
    )
    bulk.write(connection, stock_prices, stamped)
    _replace_actions(connection, new, batch_id=batch_id)
    return [_range(ticker, new)]


def _replace_actions(connection: Connection, new: pl.DataFrame, *, batch_id: int) -> None:
    c = stock_actions.c
    first, last = _extent(new)
    ticker, source = new["ticker"][0], new["source"][0]
    stored = sa.select(c.ticker, c.session, c.kind, c.source).where(
        c.ticker == ticker, c.source == source, c.session.between(first, last)
    )
    told = actions(new)
    gone = (
        bulk.frame(connection, stored)
        .join(new, on="session", how="semi")
        .join(told, on=["session", "kind"], how="anti")
    )
    for row in gone.iter_rows(named=True):
        connection.execute(stock_actions.delete().where(*(c[key] == row[key] for key in row)))
    if told.height:
        bulk.write(
            connection, stock_actions, told.with_columns(batch_id=pl.lit(batch_id, pl.Int64))
        )


def last_session(connection: Connection, ticker: str, source: str) -> date | None:
    """The last session that a source has told of a ticker."""
    c = stock_prices.c
    found: date | None = connection.scalar(
        sa.select(sa.func.max(c.session)).where(c.ticker == ticker, c.source == source)
    )
    return found


def count_batch(
    connection: Connection, batch_id: int, ranges: Iterable[Range]
) -> tuple[int, str, int | None]:
    """Count the rows that bear `batch_id`, with their checksum and the last session's midnight."""
    c = stock_prices.c
    digest = hashlib.sha256()
    rows, last = 0, None
    for span in ranges:
        query = sa.select(*(c[name] for name in FIELDS)).where(
            c.ticker == span.symbol,
            c.session.between(sessions.day_of(span.first_open), sessions.day_of(span.last_open)),
            c.batch_id == batch_id,
        )
        found = bulk.frame(connection, query.order_by(*(c[name] for name in KEY)))
        digest.update(found.write_csv(include_header=False).encode())
        if found.height:
            rows += found.height
            last = max(last or 0, sessions.start_of(_extent(found)[1]))
    return rows, digest.hexdigest(), last


def decided(
    connection: Connection, ticker: str, *, first: date = date.min, last: date = date.max
) -> pl.DataFrame:
    """The consensus of a ticker, in `consensus.SCHEMA` and session order."""
    c = stock_consensus.c
    query = sa.select(*(c[name] for name in consensus.SCHEMA)).where(
        c.ticker == ticker, c.session.between(first, last)
    )
    return bulk.frame(connection, query.order_by(c.session))


def settle(connection: Connection, fresh: pl.DataFrame, *, batch_id: int) -> list[Range]:
    """Write the sessions of one ticker's consensus that differ from what is stored."""
    if not fresh.height:
        return []
    ticker = fresh["ticker"][0]
    first, last = _extent(fresh)
    known = decided(connection, ticker, first=first, last=last)
    new = fresh.join(known, on=list(consensus.SCHEMA), how="anti", nulls_equal=True)
    if not new.height:
        return []
    stamped = new.with_columns(
        batch_id=pl.lit(batch_id, pl.Int64), updated_at=pl.lit(now_ms(), pl.Int64)
    )
    bulk.write(connection, stock_consensus, stamped)
    return [_range(ticker, new)]


def missing(connection: Connection, ticker: str) -> list[tuple[date, date, int]]:
    """Derive a ticker's gaps: first and last session that lack between others, and their number."""
    c = stock_consensus.c
    stored = bulk.frame(connection, sa.select(c.session).where(c.ticker == ticker))
    if not stored.height:
        return []
    due = sessions.between(*_extent(stored)).with_row_index("at")
    holes = due.join(stored, on="session", how="anti", maintain_order="left")
    grouped = holes.group_by(
        pl.col("at").cast(pl.Int64) - pl.int_range(pl.len()), maintain_order=True
    ).agg(first=pl.col("session").first(), last=pl.col("session").last(), sessions=pl.len())
    return [tuple(row) for row in grouped.select("first", "last", "sessions").iter_rows()]


def record_gaps(connection: Connection, ticker: str, *, batch_id: int) -> int:
    """Derive a ticker's gaps anew and store them; return the number of missing sessions."""
    found = missing(connection, ticker)
    connection.execute(stock_gaps.delete().where(stock_gaps.c.ticker == ticker))
    rows = [
        {
            "ticker": ticker,
            "first_session": first,
            "last_session": last,
            "sessions": count,
            "batch_id": batch_id,
        }
        for first, last, count in found
    ]
    if rows:
        connection.execute(stock_gaps.insert(), rows)
    return sum(count for *_, count in found)


def recorded_gaps(connection: Connection, ticker: str) -> list[tuple[date, date, int]]:
    """The gaps of a ticker as they were stored."""
    c = stock_gaps.c
    found = connection.execute(
        sa.select(c.first_session, c.last_session, c.sessions)
        .where(c.ticker == ticker)
        .order_by(c.first_session)
    )
    return [tuple(row) for row in found]


def write_sentiment(connection: Connection, hours: pl.DataFrame, *, batch_id: int) -> None:
    """Replace hours of sentiment; `hours` has the columns of the table but for the batch."""
    if hours.height:
        stamped = hours.with_columns(batch_id=pl.lit(batch_id, pl.Int64))
        bulk.write(connection, stock_sentiment, stamped)


def sentiment(connection: Connection, ticker: str) -> pl.DataFrame:
    """The hours of a ticker's sentiment, oldest first."""
    c = stock_sentiment.c
    names = ("ticker", "hour", "source", "messages", "bullish", "bearish", "available_at")
    query = sa.select(*(c[name] for name in names)).where(c.ticker == ticker)
    return bulk.frame(connection, query.order_by(c.hour, c.source))


def _extent(rows: pl.DataFrame) -> tuple[date, date]:
    first, last = rows["session"].min(), rows["session"].max()
    assert isinstance(first, date)  # noqa: S101 - the callers give rows
    assert isinstance(last, date)  # noqa: S101
    return first, last


def _range(ticker: str, rows: pl.DataFrame) -> Range:
    first, last = _extent(rows)
    return Range(ticker, INTERVAL, sessions.start_of(first), sessions.start_of(last), rows.height)
