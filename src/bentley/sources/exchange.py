"""The exchange's own clock: it alone says what is closed, fresh and now."""

from __future__ import annotations

from typing import Any

import httpx

from bentley.domain.addresses import without_password
from bentley.domain.errors import FatalError
from bentley.sources import http

TRADING = "TRADING"
"""The status of a symbol that trades."""

_BAD_REQUEST = 400
_SETTING = "BENTLEY_EXCHANGE_URL"


def server_time(exchange_url: str, *, attempts: int = http.ATTEMPTS) -> int:
    """Ask the exchange for its time, in UTC milliseconds.

    Raises RetriableError when it can't be reached or asks to wait (`retry_after` in seconds),
    FatalError when the address is no exchange.
    """
    url = f"{exchange_url}/api/v3/time"
    answer = http.ask(url, what="the exchange", setting=_SETTING, attempts=attempts)
    try:
        return int(_body(answer)["serverTime"])
    except (ValueError, KeyError, TypeError) as error:
        shown = without_password(url)
        msg = f"{shown} gives no time: is {_SETTING} an exchange's address?"
        raise FatalError(msg) from error


def status(exchange_url: str, symbol: str) -> str:
    """Ask whether a symbol trades: `TRADING`, `BREAK`, `HALT`, or `UNKNOWN` to the exchange.

    Raises what `server_time` raises.
    """
    url = f"{exchange_url}/api/v3/exchangeInfo?symbol={symbol}"
    answer = http.ask(url, what="the exchange", setting=_SETTING)
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
