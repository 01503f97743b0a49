"""A private MariaDB server for the comparisons, where one is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pymysql

MISSING = "mariadbd is not installed: nothing is measured on MariaDB"
_USER = "CREATE USER 'bench'@'127.0.0.1' IDENTIFIED BY 'bench'"
_START_SECONDS = 60


def installed() -> bool:
    """Whether this machine has the server and its installer."""
    return all(shutil.which(name) for name in ("mariadbd", "mariadb-install-db"))


class Server:
    """A running server; `database` makes an empty database."""

    def __init__(self, port: int, socket: Path, process: int) -> None:
        self.port = port
        self._process = psutil.Process(process)
        self._socket = socket
        self._made = 0

    def database(self) -> str:
        """Make an empty database and return its SQLAlchemy address."""
        self._made += 1
        name = f"mansa_bot_{self._made}"
        self.execute(f"CREATE DATABASE {name}")
        return f"mysql+pymysql://bench:bench@127.0.0.1:{self.port}/{name}"

    def cpu_seconds(self) -> float:
        """Time that the server has spent on the processor so far."""
        used = self._process.cpu_times()
        return float(used.user + used.system)

    def execute(self, statement: str) -> None:
        """Run a statement as root."""
        connection = pymysql.connect(user="root", unix_socket=str(self._socket))
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)


@contextmanager
def server(port: int) -> Iterator[Server]:
    """Start a server of our own on loopback, and end it with its data.

    It commits as a server with its defaults does: every commit reaches the disk.
    """
    # A socket's path may have 107 bytes, so it doesn't lie in the folder of the run.
    folder = Path(tempfile.mkdtemp(prefix="bmb"))
    try:
        _install(folder)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(_command(folder, port), stdout=log, stderr=log)
        try:
            found = Server(port, folder / "s", process.pid)
            _wait(found, process, folder / "log")
            found.execute(_USER)
            found.execute("GRANT ALL ON *.* TO 'bench'@'127.0.0.1'")
            yield found
        finally:
            process.terminate()
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _install(folder: Path) -> None:
    subprocess.run(
        [
            shutil.which("mariadb-install-db") or "mariadb-install-db",
            "--no-defaults",
            f"--datadir={folder / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        ],
        check=True,
        capture_output=True,
    )


def _command(folder: Path, port: int) -> list[str]:
    return [
        shutil.which("mariadbd") or "mariadbd",
        "--no-defaults",
        *(["--user=root"] if os.geteuid() == 0 else []),
        f"--datadir={folder / 'data'}",
        f"--port={port}",
        "--bind-address=127.0.0.1",
        f"--socket={folder / 's'}",
        f"--pid-file={folder / 'pid'}",
        "--innodb-buffer-pool-size=512M",
    ]


def _wait(found: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            found.execute("SELECT 1")
        except pymysql.err.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                msg = f"MariaDB did not start:\n{log.read_text(errors='replace')[-2000:]}"
                raise RuntimeError(msg) from None
            time.sleep(0.1)
        else:
            return
