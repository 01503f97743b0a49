"""Times are UTC milliseconds everywhere; this module alone turns text into them and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from bentley.domain.errors import ConfigurationError

_DIGITS = re.compile(r"\d{10,19}")
_MS_DIGITS = 13


def to_millis(epoch: int) -> int:
    """Cut an epoch in seconds, milli-, micro- or nanoseconds to milliseconds (never rounded).

    The unit follows from the number of digits: 10 are seconds, 13 milliseconds, 16 micro-
    and 19 nanoseconds. That holds from 2001-09-09 to 2286-11-20.
    """
    digits = len(str(epoch))
    if digits > _MS_DIGITS:
        return int(epoch // 10 ** (digits - _MS_DIGITS))
    return int(epoch * 10 ** (_MS_DIGITS - digits))


def parse_time(text: str) -> int:
    """Read ISO 8601 (UTC where no offset stands) or epoch digits as UTC milliseconds.

    Raises ConfigurationError naming the text.
    """
    text = text.strip()
    if _DIGITS.fullmatch(text):
        return to_millis(int(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        msg = (
            f"{text!r} is not a time; write it as 2024-01-31, 2024-01-31T12:00:00Z "
            "or epoch milliseconds"
        )
        raise ConfigurationError(msg) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def iso(millis: int | None) -> str:
    """Write UTC milliseconds as `2024-01-31T12:00:00Z`, with milliseconds only where there are any."""
    if millis is None:
        return "-"
    moment = datetime.fromtimestamp(millis // 1000, tz=UTC)
    fraction = f".{millis % 1000:03d}" if millis % 1000 else ""
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"
