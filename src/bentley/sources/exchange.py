"""The exchange's own clock: it alone says what is closed, fresh and now."""

from __future__ import annotations

from typing import Any

import httpx
import stamina

from bentley.domain.addresses import without_password
from bentley.domain.errors import FatalError, RetriableError

# An attempt that failed is told by the error of the last; each one as a log line is noise.
stamina.instrumentation.set_on_retry_hooks([])

TRADING = "TRADING"
"""The status of a symbol that trades."""

_ATTEMPTS = 4
_TIMEOUT_SECONDS = 10.0
_TOO_MANY = {418, 429}
_FORBIDDEN = 403
_BAD_REQUEST = 400
_SERVER_FAULT = 500


def server_time(exchange_url: str, *, attempts: int = _ATTEMPTS) -> int:
    """Ask the exchange for its time, in UTC milliseconds.

    Raises RetriableError when it can't be reached or asks to wait (`retry_after` in seconds),
    FatalError when the address is no exchange.
    """
    url = f"{exchange_url}/api/v3/time"
    answer = _ask(url, attempts)
    try:
        return int(_body(answer)["serverTime"])
    except (ValueError, KeyError, TypeError) as error:
        shown = without_password(url)
        msg = f"{shown} gives no time: is BENTLEY_EXCHANGE_URL an exchange's address?"
        raise FatalError(msg) from error


def status(exchange_url: str, symbol: str) -> str:
    """Ask whether a symbol trades: `TRADING`, `BREAK`, `HALT`, or `UNKNOWN` to the exchange.

    Raises what `server_time` raises.
    """
    url = f"{exchange_url}/api/v3/exchangeInfo?symbol={symbol}"
    answer = _ask(url, _ATTEMPTS)
    if answer.status_code == _BAD_REQUEST and "-1121" in answer.text:
        return "UNKNOWN"
    try:
        return str(_body(answer)["symbols"][0]["status"])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        msg = f"{without_password(url)} does not describe {symbol}"
        raise FatalError(msg) from error


def _body(answer: httpx.Response) -> Any:
    """Return the JSON of a good answer; httpx's own error would repeat the address whole."""
    if not answer.is_success:
        msg = f"status {answer.status_code}"
        raise ValueError(msg)
    return answer.json()


class _PassingError(RetriableError):
    """Worth another try within a few seconds; a wait that the server named is the caller's."""


def _ask(url: str, attempts: int) -> httpx.Response:
    for attempt in stamina.retry_context(on=_PassingError, attempts=attempts, wait_max=5.0):
        with attempt:
            return _ask_once(url)
    raise AssertionError  # the last attempt raises


def _ask_once(url: str) -> httpx.Response:
    shown = without_password(url)
    try:
        # A proxy has no business with this machine's own addresses.
        outside = httpx.URL(url).host not in {"127.0.0.1", "localhost", "::1"}
        answer = httpx.get(url, timeout=_TIMEOUT_SECONDS, trust_env=outside)
    except httpx.TransportError as error:
        msg = f"the exchange at {shown} can't be reached ({error})"
        raise _PassingError(msg) from error
    except httpx.InvalidURL as error:
        msg = f"{shown} is not a web address: set BENTLEY_EXCHANGE_URL"
        raise FatalError(msg) from error
    code = answer.status_code
    if code in _TOO_MANY:
        wait = answer.headers.get("Retry-After", "")
        msg = f"the exchange at {shown} answered {code}: it asks for fewer requests"
        raise RetriableError(msg, retry_after=float(wait) if wait.isdigit() else None)
    if code >= _SERVER_FAULT or code == _FORBIDDEN:
        msg = f"the exchange at {shown} answered {code}"
        raise _PassingError(msg)
    return answer
