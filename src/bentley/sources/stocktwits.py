"""StockTwits: what people write of a ticker, and whether they call themselves bullish or bearish.

https://api.stocktwits.com/developers/docs. A stream comes newest first, 30 messages a page, and
reaches back some 800 messages: of a busy ticker only the latest hours can be had.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl

from bentley.domain.sentiment import HOUR_MS, MESSAGE_SCHEMA
from bentley.sources.http import Answer, Server
from bentley.sources.source import Fetched, Period, Source, unknown

NAME = "stocktwits"

_UNKNOWN = 404
_PAGES = 27
"""The 800 messages of a stream, and one page to see its end."""


def fetch(server: Server, ticker: str, period: Period) -> Fetched:
    """Fetch a ticker's messages; see `source.Fetch`.

    Where the stream doesn't reach back to the period's beginning, it is whole from the hour on
    that follows the oldest message.
    """
    found: dict[str, dict[str, Any]] = {}
    path = f"/api/2/streams/symbol/{ticker}.json"
    params: dict[str, str] = {}
    for _page in range(_PAGES):
        answer = server.read(path, params)
        messages = _messages(server, ticker, answer)
        fresh = [_row(one, ticker) for one in messages if str(one["id"]) not in found]
        found |= {row["message_id"]: row for row in fresh}
        oldest = min((row["created_at"] for row in fresh), default=period.until)
        if oldest < period.since or not found:  # beyond it, or of a ticker without any message
            return _fetched(found, period, period.since)
        if not fresh:
            break
        cursor = answer.body.get("cursor") or {}
        if cursor.get("more") is False:
            return _fetched(found, period, period.since)  # the ticker's very first messages
        params = {"max": str(cursor.get("max") or min(messages, key=_id)["id"])}
    first = min((row["created_at"] for row in found.values()), default=period.until)
    return _fetched(found, period, (first // HOUR_MS + 1) * HOUR_MS)


def _messages(server: Server, ticker: str, answer: Answer) -> list[dict[str, Any]]:
    if answer.status == _UNKNOWN:
        raise unknown(server, ticker)
    messages = answer.body.get("messages") if isinstance(answer.body, dict) else None
    if not isinstance(messages, list):
        raise server.unread(answer)
    return messages


def _id(one: dict[str, Any]) -> int:
    return int(one["id"])


def _row(one: dict[str, Any], ticker: str) -> dict[str, Any]:
    written = datetime.fromisoformat(one["created_at"])
    sentiment = (one.get("entities") or {}).get("sentiment") or {}
    return {
        "ticker": ticker,
        "message_id": str(one["id"]),
        "created_at": int(written.timestamp() * 1000),
        "sentiment": sentiment.get("basic"),
        "source": NAME,
    }


def _fetched(found: dict[str, dict[str, Any]], period: Period, since: int) -> Fetched:
    rows = pl.DataFrame(list(found.values()), MESSAGE_SCHEMA)
    inside = pl.col("created_at").is_between(since, period.until, closed="left")
    return Fetched(rows.filter(inside).sort("created_at", "message_id"), since)


SOURCE = Source(
    name=NAME,
    title="StockTwits",
    kind="sentiment",
    fetch=fetch,
    url="stocktwits_url",
    key=None,
    calls=200,  # an hour, without a login
    seconds=3_600.0,
)
