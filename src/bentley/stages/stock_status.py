"""What is stored of each ticker, and how fresh it is, for every command that tells of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.domain import sessions
from bentley.warehouse import stocks
from bentley.warehouse.schema import stock_consensus, stock_prices

_EPOCH = date(1970, 1, 1)


def stored(connection: Connection) -> list[str]:
    """List the tickers that have a price."""
    c = stock_consensus.c
    return list(connection.scalars(sa.select(c.ticker).distinct().order_by(c.ticker)))


def coverage(connection: Connection, tickers: Iterable[str], *, now: int) -> list[dict[str, Any]]:
    """Describe each ticker's consensus as of `now` (UTC ms).

    `behind` is how many sessions have closed since the last that is stored, `missing` how many
    lack between the first and the last, `flags` how many sessions bear each quality flag, and
    `sources` how many prices came from each.
    """
    return [_of(connection, ticker, now) for ticker in tickers]


def _of(connection: Connection, ticker: str, now: int) -> dict[str, Any]:
    c, p = stock_consensus.c, stock_prices.c
    first, last, rows = connection.execute(
        sa.select(sa.func.min(c.session), sa.func.max(c.session), sa.func.count()).where(
            c.ticker == ticker
        )
    ).one()
    if not rows:
        return {"ticker": ticker, "rows": 0}
    flags = sa.select(c.quality_flag, sa.func.count()).where(c.ticker == ticker)
    sources = sa.select(p.source, sa.func.count()).where(p.ticker == ticker)
    return {
        "ticker": ticker,
        "rows": int(rows),
        "first": first.isoformat(),
        "last": last.isoformat(),
        "missing": sum(count for *_, count in stocks.recorded_gaps(connection, ticker)),
        "behind": sessions.between(last, sessions.latest(now)).height - 1
        if last <= sessions.latest(now)
        else 0,
        "flags": _counted(connection, flags.group_by(c.quality_flag).order_by(c.quality_flag)),
        "sources": _counted(connection, sources.group_by(p.source).order_by(p.source)),
    }


def _counted(connection: Connection, query: sa.Select[Any]) -> dict[str, int]:
    return {str(name): int(count) for name, count in connection.execute(query)}


def by_day(connection: Connection, ticker: str) -> Mapping[int, float]:
    """Whether each session from the first to the last is stored: 1 or 0 by day since 1970."""
    c = stock_consensus.c
    days = set(connection.scalars(sa.select(c.session).where(c.ticker == ticker)))
    if not days:
        return {}
    due = sessions.between(min(days), max(days))["session"]
    return {(day - _EPOCH).days: float(day in days) for day in due}


def brief(found: Iterable[Mapping[str, Any]]) -> str:
    """How fresh each ticker is, in a line."""
    return ", ".join(f"{one['ticker']} {_freshness(one)}" for one in found)


def _freshness(one: Mapping[str, Any]) -> str:
    if not one["rows"]:
        return "has no price yet"
    return f"to {one['last']}" + (f", {one['behind']} sessions behind" if one["behind"] else "")


def table(found: Iterable[Mapping[str, Any]]) -> list[str]:
    """How fresh each ticker is, as lines of Markdown."""
    return [
        "| ticker | sessions | first | last | behind | missing |",
        "| --- | ---: | --- | --- | ---: | ---: |",
        *(
            f"| {one['ticker']} | {one['rows']} | {one.get('first', '-')} | {one.get('last', '-')} "
            f"| {one.get('behind', '-')} | {one.get('missing', '-')} |"
            for one in found
        ),
    ]
