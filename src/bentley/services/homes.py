"""One live run per home, and nothing left over from a run whose supervisor was killed."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from bentley.domain.errors import ConfigurationError, FatalError
from bentley.services import trees

_LOCK_NAME = ".supervisor"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_GRACE_SECONDS = 5.0


@dataclass
class Claim:
    """A home that this process holds, until it releases it or dies.

    `former` is what the holder before wrote down of itself.
    """

    home: Path
    former: dict[str, Any]
    _lock: IO[str]

    def record(self, sessions: Mapping[int, float]) -> None:
        """Write down the sessions started here: leader's pid and creation time."""
        holder = {"pid": os.getpid(), "boot": _boot(), "sessions": sessions}
        text = json.dumps(holder)
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(text)
        self._lock.flush()

    def end_leftovers(self, *, grace: float = _GRACE_SECONDS) -> list[int]:
        """End what the run before left behind, and return the pids; `grace` is in seconds.

        Raises ConfigurationError where its supervisor lives after all (the lock file was
        deleted under it), and FatalError for processes that can't be ended.
        """
        leftovers = self._find()
        for process, environ in trees.marked(trees.RUN_HOME, str(self.home)).items():
            supervisor = int(environ.get(trees.RUN_SUPERVISOR, "0"))
            if supervisor != os.getpid() and _supervises(supervisor, process):
                raise ConfigurationError(_already_running(self.home, supervisor))
        refuse(trees.end(leftovers, self._find, grace=grace))
        self.former = {}
        return sorted(process.pid for process in leftovers)

    def release(self, *, clean: bool) -> None:
        """Let another run have the home; `clean` says that nothing is left that it must end."""
        if clean:
            self._lock.seek(0)
            self._lock.truncate()
        self._lock.close()

    def _find(self) -> set[psutil.Process]:
        """Find the marked, and of the recorded sessions those that could not show a mark."""
        sessions = {int(pid): created for pid, created in self.former.get("sessions", {}).items()}
        if self.former.get("boot") != _boot():
            sessions = {}
        hidden = {
            process for process in trees.of_sessions(sessions) if trees.is_unreadable(process)
        }
        return {*trees.marked(trees.RUN_HOME, str(self.home)), *hidden}


def claim(home: Path) -> Claim:
    """Take `home` for this process.

    Raises ConfigurationError where another live process has it, naming its pid, and where the
    folder can't be written or locked.
    """
    home = home.resolve()
    path = home / _LOCK_NAME
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+", encoding="utf-8")
    except OSError as error:
        msg = f"{path} can't be written ({error.strerror}); set BENTLEY_HOME to a folder that can"
        raise ConfigurationError(msg) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _read(lock).get("pid", "unknown")
        lock.close()
        raise ConfigurationError(_already_running(home, holder)) from None
    except OSError as error:
        lock.close()
        msg = f"{path} can't be locked ({error.strerror}); set BENTLEY_HOME to a local disk"
        raise ConfigurationError(msg) from error
    claimed = Claim(home, _read(lock), lock)
    # until the leftovers are ended, a kill of this process must not lose the record of them
    former = {int(pid): created for pid, created in claimed.former.get("sessions", {}).items()}
    claimed.record(former if claimed.former.get("boot") == _boot() else {})
    return claimed


@dataclass(frozen=True)
class Holder:
    """The process that holds a home, and the sessions that it started (leader's pid: created)."""

    pid: int
    sessions: Mapping[int, float]


def holder(home: Path) -> Holder | None:
    """Find the live run that holds this home, by what it wrote down; no lock is touched."""
    path = home / _LOCK_NAME
    try:
        former = json.loads(path.read_text(encoding="utf-8"))
        pid = int(former["pid"])
        process = psutil.Process(pid)
        written = path.stat().st_mtime
        if process.status() == psutil.STATUS_ZOMBIE or process.create_time() > written + 1:
            return None
        sessions = {int(leader): at for leader, at in former.get("sessions", {}).items()}
    except (KeyError, ValueError, TypeError, AttributeError, OSError, psutil.Error):
        return None
    return Holder(pid, sessions)


def end_leftovers(home: Path, *, grace: float = _GRACE_SECONDS) -> list[int]:
    """End what a killed run of `home` left behind; return the pids.

    Raises ConfigurationError naming the pid where a run of that home is alive.
    """
    claimed = claim(home)
    clean = False
    try:
        ended = claimed.end_leftovers(grace=grace)
        clean = True
    finally:
        claimed.release(clean=clean)
    return ended


def refuse(left: set[psutil.Process]) -> None:
    """Raise FatalError that names what could not be ended, if anything."""
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        msg = f"processes {pids} can't be ended, not even by SIGKILL; look at them with ps"
        raise FatalError(msg)


def _supervises(supervisor: int, process: psutil.Process) -> bool:
    """Whether that pid is still the one that started `process`, not a later user of the number."""
    try:
        candidate = psutil.Process(supervisor)
        return (
            candidate.status() != psutil.STATUS_ZOMBIE
            and candidate.create_time() <= process.create_time()
        )
    except psutil.Error:
        return False


def _read(lock: IO[str]) -> dict[str, Any]:
    lock.seek(0)
    try:
        holder = json.loads(lock.read())
    except json.JSONDecodeError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _boot() -> str:
    """Return what tells this boot from others, empty where the system has no such thing."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _already_running(home: Path, pid: int | str) -> str:
    return f"already running in {home} (pid {pid}); stop it, or set another BENTLEY_HOME"
