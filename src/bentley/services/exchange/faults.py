"""Misbehaviour on command, counted and never random, so that a test can repeat it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bentley.domain.errors import ConfigurationError

KINDS = {
    "429": "the weight limit's refusal, with Retry-After",
    "418": "the ban, with Retry-After and the time of its end",
    "500": "an internal error with code -1001",
    "502": "a gateway's page",
    "503": "a gateway's page, with Retry-After if one is given",
    "403_page": "CloudFront's page of HTML",
    "half_body": "the right answer's headers, half of its body, then the connection is closed",
    "not_json": "a page of HTML with status 200",
    "empty": "status 200 and no body",
    "slow": "the right answer after `delay` seconds",
    "refuse": "the connection is closed without an answer",
}
"""Every kind of fault, with what the client sees."""

_DEFAULT_RETRY_AFTER = {"429": 1.0, "418": 120.0}
_DEFAULT_DELAY = {"slow": 1.0}


@dataclass
class Fault:
    """A fault of `kind` for requests whose path begins with `path`.

    The first `after` requests pass; then it strikes every `every`-th one, `count` times at
    the most (None: without end). `delay` and `retry_after` are in seconds.
    """

    kind: str
    path: str = "/api/"
    count: int | None = None
    every: int = 1
    after: int = 0
    retry_after: float | None = None
    delay: float = 0.0
    seen: int = 0
    struck: int = 0

    def strikes(self, path: str) -> bool:
        """Count a request, and say whether the fault meets it."""
        if not path.startswith(self.path):
            return False
        self.seen += 1
        if self.count is not None and self.struck >= self.count:
            return False
        return self.seen > self.after and (self.seen - self.after) % self.every == 0


class Faults:
    """The faults in force, the first to strike a request first."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def add(self, specifications: Iterable[Mapping[str, Any]]) -> None:
        """Add faults given as mappings; ConfigurationError names what is wrong in one."""
        self._faults += [_read(specification) for specification in specifications]

    def clear(self) -> None:
        """Behave well again."""
        self._faults = []

    def strike(self, path: str) -> Fault | None:
        """The fault that meets this request, if one does."""
        striking = [fault for fault in self._faults if fault.strikes(path)]
        if not striking:
            return None
        striking[0].struck += 1
        return striking[0]

    def listed(self) -> list[dict[str, Any]]:
        """Every fault in force with its counts."""
        return [vars(fault) for fault in self._faults]


def _read(given: Mapping[str, Any]) -> Fault:
    if not isinstance(given, Mapping):
        msg = f"a fault is written as an object like {{'kind': '429'}}, not {given!r}"
        raise ConfigurationError(msg)
    known = {"kind", "path", "count", "every", "after", "retry_after", "delay"}
    if unknown := sorted(set(given) - known):
        msg = f"a fault has no {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        raise ConfigurationError(msg)
    kind = str(given.get("kind"))
    if kind not in KINDS:
        msg = f"{kind!r} is no kind of fault; choose one of {', '.join(KINDS)}"
        raise ConfigurationError(msg)
    endless = "every" in given
    path = given.get("path", "/api/")
    if not isinstance(path, str):
        msg = f"the fault's path {path!r} is no text"
        raise ConfigurationError(msg)
    return Fault(
        kind=kind,
        path=path,
        count=_whole(given, "count", 1) if "count" in given or not endless else None,
        every=_whole(given, "every", 1),
        after=_whole(given, "after", 0, least=0),
        retry_after=_seconds(given, "retry_after", _DEFAULT_RETRY_AFTER.get(kind)),
        delay=_seconds(given, "delay", _DEFAULT_DELAY.get(kind, 0.0)) or 0.0,
    )


def _whole(given: Mapping[str, Any], name: str, default: int, *, least: int = 1) -> int:
    value = given.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        msg = f"the fault's {name} {value!r} is not a whole number of at least {least}"
        raise ConfigurationError(msg)
    return value


def _seconds(given: Mapping[str, Any], name: str, default: float | None) -> float | None:
    value = given.get(name, default)
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
        msg = f"the fault's {name} {value!r} is not a number of seconds"
        raise ConfigurationError(msg)
    return float(value)
