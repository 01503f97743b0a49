"""Starts the processes of a run, notices when one dies, and leaves none behind."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from bentley.domain.errors import ConfigurationError, FatalError
from bentley.services import trees
from bentley.services.homes import Claim, claim, end_leftovers, refuse
from bentley.services.signals import Signals, Stopped, terminating_signals

__all__ = [
    "Death",
    "ProcessGroup",
    "Signals",
    "Stopped",
    "end_leftovers",
    "terminating_signals",
]

_TAIL_BYTES = 16_384
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Death:
    """A process that ended unasked: its exit code (negative: the signal) and its last log lines."""

    name: str
    pid: int
    code: int
    log: Path
    tail: str

    def __str__(self) -> str:
        how = f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        return f"{self.name} (pid {self.pid}) ended with {how}; the end of {self.log}:\n{self.tail}"


@dataclass(frozen=True)
class _Child:
    popen: subprocess.Popen[bytes]
    process: psutil.Process
    log: Path


class ProcessGroup:
    """The processes of one run, as a context manager; leaving it ends them all with their trees.

    Entering claims `home` for this process (raises ConfigurationError where another live run
    holds it) and ends what a killed former run left behind. `grace` is in seconds; `hurried` is
    asked while ending, and cuts the grace short.
    """

    def __init__(
        self,
        *,
        home: Path,
        logs: Path,
        grace: float = 9.0,
        hurried: Callable[[], bool] = lambda: False,
    ) -> None:
        self.home = home.resolve()
        self.logs = logs
        self.run_id = uuid.uuid4().hex
        self._grace = grace
        self._hurried = hurried
        self._children: dict[str, _Child] = {}
        self._sessions: dict[int, float] = {}
        self._claim: Claim | None = None

    def __enter__(self) -> Self:
        self._claim = claim(self.home)
        try:
            self._claim.end_leftovers()
            self.logs.mkdir(parents=True, exist_ok=True)
        except BaseException:
            self._release(clean=False)
            raise
        _adopt_orphans()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path | None = None
    ) -> int:
        """Start `argv` under `name` and return its pid; its output goes to `logs/name.log`.

        `env` is the whole environment, to which only the run's marks are added. The log of the
        run before is kept as `name.previous.log`. Raises ConfigurationError where the program
        can't be started, and ValueError for a name in use.
        """
        if self._claim is None:
            msg = "enter the ProcessGroup before starting processes in it"
            raise ValueError(msg)
        if name in self._children:
            msg = f"a process named {name!r} is already in this group"
            raise ValueError(msg)
        log = self.logs / f"{name}.log"
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        with log.open("wb") as output:
            try:
                popen = subprocess.Popen(
                    list(argv),
                    env={**env, **trees.marks(run_id=self.run_id, home=self.home)},
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # its own session: Ctrl-C in the terminal reaches the supervisor alone
                    start_new_session=True,
                )
            except OSError as error:
                msg = f"{name}: {argv[0]} could not be started: {error.strerror or error}"
                raise ConfigurationError(msg) from error
        self._children[name] = _Child(popen, psutil.Process(popen.pid), log)
        self._sessions[popen.pid] = self._children[name].process.create_time()
        self._claim.record(self._sessions)
        return popen.pid

    def log(self, name: str) -> Path:
        """Where the output of `name` goes."""
        return self._children[name].log

    def tail(self, name: str, lines: int = 20) -> str:
        """Return the last lines that `name` wrote."""
        return _tail(self.log(name), lines)

    def deaths(self) -> list[Death]:
        """Those that have ended although nobody ended them, in the order of their start."""
        trees.reap_adopted(self._pids())
        return [
            Death(name, child.popen.pid, code, child.log, _tail(child.log, 20))
            for name, child in self._children.items()
            if (code := child.popen.poll()) is not None
        ]

    def check(self) -> None:
        """Raise FatalError that names every process that died, with the end of its log."""
        if deaths := self.deaths():
            raise FatalError("\n".join(map(str, deaths)))

    def stop(self, name: str) -> None:
        """End `name` with its tree and forget it, so that it may be started again."""
        child = self._children[name]
        own = {child.popen.pid: self._sessions[child.popen.pid]}
        left = trees.end(
            [child.process],
            lambda: trees.of_sessions(own),
            grace=self._grace,
            hurried=self._hurried,
        )
        refuse(left)
        child.popen.wait()
        del self._children[name]

    def end(self) -> None:
        """End every process of this run and give the home back; a second call does nothing.

        An interrupt while ending is raised after it. Raises FatalError naming pids that not
        even SIGKILL ended.
        """
        if self._claim is None:
            return
        interrupt: KeyboardInterrupt | None = None
        patience = self._grace
        while True:
            try:
                self._end(patience)
            except KeyboardInterrupt as error:
                interrupt, patience = error, min(patience, self._grace / 3)
            else:
                break
        if interrupt is not None:
            raise interrupt

    def _end(self, grace: float) -> None:
        try:
            left = trees.end(
                [child.process for child in self._children.values()],
                self._strays,
                grace=grace,
                hurried=self._hurried,
            )
            refuse(left)
        except KeyboardInterrupt:
            raise
        except BaseException:
            self._release(clean=False)
            raise
        for child in self._children.values():
            child.popen.wait()
        trees.reap_adopted(())
        self._children.clear()
        self._sessions.clear()
        self._release(clean=True)

    def _pids(self) -> list[int]:
        return [child.popen.pid for child in self._children.values()]

    def _strays(self) -> set[psutil.Process]:
        """Return what left its parent: by its mark, or by its session where it hides the mark."""
        return {*trees.marked(trees.RUN_ID, self.run_id), *trees.of_sessions(self._sessions)}

    def _release(self, *, clean: bool) -> None:
        if self._claim is not None:
            self._claim.release(clean=clean)
            self._claim = None


def _adopt_orphans() -> None:
    """Become the parent of orphaned descendants (Linux), so that they can be seen and reaped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _tail(log: Path, lines: int) -> str:
    with log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-lines:])
