"""Polygon, also named Massive: daily bars of US stocks as traded, with splits and dividends.

https://polygon.io/docs/rest/stocks/aggregates/custom-bars, and its reference of splits and
dividends. The key goes in a header: an address ends up in logs.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from bentley.domain.errors import RetriableError
from bentley.sources.http import Answer, Server
from bentley.sources.source import Fetched, Period, Source, cells, prices, unknown

NAME = "polygon"

_NEW_YORK = ZoneInfo("America/New_York")
_COLUMNS = {"open": "o", "high": "h", "low": "l", "close": "c", "volume": "v"}
_UNKNOWN = 404
_GOOD = {"OK", "DELAYED"}
_LIMIT = "50000"
_EVENTS_LIMIT = "1000"


def fetch(server: Server, ticker: str, period: Period) -> Fetched:
    """Fetch a ticker's days; see `source.Fetch`.

    A ticker that has no bars is looked up: Polygon answers 200 without results for one that it
    doesn't know.
    """
    first, last = period.first.isoformat(), period.last.isoformat()
    path = f"/v2/aggs/ticker/{ticker}/range/1/day/{first}/{last}"
    wanted = {"adjusted": "false", "sort": "asc", "limit": _LIMIT}
    bars = list(_pages(server, ticker, path, wanted))
    if not bars:
        _look_up(server, ticker)
        return prices((), NAME, ticker, period)
    splits = _events(server, ticker, "splits", "execution_date", (first, last))
    paid = _events(server, ticker, "dividends", "ex_dividend_date", (first, last))
    rows: dict[str, dict[str, str | None]] = {}
    for bar in bars:
        row = _row(bar, splits, paid)
        rows[str(row["session"])] = row
    newest = max(rows)
    for day in splits.keys() | paid.keys():
        if day < newest and day not in rows:  # without a bar: it must not be lost
            rows[day] = {"session": day, **_told_of(day, splits, paid)}
    return prices(rows.values(), NAME, ticker, period)


def _pages(
    server: Server, ticker: str, path: str, params: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield all results, page after page, each from the address that is configured."""
    asked: set[tuple[str, ...]] = set()
    while True:
        answer = server.read(path, params)
        if answer.status == _UNKNOWN:
            raise unknown(server, ticker, _said(answer))
        if not isinstance(answer.body, dict) or answer.body.get("status") not in _GOOD:
            raise server.unread(answer)
        yield from answer.body.get("results") or ()
        following = answer.body.get("next_url")
        if not following:
            return
        # Their own address, and not one that an answer names, is given the key.
        parts = urlsplit(following)
        path = parts.path
        params = {name: value for name, value in parse_qsl(parts.query) if name != "apiKey"}
        page = (path, *sorted(map("=".join, params.items())))
        if page in asked:
            msg = f"{server.what} names the same next page of {ticker} again and again"
            raise RetriableError(msg)
        asked.add(page)


def _look_up(server: Server, ticker: str) -> None:
    answer = server.read(f"/v3/reference/tickers/{ticker}")
    if answer.status == _UNKNOWN:
        raise unknown(server, ticker, _said(answer))
    if not isinstance(answer.body, dict):
        raise server.unread(answer)


def _events(
    server: Server, ticker: str, kind: str, day: str, days: tuple[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """Splits or dividends by the day from which on a share trades without them."""
    wanted = {
        "ticker": ticker,
        f"{day}.gte": days[0],
        f"{day}.lte": days[1],
        "limit": _EVENTS_LIMIT,
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for one in _pages(server, ticker, f"/v3/reference/{kind}", wanted):
        if one.get("ticker") == ticker:
            found.setdefault(str(one.get(day)), []).append(one)
    return found


def _row(
    bar: dict[str, Any],
    splits: dict[str, list[dict[str, Any]]],
    paid: dict[str, list[dict[str, Any]]],
) -> dict[str, str | None]:
    moment = datetime.fromtimestamp(int(bar["t"]) / 1000, tz=UTC).astimezone(_NEW_YORK)
    day = moment.date().isoformat()
    return cells(bar, _COLUMNS) | {"session": day} | _told_of(day, splits, paid)


def _told_of(
    day: str, splits: dict[str, list[dict[str, Any]]], paid: dict[str, list[dict[str, Any]]]
) -> dict[str, str | None]:
    split = Decimal(1)
    for one in splits.get(day, ()):
        split *= Decimal(one["split_to"]) / Decimal(one["split_from"])
    dividend = sum((Decimal(one["cash_amount"]) for one in paid.get(day, ())), Decimal(0))
    return {
        "split_factor": f"{round(split, 18).normalize():f}",
        "div_cash": f"{dividend:f}",
    }


def _said(answer: Answer) -> str:
    body = answer.body if isinstance(answer.body, dict) else {}
    return str(body.get("error") or body.get("message") or answer.excerpt)


SOURCE = Source(
    name=NAME,
    title="Polygon",
    kind="prices",
    fetch=fetch,
    url="polygon_url",
    key="polygon_api_key",
    calls=5,  # a minute, on the free plan
    seconds=60.0,
    headers=lambda key: {"Authorization": f"Bearer {key}"},
)
