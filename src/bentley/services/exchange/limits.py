"""Counts request weight by the minute as Binance does: 429 past the limit, 418 for going on.

Minutes are the real clock's, whatever the exchange's clock says: a client waits in real time.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from bentley.services.exchange import answers
from bentley.services.exchange.clock import wall_millis

WEIGHT_LIMIT = 6000
"""Weight a minute, as exchangeInfo states it."""

_MINUTE = 60_000
_FIRST_BAN = 2 * _MINUTE
_LONGEST_BAN = 3 * 24 * 60 * _MINUTE
_TOLERATED = 10
"""How many requests past the limit are answered 429 before the ban; Binance names no number."""


class Refused(Exception):  # noqa: N818 an answer, not a failure
    """A request that the limit refuses: Binance's `error`, and `retry_after` in seconds."""

    def __init__(self, error: answers.ApiError, retry_after: int) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry_after = retry_after


class WeightLimiter:
    """One client's weight: all of loopback is one address, as one address is one client."""

    def __init__(self, limit: int = WEIGHT_LIMIT, *, wall: Callable[[], int] = wall_millis) -> None:
        self.limit = limit
        self.used = 0
        self._wall = wall
        self._minute = 0
        self._refused = 0
        self._bans = 0
        self._banned_until = 0

    def reset(self, limit: int | None = None) -> None:
        """Forget all weight, refusals and bans, and take a new limit if one is given."""
        self.limit = self.limit if limit is None else limit
        self.used = self._refused = self._bans = self._banned_until = 0

    def use(self, weight: int) -> int:
        """Count `weight` and return the minute's sum; raise Refused past the limit."""
        now = self._wall()
        if now < self._banned_until:
            raise self._ban(now)
        if now // _MINUTE != self._minute:
            self._minute = now // _MINUTE
            self.used = self._refused = 0
        self.used += weight
        if self.used <= self.limit:
            return self.used
        self._refused += 1
        if self._refused > _TOLERATED:
            self._banned_until = now + min(_FIRST_BAN * 2**self._bans, _LONGEST_BAN)
            self._bans += 1
            raise self._ban(now)
        left = (self._minute + 1) * _MINUTE - now
        raise Refused(answers.limited(self.limit), ceil(left / 1000))

    def _ban(self, now: int) -> Refused:
        left = self._banned_until - now
        return Refused(answers.banned(self._banned_until), ceil(left / 1000))
