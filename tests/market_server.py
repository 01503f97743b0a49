"""A stand-in for the sources of stocks, built from their documentation and recorded answers.

One server on loopback speaks the APIs of Tiingo, Polygon, Alpha Vantage, Yahoo and StockTwits,
each made from the same histories (rows as `stock_support.history` has them). What an API is told
to say by `say` comes before that.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
PRICES = ("open", "high", "low", "close")
KEYS = {"tiingo": "k-tiingo-1", "polygon": "k-polygon-2", "alpha_vantage": "k-alpha-3"}
Row = dict[str, str]


@dataclass
class Said:
    """An answer that an API gives instead of its own, so many times."""

    status: int
    body: str
    headers: dict[str, str]
    times: int
    cut: bool = False
    path: str = ""


@dataclass
class Asked:
    api: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Market:
    """What the server knows, and what it was asked."""

    url: str = ""
    histories: dict[str, list[Row]] = field(default_factory=dict)
    messages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    polygon_page: int = 50_000
    stream_reaches: int = 800
    asked: list[Asked] = field(default_factory=list)
    _said: dict[tuple[str, str], list[Said]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def settings(self) -> dict[str, str]:
        """Settings that lead every source here, keys included."""
        names = ("tiingo", "polygon", "alpha_vantage", "yahoo", "stocktwits")
        return {f"{name}_url": self.url for name in names} | {
            f"{name}_api_key": key for name, key in KEYS.items()
        }

    def environment(self) -> dict[str, str]:
        """The same as environment variables."""
        return {
            name.upper() if name.endswith("_key") else f"BENTLEY_{name.upper()}": value
            for name, value in self.settings().items()
        }

    def say(
        self,
        api: str,
        status: int,
        body: Any,
        *,
        ticker: str = "",
        times: int = 1_000_000,
        cut: bool = False,
        path: str = "",
        **headers: str,
    ) -> None:
        """Let an API answer so, for one ticker or all; `cut` drops the connection half way.

        With `path` it does so only where that is part of the address.
        """
        text = body if isinstance(body, str) else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._said.setdefault((api, ticker), []).append(Said(status, text, named, times, cut, path))

    def be_itself(self) -> None:
        self._said.clear()

    def requests(self, api: str) -> list[Asked]:
        return [one for one in self.asked if one.api == api]

    def told(self, api: str, ticker: str, path: str) -> Said | None:
        with self.lock:
            for key in ((api, ticker), (api, "")):
                for said in self._said.get(key, ()):
                    if said.times > 0 and said.path in path:
                        said.times -= 1
                        return said
        return None


def answer(market: Market, path: str, query: dict[str, str], headers: Any) -> tuple[str, Said]:
    """The API that a path belongs to, and what it says."""
    parts = path.strip("/").split("/")
    api, ticker = "nobody", ""
    make: Callable[[], Said] = lambda: _json(404, {"error": f"no such path {path}"})  # noqa: E731
    match parts:
        case ["tiingo", "daily", ticker, "prices"]:
            api, make = "tiingo", lambda: _tiingo(market, ticker, query, headers)
        case ["v2", "aggs", "ticker", ticker, "range", "1", "day", first, last]:
            api, make = "polygon", lambda: _bars(market, ticker, (first, last), query, headers)
        case ["v3", "reference", "tickers", ticker]:
            api, make = "polygon", lambda: _details(market, ticker, headers)
        case ["v3", "reference", ("splits" | "dividends") as kind]:
            ticker = query.get("ticker", "")
            api, make = "polygon", lambda: _events(market, kind, query, headers)
        case ["query"]:
            ticker = query.get("symbol", "")
            api, make = "alpha_vantage", lambda: _alpha(market, query)
        case ["v8", "finance", "chart", ticker]:
            api, make = "yahoo", lambda: _yahoo(market, ticker, query)
        case ["api", "2", "streams", "symbol", name]:
            ticker = name.removesuffix(".json")
            api, make = "stocktwits", lambda: _stream(market, ticker, query)
    return api, market.told(api, ticker, path) or make()


def _json(status: int, body: Any) -> Said:
    return Said(status, json.dumps(body), {"Content-Type": "application/json"}, 1)


def _between(rows: list[Row], first: str, last: str) -> list[Row]:
    return [row for row in rows if first <= row["session"] <= last]


def _tiingo(market: Market, ticker: str, query: dict[str, str], headers: Any) -> Said:
    token = headers.get("Authorization", "").removeprefix("Token").strip()
    if token != KEYS["tiingo"]:
        said = "Invalid token." if token else "Please supply a token"
        return _json(403, {"detail": said})
    if ticker not in market.histories:
        return _json(404, {"detail": f"Error: Ticker '{ticker}' not found"})
    rows = _between(market.histories[ticker], query["startDate"], query["endDate"])
    return _json(
        200,
        [
            {
                "date": f"{row['session']}T00:00:00.000Z",
                **{name: float(row[name]) for name in PRICES},
                "volume": int(row["volume"]),
                **{f"adj{name.title()}": float(row[f"adj_{name}"]) for name in PRICES},
                "adjVolume": int(row["adj_volume"]),
                "divCash": float(row["div_cash"]),
                "splitFactor": float(row["split_factor"]),
            }
            for row in rows
        ],
    )


def _allowed(headers: Any) -> bool:
    return bool(headers.get("Authorization") == f"Bearer {KEYS['polygon']}")


_POLYGON_REFUSES = {"status": "ERROR", "error": "Unknown API Key"}


def _bars(
    market: Market, ticker: str, days: tuple[str, str], query: dict[str, str], headers: Any
) -> Said:
    first, last = days
    if not _allowed(headers):
        return _json(401, _POLYGON_REFUSES)
    assert query["adjusted"] == "false"
    rows = _between(market.histories.get(ticker, []), first, last)
    at = int(query.get("cursor", 0))
    page = rows[at : at + market.polygon_page]
    body: dict[str, Any] = {"ticker": ticker, "status": "OK", "resultsCount": len(page)}
    if page:
        body["results"] = [
            {
                "t": int(
                    datetime.combine(
                        date.fromisoformat(row["session"]), time(), tzinfo=NEW_YORK
                    ).timestamp()
                    * 1000
                ),
                **{name[0]: float(row[name]) for name in PRICES},
                "v": float(row["volume"]),
            }
            for row in page
        ]
    if at + market.polygon_page < len(rows):
        following = urlencode(query | {"cursor": at + market.polygon_page})
        path = f"/v2/aggs/ticker/{ticker}/range/1/day/{first}/{last}"
        body["next_url"] = f"https://api.polygon.io{path}?{following}"
    return _json(200, body)


def _details(market: Market, ticker: str, headers: Any) -> Said:
    if not _allowed(headers):
        return _json(401, _POLYGON_REFUSES)
    if ticker not in market.histories:
        return _json(404, {"status": "NOT_FOUND", "message": "Ticker not found."})
    return _json(200, {"status": "OK", "results": {"ticker": ticker}})


def _events(market: Market, kind: str, query: dict[str, str], headers: Any) -> Said:
    if not _allowed(headers):
        return _json(401, _POLYGON_REFUSES)
    day = {"splits": "execution_date", "dividends": "ex_dividend_date"}[kind]
    ticker = query["ticker"]
    rows = _between(market.histories.get(ticker, []), query[f"{day}.gte"], query[f"{day}.lte"])
    found: list[dict[str, Any]] = []
    for row in rows:
        if kind == "splits" and Decimal(row["split_factor"]) != 1:
            top, bottom = Decimal(row["split_factor"]).as_integer_ratio()
            split = {"split_from": bottom, "split_to": top}
            found.append({"ticker": ticker, day: row["session"]} | split)
        if kind == "dividends" and Decimal(row["div_cash"]):
            paid = {"cash_amount": float(row["div_cash"])}
            found.append({"ticker": ticker, day: row["session"]} | paid)
    return _json(200, {"status": "OK", "results": found})


def _alpha(market: Market, query: dict[str, str]) -> Said:
    if query.get("apikey") != KEYS["alpha_vantage"]:
        said = "the parameter apikey is invalid or missing. Please claim your free API key"
        return _json(200, {"Error Message": said})
    rows = market.histories.get(query["symbol"])
    if rows is None:
        said = (
            "Invalid API call. Please retry or visit the documentation "
            "(https://www.alphavantage.co/documentation/) for TIME_SERIES_DAILY."
        )
        return _json(200, {"Error Message": said})
    if query["outputsize"] == "compact":
        rows = rows[-100:]
    series = {
        row["session"]: {
            f"{at}. {name}": row[name] for at, name in enumerate((*PRICES, "volume"), 1)
        }
        for row in reversed(rows)
    }
    meta = {"2. Symbol": query["symbol"]}
    return _json(200, {"Meta Data": meta, "Time Series (Daily)": series})


def _yahoo(market: Market, ticker: str, query: dict[str, str]) -> Said:
    rows = market.histories.get(ticker)
    if rows is None:
        error = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
        return _json(404, {"chart": {"result": None, "error": error}})
    first, last = (
        datetime.fromtimestamp(int(query[name]), tz=UTC).date().isoformat()
        for name in ("period1", "period2")
    )
    asked = _between(rows, first, last)
    later, divided = Decimal(1), {}
    for row in reversed(rows):  # every later split, those behind the period's end included
        divided[row["session"]] = later
        later *= Decimal(row["split_factor"])

    def opened(row: Row) -> int:
        day = date.fromisoformat(row["session"])
        return int(datetime.combine(day, time(9, 30), tzinfo=NEW_YORK).timestamp())

    quote = {
        name: [float(Decimal(row[name]) / divided[row["session"]]) for row in asked]
        for name in PRICES
    } | {"volume": [int(Decimal(row["volume"]) * divided[row["session"]]) for row in asked]}
    events: dict[str, Any] = {"dividends": {}, "splits": {}}
    for row in asked:
        at, key = opened(row), str(opened(row))
        if Decimal(row["div_cash"]):
            paid = float(Decimal(row["div_cash"]) / divided[row["session"]])
            events["dividends"][key] = {"amount": paid, "date": at}
        if Decimal(row["split_factor"]) != 1:
            top, bottom = Decimal(row["split_factor"]).as_integer_ratio()
            events["splits"][key] = {"date": at, "numerator": top, "denominator": bottom}
    result = {
        "meta": {"symbol": ticker, "exchangeTimezoneName": "America/New_York"},
        "timestamp": [opened(row) for row in asked],
        "events": {name: found for name, found in events.items() if found},
        "indicators": {
            "quote": [quote],
            "adjclose": [{"adjclose": [float(row["adj_close"]) for row in asked]}],
        },
    }
    return _json(200, {"chart": {"result": [result], "error": None}})


def _stream(market: Market, ticker: str, query: dict[str, str]) -> Said:
    stream = market.messages.get(ticker)
    if stream is None:
        return _json(404, {"response": {"status": 404}, "errors": [{"message": "Not found"}]})
    newest = sorted(stream, key=lambda one: -one["id"])[: market.stream_reaches]
    below = int(query.get("max", 2**62))
    page = [one for one in newest if one["id"] < below][:30]
    whole = len(stream) <= market.stream_reaches
    more = bool(page) and (not whole or page[-1]["id"] != newest[-1]["id"])
    cursor = {"more": more, "max": page[-1]["id"] if page else None}
    return _json(200, {"response": {"status": 200}, "cursor": cursor, "messages": page})


def message(number: int, at: int, sentiment: str | None = None) -> dict[str, Any]:
    """A message of StockTwits; `at` in UTC milliseconds."""
    written = datetime.fromtimestamp(at // 1000, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    told = None if sentiment is None else {"basic": sentiment}
    return {"id": number, "created_at": written, "entities": {"sentiment": told}}


@contextmanager
def serve() -> Iterator[Market]:
    """Serve on loopback until the block ends."""
    market = Market()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            api, said = answer(market, parts.path, query, self.headers)
            market.asked.append(Asked(api, parts.path, query, dict(self.headers)))
            body = said.body.encode()
            self.send_response(said.status)
            for name, value in said.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if said.cut else body)
            self.close_connection = said.cut

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        market.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield market
        finally:
            server.shutdown()
            thread.join()
