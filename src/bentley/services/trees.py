"""Finds and ends whole process trees, those included that left their parent or their session.

Every process that Bentley starts carries marks in its environment, which its descendants inherit
wherever they go. A name is never a reason to end a process; a mark or an ancestor is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import psutil

RUN_ID = "BENTLEY_RUN_ID"
RUN_HOME = "BENTLEY_RUN_HOME"
RUN_SUPERVISOR = "BENTLEY_RUN_SUPERVISOR"

_POLL_SECONDS = 0.05
_KILL_SECONDS = 10.0
_CLOCK_SECONDS = 2.0  # two processes may see the boot, and so creation times, a second apart


def marks(*, run_id: str, home: Path) -> dict[str, str]:
    """Environment variables that tie a process to this run, its home and its supervisor."""
    return {
        RUN_ID: run_id,
        RUN_HOME: str(home.resolve()),
        RUN_SUPERVISOR: str(os.getpid()),
        # setproctitle would otherwise write a title over the environment that holds the marks
        "SPT_NOENV": "1",
    }


def marked(name: str, value: str) -> dict[psutil.Process, dict[str, str]]:
    """Processes whose environment has `name=value`, each with its environment.

    This process and its ancestors are never among them: a run may itself be started by a task
    of another.
    """
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = {}
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        try:
            environ = process.environ()
        except (psutil.Error, OSError):
            continue
        if environ.get(name) == value:
            found[process] = environ
    return found


def of_sessions(leaders: Mapping[int, float]) -> set[psutil.Process]:
    """Processes in the sessions that these leaders began: pid and creation time of each.

    It finds those that a mark can't: Airflow makes its task processes unreadable to their own
    user, and one whose parent is gone has no ancestor to be found by.
    """
    found = set()
    for process in psutil.process_iter():
        try:
            leader = os.getsid(process.pid)
            if leader in leaders and _began(leader, leaders[leader], process):
                found.add(process)
        except (psutil.Error, OSError):
            continue
    return found


def _began(leader: int, created: float, member: psutil.Process) -> bool:
    """Whether that leader is dead or still the same, and older than the member."""
    try:
        if abs(psutil.Process(leader).create_time() - created) > _CLOCK_SECONDS:
            return False
    except psutil.NoSuchProcess:
        pass
    return member.create_time() >= created - _CLOCK_SECONDS


def is_unreadable(process: psutil.Process) -> bool:
    """Whether the process hides its environment, and so any mark in it."""
    try:
        process.environ()
    except psutil.AccessDenied:
        return True
    except (psutil.Error, OSError):
        return False
    return False


def descendants(roots: Iterable[psutil.Process]) -> set[psutil.Process]:
    """The processes given that still live, with all that descend from them."""
    found = set()
    for root in roots:
        try:
            found |= {root, *root.children(recursive=True)}
        except psutil.NoSuchProcess:
            continue
    return found


def living(processes: Iterable[psutil.Process]) -> set[psutil.Process]:
    """Those that still run; one that is dead and only waits to be reaped does not."""
    return {process for process in processes if _lives(process)}


def end(
    roots: Iterable[psutil.Process],
    find: Callable[[], Iterable[psutil.Process]],
    *,
    grace: float,
    hurried: Callable[[], bool] = lambda: False,
) -> set[psutil.Process]:
    """End `roots`, their descendants and whatever `find` finds; return what could not be ended.

    The roots get SIGTERM first, since they know best how to end their own children; after a
    third of `grace` seconds, or when all roots are gone, all that is left gets it (to a root it
    is the second, which Airflow takes as "don't wait"). Whatever still lives at `grace`, a third
    of it after the last root is gone, or as soon as `hurried` says so, is killed.
    """
    roots = set(roots)
    known = descendants(roots) | set(find())
    _signal(living(roots), psutil.Process.terminate)
    told: set[psutil.Process] = set()
    start = time.monotonic()
    deadline = start + grace
    while (now := time.monotonic()) < deadline and not hurried():
        orphaned = not living(roots)
        if orphaned or now > start + grace / 3:
            known |= descendants(known) | set(find())
            _signal(living(known - told), psutil.Process.terminate)
            told |= known
        if orphaned and not living(known):
            return set()
        if orphaned:
            deadline = min(deadline, now + grace / 3)
            roots = set(known)
        time.sleep(_POLL_SECONDS)
    return _kill(known, find)


def _kill(
    known: set[psutil.Process], find: Callable[[], Iterable[psutil.Process]]
) -> set[psutil.Process]:
    """Kill until a search finds nothing new, for a dying process may still have forked."""
    deadline = time.monotonic() + _KILL_SECONDS
    while True:
        known |= descendants(known) | set(find())
        left = living(known)
        if not left or time.monotonic() > deadline:
            return left
        _signal(left, psutil.Process.kill)
        time.sleep(_POLL_SECONDS)


def _signal(processes: Iterable[psutil.Process], send: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        try:
            send(process)
        except psutil.Error:
            continue


def _lives(process: psutil.Process) -> bool:
    try:
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.is_running()
    except psutil.Error:
        return False
    return False


def reap_adopted(own: Iterable[int]) -> None:
    """Wait for dead grandchildren that became ours, so that no zombie stays behind.

    A child in our own session may belong to other code in this process, and those in `own` to
    a Popen: both are left to their owners.
    """
    mine, session = set(own), os.getsid(0)
    for child in psutil.Process().children():
        try:
            if (
                child.pid not in mine
                and child.status() == psutil.STATUS_ZOMBIE
                and os.getsid(child.pid) != session
            ):
                os.waitpid(child.pid, os.WNOHANG)
        except (psutil.Error, OSError):
            continue
