"""Stands between us and a source, so that no source outlives us: not even after kill -9.

`python guard.py COMMAND ...` runs COMMAND and exits with its code. It ends the whole tree
below itself when its standard input closes, which the kernel does when its parent dies,
however it dies. Run as a file, apart from the package: it must start fast.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import subprocess
import sys
import threading

import psutil

NOT_STARTED = 127
_STOPPED = 137
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h
_GRACE_SECONDS = 2.0
_LOOK_SECONDS = 1.0


def main(command: list[str]) -> int:
    """Run `command` to its end, or until standard input closes; nothing below is left behind."""
    if sys.platform == "linux":
        # Orphans come to us instead of to init, so the tree can be seen whole.
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    except OSError as error:
        sys.stderr.write(f"{command[0]} can't be started: {error.strerror}\n")
        return NOT_STARTED
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = child.wait()
    end_tree()
    return code if code >= 0 else 128 - code


def _end_with_parent() -> None:
    parent = os.getppid()
    # The parent's process id is watched too: its forks hold our standard input open.
    while os.getppid() == parent:
        if select.select([0], [], [], _LOOK_SECONDS)[0] and not os.read(0, 4096):
            break
    end_tree()
    os._exit(_STOPPED)


def end_tree() -> None:
    """End every process below this one: asked first, then killed; repeated while new ones come."""
    me = psutil.Process()
    ask = True
    while below := [p for p in me.children(recursive=True) if _alive(p)]:
        for process in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate() if ask else process.kill()
        psutil.wait_procs(below, timeout=_GRACE_SECONDS)
        ask = False


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
