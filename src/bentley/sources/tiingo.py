"""Tiingo: end-of-day prices of US stocks, raw and adjusted, with splits and dividends.

https://www.tiingo.com/documentation/end-of-day
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bentley.sources.http import Answer, Server
from bentley.sources.source import Fetched, Period, Source, cells, plain, prices, unknown

NAME = "tiingo"

_COLUMNS = {
    "open": "open",
    "high": "high",
    "low": "low",
    "close": "close",
    "volume": "volume",
    "adj_open": "adjOpen",
    "adj_high": "adjHigh",
    "adj_low": "adjLow",
    "adj_close": "adjClose",
    "adj_volume": "adjVolume",
    "div_cash": "divCash",
    "split_factor": "splitFactor",
}
_UNKNOWN = 404
_LIMIT = "run over your"
_MONTH_SECONDS = 30 * 86_400.0
_HOUR_SECONDS = 3_600.0


def fetch(server: Server, ticker: str, period: Period) -> Fetched:
    """Fetch a ticker's days; see `source.Fetch`."""
    # Tiingo writes classes of shares with a dash.
    name = ticker.replace(".", "-")
    params = {"startDate": period.first.isoformat(), "endDate": period.last.isoformat()}
    answer = server.read(f"/tiingo/daily/{name}/prices", params | {"format": "json"})
    if answer.status == _UNKNOWN:
        raise unknown(server, ticker, _detail(answer))
    if not isinstance(answer.body, list):
        # A limit has come as plain text with status 200.
        if _LIMIT in answer.excerpt:
            monthly = "month" in answer.excerpt
            raise server.limited(answer, _MONTH_SECONDS if monthly else _HOUR_SECONDS)
        raise server.unread(answer)
    return prices((_row(one) for one in answer.body), NAME, ticker, period)


def _row(one: Mapping[str, Any]) -> dict[str, str | None]:
    day = plain(one.get("date"))
    return cells(one, _COLUMNS) | {"session": day and day[:10]}


def _detail(answer: Answer) -> str:
    said = answer.body.get("detail") if isinstance(answer.body, dict) else None
    return str(said) if said else answer.excerpt


SOURCE = Source(
    name=NAME,
    title="Tiingo",
    kind="prices",
    fetch=fetch,
    url="tiingo_url",
    key="tiingo_api_key",
    calls=50,  # an hour, on the free plan
    seconds=3_600.0,
    headers=lambda key: {"Authorization": f"Token {key}"},
    refusals=("supply a token", "invalid token"),  # it answers 403, and never 401
)
