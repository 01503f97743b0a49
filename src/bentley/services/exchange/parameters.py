"""Reads a request's parameters in the order and with the errors of Binance's own API.

Recorded behaviour: duplicates first, then their number, then each known parameter in turn
(missing, illegal), then those left unread, and last whether symbol and interval exist.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

import orjson

from bentley.domain import intervals
from bentley.services.exchange import answers
from bentley.services.exchange.market import DEFAULT_LIMIT, MAX_LIMIT

_SYMBOL_RANGE = r"^[\w\-._&&[^a-z]]{1,50}$"
_SYMBOLS_RANGE = r'^\[("[\w\-._&&[^a-z]]{1,50}"(,"[\w\-._&&[^a-z]]{1,50}"){0,}){0,1}\]$'
_LONG_RANGE = "^[0-9]{1,20}$"
_MAX_LONG = 2**63 - 1
_ZONE = re.compile(r"([+-]?)([0-9]{1,2})(?::([0-5][0-9]))?", re.ASCII)
_WEST, _EAST = -12 * 60, 14 * 60
_STATUSES = ("TRADING", "HALT", "BREAK")


class Known(NamedTuple):
    """A parameter: its name, the pattern that it must match, and the pattern as Binance says it."""

    name: str
    pattern: re.Pattern[str]
    legal: str
    mandatory: bool = False


_ANY = re.compile(r".+", re.DOTALL)
_LONG = re.compile(r"[0-9]{1,20}", re.ASCII)
_SYMBOL = re.compile(r"[A-Z0-9_\-.]{1,50}", re.ASCII)
_SYMBOLS = re.compile(r'\[("[A-Z0-9_\-.]{1,50}"(,"[A-Z0-9_\-.]{1,50}")*)?\]', re.ASCII)

KLINES = (
    Known("symbol", _SYMBOL, _SYMBOL_RANGE, mandatory=True),
    Known("interval", _ANY, "", mandatory=True),
    Known("startTime", _LONG, _LONG_RANGE),
    Known("endTime", _LONG, _LONG_RANGE),
    Known("timeZone", _ANY, ""),
    Known("limit", _LONG, _LONG_RANGE),
)
EXCHANGE_INFO = (
    Known("symbol", _SYMBOL, _SYMBOL_RANGE),
    Known("symbols", _SYMBOLS, _SYMBOLS_RANGE),
    Known("symbolStatus", _ANY, ""),
    Known("permissions", _ANY, ""),
    Known("showPermissionSets", re.compile("true|false"), "true, false"),
)


class KlinesQuery(NamedTuple):
    """What a request for klines asks; times in UTC milliseconds, both inclusive."""

    symbol: str
    interval: str
    start: int | None
    end: int | None
    limit: int


class InfoQuery(NamedTuple):
    """What a request for exchangeInfo asks; None stands for all."""

    symbols: tuple[str, ...] | None
    status: str | None


def read(query: bytes, known: Sequence[Known]) -> dict[str, str]:
    """The parameters by name; ApiError as Binance answers it."""
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    sent = dict(pairs)
    if len(sent) != len(pairs):
        raise answers.duplicate()
    if len(sent) > len(known):
        raise answers.too_many(len(known), len(sent))
    values: dict[str, str] = {}
    for parameter in known:
        value = sent.get(parameter.name)
        if value is None:
            if parameter.mandatory:
                raise answers.mandatory(parameter.name)
            continue
        if not value:
            raise answers.empty(parameter.name)
        if not parameter.pattern.fullmatch(value):
            raise answers.illegal(parameter.name, parameter.legal)
        values[parameter.name] = value
    if len(values) != len(sent):
        raise answers.unread(len(values), len(sent))
    return values


def klines(query: bytes) -> KlinesQuery:
    """Read a request for klines; a limit above the maximum is cut to it, as Binance does.

    A time zone shifts the grid of the intervals, and nothing else. One in which the grid stays
    as it is recorded is served; any other is answered with -1130, as is one that is none.
    """
    values = read(query, KLINES)
    step = intervals.MILLIS.get(values["interval"], 1)
    if _offset(values.get("timeZone", "0")) % step:
        raise answers.bad_data(name="timeZone")
    start = _long(values, "startTime")
    end = _long(values, "endTime")
    limit = _long(values, "limit")
    if limit == 0:
        raise answers.bad_data(name="limit")
    return KlinesQuery(
        values["symbol"],
        values["interval"],
        start,
        end,
        DEFAULT_LIMIT if limit is None else min(limit, MAX_LIMIT),
    )


def exchange_info(query: bytes) -> InfoQuery:
    """Read a request for exchangeInfo; `symbol`, `symbols` and `symbolStatus` exclude each other."""
    values = read(query, EXCHANGE_INFO)
    if "symbol" in values and "symbols" in values:
        raise answers.not_required(name="symbols")
    status = values.get("symbolStatus")
    if status is not None:
        if status not in _STATUSES:
            raise answers.ApiError(-1122, "Invalid symbolStatus.")
        if "symbol" in values or "symbols" in values:
            raise answers.not_required(name="symbolStatus")
    if "symbol" in values:
        return InfoQuery((values["symbol"],), status)
    if "symbols" in values:
        names = tuple(orjson.loads(values["symbols"]))
        if len(set(names)) != len(names):
            raise answers.ApiError(-1151, "Symbol is present multiple times in the list.")
        return InfoQuery(names or None, status)
    return InfoQuery(None, status)


def none(query: bytes) -> None:
    """Refuse any parameter, for endpoints that take none."""
    read(query, ())


def _offset(zone: str) -> int:
    """Read `8`, `-1:00` or `05:45` as milliseconds; Binance takes -12:00 to +14:00."""
    match = _ZONE.fullmatch(zone)
    if match is None:
        raise answers.bad_data(name="timeZone")
    minutes = int(match[2]) * 60 + int(match[3] or 0)
    minutes = -minutes if match[1] == "-" else minutes
    if not _WEST <= minutes <= _EAST:
        raise answers.bad_data(name="timeZone")
    return minutes * 60_000


def _long(values: dict[str, str], name: str) -> int | None:
    if name not in values:
        return None
    number = int(values[name])
    if number > _MAX_LONG:
        raise answers.overflowed(name)
    return number
