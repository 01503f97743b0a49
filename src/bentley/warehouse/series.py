"""Series for research and trading: coins and stocks in one shape, and what people write of them.

Only what is closed is in them. Stocks are the consensus of their sources.
"""

from __future__ import annotations

from datetime import date
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain import adjustment, sessions
from bentley.domain.adjustment import Method
from bentley.domain.bars import BAR_SCHEMA, FIELDS
from bentley.domain.errors import ConfigurationError, DataError
from bentley.domain.stocks import DECIMAL, PRICES
from bentley.warehouse import frames, stocks
from bentley.warehouse.schema import stock_consensus
from bentley.warehouse.warehouse import Warehouse

STOCK_INTERVAL = "1d"

_LATEST = sessions.start_of(date.max)


def bars(
    warehouse: Warehouse,
    name: str,
    interval: str,
    *,
    since: int = 0,
    until: int = _LATEST,
    adjusted: bool = False,
    method: Method = "previous_close",
    exact: bool = False,
) -> pl.DataFrame:
    """Read a coin's or a stock's closed bars with since <= open_time < until (UTC ms), in order.

    Columns are those of a kline (`domain.bars.FIELDS`); prices and volumes are float64, or Decimal
    with `exact`: (28,8) for coins and (38,18) for stocks. A stock's bar opens and closes with its
    session, and has null for what only a kline has.

    With `adjusted` a stock's prices and volume are adjusted for the splits and dividends among the
    bars that are read, by `method` (see `domain.adjustment`): nothing from `until` on is known to
    them. Raises ConfigurationError for an interval that a stock doesn't have, or for exact prices
    that are adjusted, and DataError where no source tells the events, or
    a session between them is missing.
    """
    with warehouse.reading() as connection:
        if not _is_stock(connection, name):
            found = frames.read(
                warehouse,
                name,
                interval,
                since=since,
                until=until,
                columns=(*FIELDS, "is_closed"),
                exact=exact,
            )
            return found.filter("is_closed").select(FIELDS)
        if interval != STOCK_INTERVAL:
            msg = f"{name} is a stock, whose bars are of {STOCK_INTERVAL}, not {interval}"
            raise ConfigurationError(msg)
        days = sessions.day_of(since), sessions.day_of(until)
        decided = stocks.decided(connection, name, first=days[0], last=days[1])
        gaps = [gap for gap in stocks.recorded_gaps(connection, name) if _within(gap, decided)]
    rows = _timed(decided).filter(pl.col("open_time").is_between(since, until, closed="left"))
    if adjusted and gaps:
        msg = (
            f"no source has a price of {name} on {gaps[0][0]} ({len(gaps)} gaps): a split or dividend "
            "may lie there, so nothing before it can be adjusted. Take raw prices, another source, or "
            "bars behind the gap"
        )
        raise DataError(msg)
    if adjusted and exact:
        msg = "adjusted prices are products of factors: they can't be exact"
        raise ConfigurationError(msg)
    if adjusted:
        rows = adjustment.adjusted(rows, method=method)
    elif not exact:
        rows = rows.with_columns(pl.col(*PRICES, "volume").cast(pl.Float64))
    number = DECIMAL if exact else pl.Float64
    wanted = {
        name: number if kind.is_decimal() else kind
        for name, kind in BAR_SCHEMA.items()
        if name in FIELDS
    }
    return rows.select(
        pl.col(name).cast(kind) if name in rows.columns else pl.lit(None, kind).alias(name)
        for name, kind in wanted.items()
    )


def sentiment(warehouse: Warehouse, ticker: str, *, until: int = _LATEST) -> pl.DataFrame:
    """Read the hours of a ticker's sentiment that were available before `until` (UTC ms).

    They are in the order in which they were known: join them to bars by `domain.sentiment.known`.
    """
    with warehouse.reading() as connection:
        hours = stocks.sentiment(connection, ticker)
    return hours.filter(pl.col("available_at") < until).sort("available_at", "hour")


def _is_stock(connection: Connection, name: str) -> bool:
    c = stock_consensus.c
    query: sa.Select[Any] = sa.select(c.ticker).where(c.ticker == name).limit(1)
    return connection.execute(query).first() is not None


def _within(gap: tuple[date, date, int], decided: pl.DataFrame) -> bool:
    """Whether a gap lies between the sessions that were read."""
    return bool(decided.height) and decided["session"][0] < gap[0] < decided["session"][-1]


def _timed(decided: pl.DataFrame) -> pl.DataFrame:
    """Put each session's opening and last millisecond to it, as a kline has them."""
    if not decided.height:
        days = sessions.SCHEMA.to_frame()
    else:
        days = sessions.between(decided["session"][0], decided["session"][-1])
    return decided.join(days, on="session", how="left", maintain_order="left").with_columns(
        symbol=pl.col("ticker"),
        interval=pl.lit(STOCK_INTERVAL),
        open_time=pl.col("opens"),
        close_time=pl.col("closes") - 1,
    )
