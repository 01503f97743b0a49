"""The grid on which bars of an interval open, by the exchange's own interval names."""

from __future__ import annotations

from bentley.domain.errors import ConfigurationError

_SECOND = 1_000
_MINUTE = 60 * _SECOND
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_WEEK = 7 * _DAY

MILLIS: dict[str, int] = {
    "1s": _SECOND,
    "1m": _MINUTE,
    "3m": 3 * _MINUTE,
    "5m": 5 * _MINUTE,
    "15m": 15 * _MINUTE,
    "30m": 30 * _MINUTE,
    "1h": _HOUR,
    "2h": 2 * _HOUR,
    "4h": 4 * _HOUR,
    "6h": 6 * _HOUR,
    "8h": 8 * _HOUR,
    "12h": 12 * _HOUR,
    "1d": _DAY,
    "3d": 3 * _DAY,
    "1w": _WEEK,
}
"""Length of each interval in milliseconds. `1M` has no fixed length and is not served."""

_WEEK_ORIGIN = 4 * _DAY  # 1970-01-05, the first Monday: the exchange's weeks open on Mondays


def millis(interval: str) -> int:
    """Length of `interval` in milliseconds; ConfigurationError for one that has no fixed grid."""
    try:
        return MILLIS[interval]
    except KeyError:
        known = ", ".join(MILLIS)
        msg = f"interval {interval!r} is not one of {known}"
        raise ConfigurationError(msg) from None


def origin(interval: str) -> int:
    """One open time on the grid, in epoch milliseconds."""
    return _WEEK_ORIGIN if interval == "1w" else 0


def floor(time: int, interval: str) -> int:
    """The open time of the bar of `interval` that holds `time`."""
    step = millis(interval)
    return time - (time - origin(interval)) % step


def ceil(time: int, interval: str) -> int:
    """The first open time on the grid at or after `time`."""
    return floor(time + millis(interval) - 1, interval)


def expected(first: int, end: int, interval: str) -> int:
    """How many bars the grid has with first <= open_time < end."""
    step = millis(interval)
    start = ceil(first, interval)
    return max(0, -(-(end - start) // step))
