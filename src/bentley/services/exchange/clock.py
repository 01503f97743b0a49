"""The exchange's clock: set and advanced by hand, or running on with the machine's own."""

from __future__ import annotations

import time


def wall_millis() -> int:
    """The machine's time in UTC milliseconds."""
    return time.time_ns() // 1_000_000


class Clock:
    """UTC milliseconds: fixed where `now` is given, else running with the machine's clock.

    A running clock that is advanced runs on from there; one that is set stands still.
    """

    def __init__(self, now: int | None = None) -> None:
        self._fixed = now
        self._ahead = 0

    @property
    def running(self) -> bool:
        """Whether time goes on by itself."""
        return self._fixed is None

    def now(self) -> int:
        """The exchange's time in UTC milliseconds."""
        return wall_millis() + self._ahead if self._fixed is None else self._fixed

    def set(self, now: int) -> int:
        """Stand still at `now` (UTC milliseconds)."""
        self._fixed = now
        return now

    def advance(self, millis: int) -> int:
        """Go `millis` further, and return the new time."""
        if self._fixed is None:
            self._ahead += millis
        else:
            self._fixed += millis
        return self.now()
