"""Ends a KNIME run whose owner has died: its processes, and the folder that holds the password.

`python -m bentley.knime.watchdog FOLDER`, with a pipe from the owner as standard input. No
`finally` runs in a process that gets SIGTERM or SIGKILL, and Airflow ends a cleared task so; but
the kernel closes the pipe, however its owner dies.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path

from bentley.knime.private_run import clear

_LOOK_S = 1.0


def main(folder: Path) -> None:
    """Wait for the owner's end, and clear up after it."""
    owner = os.getppid()
    # The owner's process id is watched too: its forks hold our standard input open.
    while os.getppid() == owner:
        if select.select([0], [], [], _LOOK_S)[0] and not os.read(0, 4096):
            break
    clear(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
