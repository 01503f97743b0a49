"""Ctrl-C, SIGTERM and a closed terminal end a run in one orderly way, instead of three."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """Someone asked this process to end; `signum` says how, `exit_code` is what a shell expects."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """128 and the signal's number: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


@dataclass
class Signals:
    """What has been asked so far: the first signal raises Stopped, each later one only hurries."""

    received: list[int] = field(default_factory=list)

    @property
    def hurried(self) -> bool:
        """Whether a second signal came: whoever is ending things should stop being patient."""
        return len(self.received) > 1

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        self.received.append(signum)
        if len(self.received) == 1:
            raise Stopped(signum)


@contextmanager
def terminating_signals() -> Iterator[Signals]:
    """Raise Stopped in the main thread on the first SIGINT, SIGTERM or SIGHUP.

    Later ones set `hurried` and interrupt nothing, so that cleaning up can't be cut short
    half-way. The former handlers come back at the end. Call it in the main thread.
    """
    signals = Signals()
    former = {signum: signal.signal(signum, signals._handle) for signum in _ENDING}  # noqa: SLF001
    try:
        yield signals
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)
