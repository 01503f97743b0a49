"""The exchange's HTTP face: Binance's public endpoints, in front of a market and a clock."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bentley.domain.errors import ConfigurationError
from bentley.services.exchange import answers, parameters
from bentley.services.exchange.clock import Clock, wall_millis
from bentley.services.exchange.faults import Fault, Faults
from bentley.services.exchange.limits import WEIGHT_LIMIT, Refused, WeightLimiter
from bentley.services.exchange.market import Listing, Market, listing
from bentley.services.exchange.tampering import Tampering

WEIGHTS = {
    "/api/v3/ping": 1,
    "/api/v3/time": 1,
    "/api/v3/exchangeInfo": 20,
    "/api/v3/klines": 2,
}
"""Each endpoint's request weight, as Binance documents it."""

_log = logging.getLogger(__name__)
_GATEWAY_PAGE = b"<html><body><h1>%d</h1></body></html>"


class Exchange:
    """A market, its clock, its limits and its misbehaviour: what all endpoints share."""

    def __init__(self, market: Market, clock: Clock, *, weight_limit: int = WEIGHT_LIMIT) -> None:
        self.market = market
        self.clock = clock
        self.limiter = WeightLimiter(weight_limit)
        self.faults = Faults()
        self.tampering = Tampering()
        self.requests: defaultdict[str, Counter[str]] = defaultdict(Counter)

    async def answer(self, request: Request) -> Response:
        """Answer an API request: its fault, its weight, then what it asked."""
        path = request.url.path
        fault = self.faults.strike(path)
        if fault is not None and fault.delay:
            await asyncio.sleep(fault.delay)
        response = self._struck(fault) if fault else None
        if response is None:
            response = self._served(path, request.scope["query_string"])
            if fault is not None and fault.kind == "half_body":
                response = _HalfBody(response)
        self.requests[path][getattr(response, "label", str(response.status_code))] += 1
        return response

    def ping(self, query: bytes) -> Any:
        """`GET /api/v3/ping`."""
        parameters.none(query)
        return {}

    def time(self, query: bytes) -> Any:
        """`GET /api/v3/time`."""
        parameters.none(query)
        return {"serverTime": self.clock.now()}

    def exchange_info(self, query: bytes) -> Any:
        """`GET /api/v3/exchangeInfo`; an unknown symbol is -1121."""
        asked = parameters.exchange_info(query)
        known = self.market.symbols()
        if asked.symbols and not set(asked.symbols) <= set(known):
            raise answers.bad_symbol()
        now = self.clock.now()
        listings = [listing(self.market, symbol, now) for symbol in asked.symbols or known]
        return {
            "timezone": "UTC",
            "serverTime": now,
            "rateLimits": _rate_limits(self.limiter.limit),
            "exchangeFilters": [],
            "symbols": [_symbol(one) for one in listings if asked.status in {None, one.status}],
        }

    def klines(self, query: bytes) -> Any:
        """`GET /api/v3/klines`; an interval that the market does not hold is -1120."""
        asked = parameters.klines(query)
        if asked.symbol not in self.market.symbols():
            raise answers.bad_symbol()
        if asked.interval not in self.market.intervals(asked.symbol):
            raise answers.bad_interval()
        now = self.clock.now()
        rows = self.market.klines(*asked, now)
        return self.tampering.apply(asked.symbol, asked.interval, rows, asked.limit, now)

    def _served(self, path: str, query: bytes) -> Response:
        endpoints: dict[str, Callable[[bytes], Any]] = {
            "/api/v3/ping": self.ping,
            "/api/v3/time": self.time,
            "/api/v3/exchangeInfo": self.exchange_info,
            "/api/v3/klines": self.klines,
        }
        try:
            self.limiter.use(WEIGHTS.get(path, 1))
        except Refused as refused:
            return answers.refusal(
                refused.error, {**self._weight(), "Retry-After": str(refused.retry_after)}
            )
        if path not in endpoints:
            return answers.page(answers.NOT_FOUND_PAGE, 404, self._weight())
        try:
            return answers.json(endpoints[path](query), self._weight())
        except answers.ApiError as error:
            return answers.refusal(error, self._weight())
        except ConfigurationError:
            _log.exception("a recorded file cannot be served")
            return answers.refusal(answers.internal(), self._weight())

    def _struck(self, fault: Fault) -> Response | None:
        """The whole answer of a fault, or None where the right answer is needed first."""
        headers = self._weight()
        if fault.retry_after is not None:
            headers["Retry-After"] = f"{fault.retry_after:g}"
        if fault.kind in {"429", "418", "500"}:
            until = wall_millis() + int((fault.retry_after or 0) * 1000)
            error = {
                "429": answers.limited(self.limiter.limit),
                "418": answers.banned(until),
                "500": answers.internal(),
            }[fault.kind]
            return answers.refusal(error, headers)
        if fault.kind in {"502", "503"}:
            status = int(fault.kind)
            return answers.page(_GATEWAY_PAGE % status, status, headers)
        pages = {
            "403_page": (answers.CLOUDFRONT_PAGE, 403),
            "not_json": (answers.NOT_FOUND_PAGE, 200),
            "empty": (b"", 200),
        }
        if fault.kind in pages:
            return answers.page(*pages[fault.kind])
        return _HangUp() if fault.kind == "refuse" else None

    def _weight(self) -> dict[str, str]:
        used = str(self.limiter.used)
        return {"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used}


class _HangUp(Response):
    """Closes the connection without an answer."""

    label = "refuse"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 ASGI's own
        await _hang_up(scope, receive)


class _HalfBody(Response):
    """The headers of a whole answer, half of its body, and the end of the connection."""

    label = "half_body"

    def __init__(self, whole: Response) -> None:
        super().__init__(whole.body, whole.status_code)
        self.raw_headers = whole.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        await _hang_up(scope, receive)


async def _hang_up(scope: Scope, receive: Receive) -> None:
    scope["state"]["hang_up"]()
    while (await receive())["type"] != "http.disconnect":
        pass


def _rate_limits(weight: int) -> list[dict[str, Any]]:
    limits = (
        ("REQUEST_WEIGHT", "MINUTE", 1, weight),
        ("ORDERS", "SECOND", 10, 100),
        ("ORDERS", "DAY", 1, 200_000),
        ("RAW_REQUESTS", "MINUTE", 5, 61_000),
    )
    names = ("rateLimitType", "interval", "intervalNum", "limit")
    return [dict(zip(names, limit, strict=True)) for limit in limits]


def _symbol(one: Listing) -> dict[str, Any]:
    return {
        "symbol": one.symbol,
        "status": one.status,
        "baseAsset": one.base,
        "baseAssetPrecision": 8,
        "quoteAsset": one.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": [],
        "icebergAllowed": False,
        "ocoAllowed": False,
        "quoteOrderQtyMarketAllowed": False,
        "isSpotTradingAllowed": False,
        "isMarginTradingAllowed": False,
        "filters": [],
        "permissions": [],
    }
