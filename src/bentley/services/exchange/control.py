"""The endpoints that steer the exchange: clock, faults, rows, limits, counters; they cost no weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bentley.domain.errors import ConfigurationError
from bentley.services.exchange import answers
from bentley.services.exchange.app import Exchange

_BAD_REQUEST = 400
Steer = Callable[[Any], Any]


def create_app(exchange: Exchange) -> Starlette:
    """The exchange with its control as an ASGI application; it needs the connections of `server`."""
    api = Route("/{path:path}", exchange.answer, methods=["GET"])
    return Starlette(routes=[*routes(exchange), api])


def routes(exchange: Exchange) -> list[Route]:
    """Every control endpoint of `exchange`; a wrong call is 400 with an `error` that says why."""
    return [
        _route("/control/clock", get=lambda: _clock(exchange), post=_clock_setter(exchange)),
        _route(
            "/control/faults",
            get=exchange.faults.listed,
            post=lambda body: exchange.faults.add(_listed(body)),
            delete=exchange.faults.clear,
        ),
        _route(
            "/control/rows",
            get=exchange.tampering.listed,
            post=lambda body: exchange.tampering.add(_listed(body)),
            delete=exchange.tampering.clear,
        ),
        _route(
            "/control/limits",
            get=lambda: {"limit": exchange.limiter.limit, "used": exchange.limiter.used},
            post=lambda body: exchange.limiter.reset(_number(body, "limit")),
            delete=exchange.limiter.reset,
        ),
        _route(
            "/control/requests",
            get=lambda: counted(exchange),
            delete=exchange.requests.clear,
        ),
        _route("/control/origin", get=lambda: {"origin": exchange.market.origin}),
    ]


def counted(exchange: Exchange) -> dict[str, Any]:
    """The API requests answered: in all, and by path and status (or name of a broken answer)."""
    paths = {path: dict(statuses) for path, statuses in exchange.requests.items()}
    return {"total": sum(sum(statuses.values()) for statuses in paths.values()), "paths": paths}


def _route(
    path: str,
    *,
    get: Callable[[], Any],
    post: Steer | None = None,
    delete: Callable[[], Any] | None = None,
) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            done: Any = None
            if request.method == "POST" and post is not None:
                done = post(_body(await request.body()))
            elif request.method == "DELETE" and delete is not None:
                done = delete()
            return answers.json(get() if done is None else done)
        except ConfigurationError as error:
            body = orjson.dumps({"error": str(error)})
            return Response(body, _BAD_REQUEST, headers={"Content-Type": answers.JSON})

    methods = ["GET", *(["POST"] if post else []), *(["DELETE"] if delete else [])]
    return Route(path, endpoint, methods=methods)


def _clock(exchange: Exchange) -> dict[str, Any]:
    return {"now": exchange.clock.now(), "running": exchange.clock.running}


def _clock_setter(exchange: Exchange) -> Steer:
    def change(body: Any) -> None:
        now, ahead = _number(body, "now"), _number(body, "advance_ms")
        if (now is None) == (ahead is None):
            msg = f'the clock takes {{"now": ms}} or {{"advance_ms": n}}, not {body!r}'
            raise ConfigurationError(msg)
        if now is not None:
            exchange.clock.set(now)
        if ahead is not None:
            exchange.clock.advance(ahead)

    return change


def _body(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        msg = f"the request's body is not JSON: {error}"
        raise ConfigurationError(msg) from None


def _listed(body: Any) -> list[Any]:
    return body if isinstance(body, list) else [body]


def _number(body: Any, name: str) -> int | None:
    if not isinstance(body, Mapping):
        msg = f"the request's body is an object with {name}, not {body!r}"
        raise ConfigurationError(msg)
    value = body.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        msg = f"{name} {value!r} is not a whole number of at least 0"
        raise ConfigurationError(msg)
    return value
