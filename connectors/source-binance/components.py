"""What low-code can't say about Binance: its arrays of arrays, its errors, its waits."""

import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import requests
from airbyte_cdk.models import FailureType
from airbyte_cdk.sources.declarative.extractors.record_extractor import RecordExtractor
from airbyte_cdk.sources.declarative.migrations.state_migration import StateMigration
from airbyte_cdk.sources.declarative.requesters.paginators.strategies.pagination_strategy import (
    PaginationStrategy,
)
from airbyte_cdk.sources.streams.http.error_handlers import BackoffStrategy, ErrorHandler
from airbyte_cdk.sources.streams.http.error_handlers.response_models import (
    SUCCESS_RESOLUTION,
    ErrorResolution,
    ResponseAction,
)
from airbyte_cdk.utils.traced_exception import AirbyteTracedException

INVALID_SYMBOL = -1121
INVALID_INTERVAL = -1120
RATE_CODES = frozenset({-1003, -1015})  # too many requests, also seen with other statuses

_CELLS = 11
_MS_DIGITS = 13
_MICROSECONDS = 10**_MS_DIGITS
_TEXT = 200
_BANNED_UNTIL = re.compile(r"until (\d{13})")


@dataclass
class KlineExtractor(RecordExtractor):
    """Rows of arrays -> records; prices and amounts stay the exchange's own text."""

    config: Mapping[str, Any]
    parameters: InitVar[Mapping[str, Any]]

    def __post_init__(self, parameters: Mapping[str, Any]) -> None:
        """Take nothing from `parameters`: the kit passes them to every component."""

    def extract_records(self, response: requests.Response) -> Iterable[dict[str, Any]]:
        """Yield one record per kline; symbol and interval come from the request."""
        query = _query(response.request)
        symbol, interval = query["symbol"], query["interval"]
        first, last = int(query["startTime"]), int(query["endTime"])
        answered = _answered(response)
        for row in _rows(response.content):
            opened = _milliseconds(row[0])
            if opened is not None and not first <= opened <= last:
                # Delivered, it would carry the cursor away with it, past bars not yet read.
                message = f"{symbol} {interval}: a bar of {opened}, outside {first} to {last}"
                raise _failed(response, f"{message} as asked for", FailureType.system_error)
            yield {
                "symbol": symbol,
                "interval": interval,
                "open_time": row[0] if opened is None else opened,
                "open": row[1],
                "high": row[2],
                "low": row[3],
                "close": row[4],
                "volume": row[5],
                "close_time": row[6],
                "quote_volume": row[7],
                "trades": row[8],
                "taker_buy_base_volume": row[9],
                "taker_buy_quote_volume": row[10],
                "answered_at": answered,
            }


def _answered(response: requests.Response) -> int | None:
    """The exchange's clock at its answer: the kit stamps a record only when it is written out."""
    try:
        return int(parsedate_to_datetime(response.headers["Date"]).timestamp()) * 1000
    except (KeyError, ValueError):
        return None


def _rows(body: bytes) -> list[list[Any]]:
    """The rows of a page; a short one is filled up, for the reader to reject."""
    rows: list[list[Any]] = orjson.loads(body)
    if any(float in map(type, row) for row in rows):
        # A number where text belongs: keep its digits, which a float would lose.
        rows = json.loads(body, parse_float=str)
    return [row if len(row) >= _CELLS else [*row, *[None] * (_CELLS - len(row))] for row in rows]


def _milliseconds(cell: Any) -> int | None:
    """A time as a whole number, what follows the milliseconds cut; None for what is no time."""
    if type(cell) is int and cell < _MICROSECONDS:
        return cell
    text = str(cell)
    return int(text[:_MS_DIGITS]) if text.isascii() and text.isdecimal() else None


@dataclass
class NextOpenTime(PaginationStrategy):
    """The next page starts behind the last bar; without parsing the page a second time."""

    config: Mapping[str, Any]
    parameters: InitVar[Mapping[str, Any]]

    def __post_init__(self, parameters: Mapping[str, Any]) -> None:
        """Take nothing from `parameters`: the kit passes them to every component."""

    @property
    def initial_token(self) -> None:
        """Name no start: the first page starts where the slice does."""
        return

    def next_page_token(
        self,
        response: requests.Response,
        last_page_size: int,
        last_record: Mapping[str, Any] | None,
        last_page_token_value: Any = None,  # noqa: ARG002 - the kit's signature
    ) -> int | None:
        """UTC milliseconds, or None behind a page that wasn't full or reached the slice's end."""
        query = _query(response.request)
        if last_record is None or last_page_size < int(query["limit"]):
            return None
        opened = last_record["open_time"]
        if type(opened) is not int:
            times = [_milliseconds(row[0]) for row in _rows(response.content)]
            legible = [time for time in times if time is not None]
            opened = max(legible, default=int(query["startTime"]))
        return opened + 1 if opened < int(query["endTime"]) else None

    def get_page_size(self) -> int | None:
        """Leave the page's size to the request's own `limit`."""
        return None


@dataclass
class ExchangeErrorHandler(ErrorHandler):
    """Tell the exchange's answers apart: what passes, what is the caller's fault, what to wait for.

    A wrong symbol fails its own partition as a configuration error and leaves the others.
    The internal message of such a failure is JSON with symbol, interval, status and code.
    """

    config: Mapping[str, Any]
    parameters: InitVar[Mapping[str, Any]]

    def __post_init__(self, parameters: Mapping[str, Any]) -> None:
        """Prepare the waits."""
        self.backoff_strategies: list[BackoffStrategy] = [ServerWish()]
        self._longest_wait = float(self.config.get("max_wait_seconds", 120))

    @property
    def max_retries(self) -> int:
        """Give up on a request after this many repeats."""
        return int(self.config.get("max_retries", 5))

    @property
    def max_time(self) -> int:
        """Give up on a request after this many seconds."""
        return 600

    def interpret_response(self, response: requests.Response | Exception | None) -> ErrorResolution:
        """Say what to do about an answer or a broken connection."""
        if not isinstance(response, requests.Response):
            return _retry(
                f"{_subject(getattr(response, 'request', None))}: no answer from the exchange: "
                f"{type(response).__name__}: {str(response)[:_TEXT]}"
            )
        if response.status_code == requests.codes.ok:
            return self._page(response)
        return self._failure(response)

    def _page(self, response: requests.Response) -> ErrorResolution:
        body = response.content.strip()
        # A page ends with two brackets, or is an empty one; cut behind a row it ends with one.
        if body[:1] == b"[" and body[-1:] == b"]" and body[1:-1].rstrip()[-1:] in {b"]", b""}:
            return SUCCESS_RESOLUTION
        return _retry(f"{_subject(response.request)}: half an answer ({len(body)} bytes)")

    def _failure(self, response: requests.Response) -> ErrorResolution:
        status = response.status_code
        code, text = _error_body(response)
        what = f"{_subject(response.request)}: the exchange answered {status} {text}"
        wait = server_wait(response) or 0.0
        if wait > self._longest_wait:
            what += f"; it asks for {wait:.0f} s, more than max_wait_seconds"
            raise _failed(response, what, FailureType.transient_error, retry_after=round(wait, 1))
        if status in {418, 429} or code in RATE_CODES:
            return ErrorResolution(ResponseAction.RATE_LIMITED, FailureType.transient_error, what)
        if code == INVALID_SYMBOL:
            raise _failed(response, f"{what}: no such symbol", FailureType.config_error)
        if code == INVALID_INTERVAL:
            raise _failed(response, f"{what}: no such interval", FailureType.config_error)
        if status == requests.codes.forbidden:
            return _retry(
                f"{what}: refused by the CDN in front of the exchange, which blocks some regions "
                "and networks; try another base_url or a network that is let through"
            )
        if status == requests.codes.unavailable_for_legal_reasons:
            raise _failed(response, f"{what}: not served in this region", FailureType.config_error)
        if status >= requests.codes.server_error or status == requests.codes.request_timeout:
            return _retry(what)
        # 400 is our own request; anything else tells of another server behind base_url.
        own = status == requests.codes.bad_request
        kind = FailureType.system_error if own else FailureType.config_error
        raise _failed(response, what, kind)


@dataclass
class ServerWish(BackoffStrategy):
    """Wait as long as the server asks; without a wish, the kit's own exponential back-off."""

    def backoff_time(
        self,
        response_or_exception: requests.Response | requests.RequestException | None,
        attempt_count: int,  # noqa: ARG002 - the kit's signature
    ) -> float | None:
        """Seconds to wait, or None."""
        if isinstance(response_or_exception, requests.Response):
            return server_wait(response_or_exception)
        return None


def server_wait(response: requests.Response) -> float | None:
    """Seconds that the server asks for: Retry-After, else the time in a ban's message."""
    header = response.headers.get("Retry-After", "")
    if header.isdigit():
        return float(header)
    banned = _BANNED_UNTIL.search(response.text) if response.status_code in {418, 429} else None
    if banned:
        return max(0.1, int(banned[1]) / 1000 - time.time())
    return None


@dataclass
class PerPartitionState(StateMigration):
    """Drop the stream-wide cursor, from which a symbol added later would start without its past."""

    config: Mapping[str, Any]
    parameters: InitVar[Mapping[str, Any]]

    def __post_init__(self, parameters: Mapping[str, Any]) -> None:
        """Take nothing from `parameters`: the kit passes them to every component."""

    def should_migrate(self, stream_state: Mapping[str, Any]) -> bool:
        """Whether there is anything to drop."""
        return "states" in stream_state and "state" in stream_state

    def migrate(self, stream_state: Mapping[str, Any]) -> dict[str, Any]:
        """Keep the positions of the partitions alone."""
        return {"use_global_cursor": False, "states": stream_state["states"], "lookback_window": 0}


def _retry(message: str) -> ErrorResolution:
    return ErrorResolution(ResponseAction.RETRY, FailureType.transient_error, message)


def _failed(
    response: requests.Response, message: str, kind: FailureType, **more: Any
) -> AirbyteTracedException:
    query = _query(response.request)
    detail = {
        "symbol": query.get("symbol"),
        "interval": query.get("interval"),
        "status": response.status_code,
        "code": _error_body(response)[0],
        **more,
    }
    return AirbyteTracedException(
        message=message, internal_message=json.dumps(detail), failure_type=kind
    )


def _query(request: Any) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(str(getattr(request, "url", ""))).query))


def _subject(request: Any) -> str:
    query = _query(request)
    return f"{query.get('symbol', '?')} {query.get('interval', '?')}"


def _error_body(response: requests.Response) -> tuple[int | None, str]:
    """Code and text of an error; an HTML page gives no code."""
    try:
        body = orjson.loads(response.content)
        return int(body["code"]), f"({body['code']}) {str(body.get('msg', ''))[:_TEXT]}"
    except (ValueError, KeyError, TypeError):
        text = re.sub(r"<[^>]*>|\s+", " ", response.text)
        return None, " ".join(text.split())[:_TEXT]
