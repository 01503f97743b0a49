"""The Airbyte protocol as a source speaks it on stdout: one JSON message a line.

Numbers keep their digits: whatever JSON holds as anything but a small whole number reaches
us as the source's own text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from bentley.domain.errors import FatalError

Kind = Literal["config_error", "transient_error", "system_error"]

MESSAGE_TYPES = frozenset(
    {"RECORD", "STATE", "LOG", "TRACE", "CATALOG", "SPEC", "CONNECTION_STATUS", "CONTROL"}
)
_SHOWN = 200
_CUT = "a broken message"
_NO_DATA = "a record without stream or data"
_NO_STATE = "a state without content"


@dataclass(frozen=True)
class Failure:
    """One thing that a source says went wrong.

    `detail` holds what the source gives in machine-readable form; our own connector gives
    symbol, interval, status, code and, with a rate limit, retry_after in seconds.
    """

    message: str
    stream: str | None
    kind: Kind
    detail: Mapping[str, Any]


class BrokenMessageError(FatalError):
    """A line is no whole message, and what it held is lost."""

    def __init__(self, what: str, line: bytes) -> None:
        shown = line[:_SHOWN].decode(errors="replace")
        super().__init__(f"the source sent {what} ({len(line)} bytes): {shown}")


def parse(line: bytes) -> dict[str, Any] | None:
    """One line -> its message; None where the line is no message but a stray print.

    Raises BrokenMessageError for a message that is broken: a record may be lost with it.
    """
    try:
        message = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _parse_odd(line)
    if not isinstance(message, dict) or message.get("type") not in MESSAGE_TYPES:
        return None
    if message["type"] == "RECORD":
        return _exact(line) if _inexact(_data(message, line)) else message
    if message["type"] == "STATE" and not isinstance(message.get("state"), dict):
        raise BrokenMessageError(_NO_STATE, line)
    return message


def _parse_odd(line: bytes) -> dict[str, Any] | None:
    """Serve what a strict parser refuses: NaN, and lines that are not JSON at all."""
    if not (line.lstrip().startswith(b"{") and b'"type"' in line):
        return None
    try:
        message = _exact(line)
    except ValueError:
        raise BrokenMessageError(_CUT, line) from None
    return message if message.get("type") in MESSAGE_TYPES else None


def _data(message: dict[str, Any], line: bytes) -> dict[str, Any]:
    record = message.get("record")
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("stream"), str)
        or not isinstance(data := record.get("data"), dict)
    ):
        raise BrokenMessageError(_NO_DATA, line)
    return data


def _inexact(data: dict[str, Any]) -> bool:
    """Whether a cell was read as a float, which can't hold every decimal (or big integer)."""
    kinds = set(map(type, data.values()))
    if float in kinds:
        return True
    if kinds.isdisjoint((dict, list)):
        return False
    return any(_holds_float(value) for value in data.values())


def _holds_float(value: Any) -> bool:
    if isinstance(value, float):
        return True
    if isinstance(value, dict):
        return any(map(_holds_float, value.values()))
    return isinstance(value, list) and any(map(_holds_float, value))


def _exact(line: bytes) -> dict[str, Any]:
    message = json.loads(line, parse_float=str, parse_constant=str)
    if not isinstance(message, dict):
        raise TypeError
    return message


def failure(trace: Mapping[str, Any]) -> Failure:
    """The failure in a TRACE message of type ERROR."""
    error = trace.get("error") or {}
    kind = error.get("failure_type")
    descriptor = error.get("stream_descriptor") or {}
    return Failure(
        message=str(error.get("message") or "the source gives no reason"),
        stream=descriptor.get("name"),
        kind=kind if kind in {"config_error", "transient_error"} else "system_error",
        detail=_detail(error.get("internal_message")),
    )


def _detail(internal: Any) -> Mapping[str, Any]:
    try:
        detail = orjson.loads(internal)
    except (orjson.JSONDecodeError, TypeError):
        return {}
    return detail if isinstance(detail, dict) else {}


def configured_catalog(
    catalog: Mapping[str, Any], streams: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """The catalog that asks for `streams`, and the names that the source doesn't offer.

    Each stream is read incrementally where the source can, else in full.
    """
    offered = {stream["name"]: stream for stream in catalog.get("streams", [])}
    chosen = [offered[name] for name in streams if name in offered]
    return (
        {"streams": [_configured(stream) for stream in chosen]},
        [name for name in streams if name not in offered],
    )


def _configured(stream: Mapping[str, Any]) -> dict[str, Any]:
    incremental = "incremental" in (stream.get("supported_sync_modes") or ())
    configured: dict[str, Any] = {
        "stream": stream,
        "sync_mode": "incremental" if incremental else "full_refresh",
        "destination_sync_mode": "append",
    }
    if stream.get("default_cursor_field"):
        configured["cursor_field"] = stream["default_cursor_field"]
    if stream.get("source_defined_primary_key"):
        configured["primary_key"] = stream["source_defined_primary_key"]
    return configured


def incremental_catalog(streams: Sequence[str]) -> dict[str, Any]:
    """A catalog for a source known to read `streams` incrementally; it spares a `discover`."""
    modes = ["full_refresh", "incremental"]
    return {
        "streams": [
            {"name": name, "json_schema": {}, "supported_sync_modes": modes} for name in streams
        ]
    }
