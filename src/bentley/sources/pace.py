"""A server's rate limit, held by all processes of a home together.

The times of the latest requests lie in a file; who wants to ask takes its lock, waits until the
limit has room, and writes its own time down. So the limit holds whatever asks: hourly tasks,
a command beside them, two of a kind.
"""

from __future__ import annotations

import fcntl
import json
import time
from dataclasses import dataclass
from pathlib import Path

from bentley.domain.errors import RetriableError

_LONGEST_WAIT = 120.0


@dataclass(frozen=True)
class Pace:
    """At most `calls` within any `seconds`, counted in the file `path`."""

    path: Path
    calls: int
    seconds: float

    def take(self, what: str, *, patience: float) -> None:
        """Take the place of one request, waiting for it up to `patience` seconds.

        Raises RetriableError with the whole wait as `retry_after` where it is longer.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+", encoding="utf-8") as file:
            # Held only for the look and the note: others find the place taken and wait for theirs.
            fcntl.flock(file, fcntl.LOCK_EX)
            now = time.time()
            file.seek(0)
            # Nobody waits for longer than this: a later time is of a clock that was set back.
            known = _read(file.read())
            taken = sorted(at for at in known if now - self.seconds < at <= now + _LONGEST_WAIT)
            free = taken[-self.calls] + self.seconds if len(taken) >= self.calls else now
            wait = max(0.0, free - now)
            if wait > patience:
                msg = (
                    f"{what} takes {self.calls} requests in {self.seconds:g} s, and they are used "
                    f"up: the next may go in {wait:.0f} s"
                )
                raise RetriableError(msg, retry_after=wait)
            file.truncate(0)
            file.write(json.dumps([*taken, now + wait]))
            file.flush()
        time.sleep(wait)


def _read(text: str) -> list[float]:
    """Read the times; a file that was cut off by a full disk or a kill counts as empty."""
    try:
        return [float(at) for at in json.loads(text or "[]")]
    except (ValueError, TypeError):
        return []
