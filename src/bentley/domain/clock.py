"""Times are UTC milliseconds everywhere; this module alone turns text into them and back."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from bentley.domain.errors import ConfigurationError

MS_DIGITS = 13
_EPOCH_UNITS = {9: 0, 10: 0, 12: 3, 13: 3, 15: 6, 16: 6, 18: 9, 19: 9}
"""By the number of digits: seconds, milli-, micro- or nanoseconds, from 1973-03-03 to 2286-11-20.

Other numbers of digits lie outside of it in any unit, and are no epoch.
"""


def parse_time(text: str) -> int:
    """Read ISO 8601 (UTC where no offset stands) or epoch digits as UTC milliseconds.

    What is finer is cut, never rounded. Raises ConfigurationError naming the text.
    """
    text = text.strip()
    if text.isascii() and text.isdigit() and len(text) in _EPOCH_UNITS:
        return int(int(text) * 1000 // 10 ** _EPOCH_UNITS[len(text)])
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


def in_ms(time: object) -> object:
    """Cut a text that has the digits of micro- or nanoseconds; anything else is as it was."""
    if isinstance(time, str) and re.fullmatch("[0-9]{16}|[0-9]{19}", time):
        return time[:MS_DIGITS]
    return time
