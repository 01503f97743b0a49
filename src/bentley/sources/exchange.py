"""The exchange's own clock: it alone says what is closed, fresh and now."""

from __future__ import annotations

from typing import Any

from bentley.domain.addresses import without_password
from bentley.domain.errors import FatalError
from bentley.sources import http

TRADING = "TRADING"
"""The status of a symbol that trades."""

_OK = 200
_BAD_REQUEST = 400
_INVALID_SYMBOL = -1121
_LATEST = 253_402_300_800_000
"""The year 10,000: nothing that names a later time is a clock."""

_SETTING = "BENTLEY_EXCHANGE_URL"


def server_time(exchange_url: str, *, attempts: int = http.ATTEMPTS) -> int:
    """Ask the exchange for its time, in UTC milliseconds.

    Raises RetriableError when it can't be reached or asks to wait (`retry_after` in seconds),
    FatalError when the address is no exchange.
    """
    url = f"{exchange_url}/api/v3/time"
    code, said = http.ask_json(url, what="the exchange", setting=_SETTING, attempts=attempts)
    try:
        now = int(said["serverTime"])
    except (ValueError, KeyError, TypeError, OverflowError):
        now = -1
    if code != _OK or not 0 <= now < _LATEST:
        shown = without_password(url)
        msg = f"{shown} gives no time: is {_SETTING} an exchange's address?"
        raise FatalError(msg)
    return now


def klines(exchange_url: str, symbol: str, interval: str, *, start: int, limit: int) -> list[Any]:
    """Fetch up to `limit` (at most 1,000) bars from `start` (UTC ms) on, as the exchange has them.

    Each is a list in the order of its API, prices and amounts as text. Raises what `server_time`
    raises.
    """
    query = f"symbol={symbol}&interval={interval}&startTime={start}&limit={limit}"
    url = f"{exchange_url}/api/v3/klines?{query}"
    code, said = http.ask_json(url, what="the exchange", setting=_SETTING)
    if code != _OK or not isinstance(said, list):
        msg = f"{without_password(url)} answered {code}: it has no bars of {symbol} {interval}"
        raise FatalError(msg)
    return said


def status(exchange_url: str, symbol: str) -> str:
    """Ask whether a symbol trades: `TRADING`, `BREAK`, `HALT`, or `UNKNOWN` to the exchange.

    Raises what `server_time` raises.
    """
    url = f"{exchange_url}/api/v3/exchangeInfo?symbol={symbol}"
    code, said = http.ask_json(url, what="the exchange", setting=_SETTING)
    if code == _BAD_REQUEST and isinstance(said, dict) and said.get("code") == _INVALID_SYMBOL:
        return "UNKNOWN"
    try:
        return str(said["symbols"][0]["status"])
    except (KeyError, TypeError, IndexError) as error:
        msg = f"{without_password(url)} does not describe {symbol}"
        raise FatalError(msg) from error
