"""Ending a process with all that it started, also what left its process group or its parent.

Every descendant inherits an environment variable that we set for the run alone. That mark finds
what a parent chain can't: a child in a session of its own whose parent has died.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import psutil

MARK = "BENTLEY_KNIME_RUN"
_ROUNDS = 5
_KILL_WAIT_S = 5.0


def marked(run_id: str, root: psutil.Process | None = None) -> list[psutil.Process]:
    """The living processes of the run: those with its mark, and `root` with all below it."""
    found = {process.pid: process for process in _with_mark(run_id)}
    if root is not None:
        with contextlib.suppress(psutil.Error):
            below = root.children(recursive=True)
            found |= {process.pid: process for process in (root, *below)}
    found.pop(os.getpid(), None)
    return [process for process in found.values() if _alive(process)]


def end(run_id: str, root: psutil.Process | None = None, *, grace_s: float) -> int:
    """End the run's processes: TERM, after `grace_s` seconds KILL; return how many there were.

    Looks again after each round, because a process may start others while it ends.
    """
    ended: set[int] = set()
    for number in range(_ROUNDS):
        processes = marked(run_id, root)
        if not processes:
            break
        ended.update(process.pid for process in processes)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.terminate() if number == 0 else process.kill()
        psutil.wait_procs(processes, timeout=grace_s if number == 0 else _KILL_WAIT_S)
    return len(ended)


def _with_mark(run_id: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        # another user's process, or one that has just gone, is none of ours
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == run_id:
                yield process


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
