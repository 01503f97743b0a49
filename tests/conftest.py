"""What every test may use: settings of a private home, and real databases."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
from xdist.scheduler import LoadScopeScheduling

import market_server
from bentley import settings as bentley_settings
from bentley.services import airflow, airflow_db
from bentley.settings import Settings
from support import free_port

ROOT = Path(__file__).resolve().parents[1]
RECORDED = ROOT.parent / "shared" / "data"
CI = os.environ.get("CI") == "true"
WHOLE = ("tests/e2e/pipeline/", "tests/e2e/services/")
"""Where tests start an Airflow."""


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs so, and every process below would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Sharing(LoadScopeScheduling):
    """Gives one process the tests of a whole Airflow, and the others a file at a time.

    Two Airflows at once would only wait for each other.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "airflow" if file.startswith(WHOLE) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Sharing:
    return Sharing(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: whole services, and among them Airflow."""
    items.sort(key=lambda item: (not item.nodeid.startswith(WHOLE), "/e2e/" not in item.nodeid))


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch, tmp_path_factory):
    for name in list(os.environ):
        if name.startswith(("BENTLEY_", "AIRBYTE_")) or name in {
            "KNIME_EXECUTABLE",
            "MLFLOW_TRACKING_URI",
            "TIINGO_API_KEY",
            "POLYGON_API_KEY",
            "ALPHA_VANTAGE_API_KEY",
        }:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))  # no .env of the checkout


@pytest.fixture(scope="session")
def recorded() -> Path:
    """The recorded market data beside the checkout."""
    if not RECORDED.is_dir():
        if CI:
            pytest.fail("the recorded market data (../shared/data) is not here")
        pytest.skip("the recorded market data (../shared/data) is not here")
    return RECORDED


class MariaDb:
    """A private server: its port, its own user, and databases made on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.made = 0

    def _own_tmp(self) -> Path:
        """Two servers that start at once clear each other's temporary tables away."""
        folder = self.folder / "tmp"
        folder.mkdir(exist_ok=True)
        return folder

    def install(self) -> None:
        installer = shutil.which("mariadb-install-db") or ""
        done = subprocess.run(
            [
                installer,
                "--no-defaults",
                f"--datadir={self.folder / 'data'}",
                f"--tmpdir={self._own_tmp()}",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{installer}: {done.stdout}\n{done.stderr}"

    def start(self, *options: str) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    shutil.which("mariadbd") or "",
                    "--no-defaults",
                    *(["--user=root"] if os.geteuid() == 0 else []),
                    f"--datadir={self.folder / 'data'}",
                    f"--tmpdir={self._own_tmp()}",
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    f"--socket={self.folder / 's'}",
                    f"--pid-file={self.folder / 'pid'}",
                    "--innodb-buffer-pool-size=256M",
                    *options,
                ],
                stdout=log,
                stderr=log,
            )
        for _ in range(300):
            # a refused connect of the driver's would leave its socket open
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
                if probe.connect_ex(str(self.folder / "s")) == 0:
                    return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.1)
        pytest.fail("MariaDB did not start")

    def admin(self) -> Any:
        return pymysql.connect(user="root", unix_socket=str(self.folder / "s"), autocommit=True)

    def stop(self, *, hard: bool = False) -> None:
        if self.process is not None:
            self.process.kill() if hard else self.process.terminate()
            self.process.wait()
            self.process = None

    def database(self) -> str:
        """Make an empty database and return its address."""
        self.made += 1
        name = f"mansa_bot_{self.made}"
        with self.admin() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute("CREATE USER IF NOT EXISTS 'bentley'@'127.0.0.1' IDENTIFIED BY 'pw-7'")
            cursor.execute("GRANT ALL ON *.* TO 'bentley'@'127.0.0.1'")
        return f"mysql+pymysql://bentley:pw-7@127.0.0.1:{self.port}/{name}"


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    """A real MariaDB server of this session's own."""
    if shutil.which("mariadbd") is None:
        if CI:
            pytest.fail("mariadbd is not installed")
        pytest.skip("mariadbd is not installed")
    folder = Path(tempfile.mkdtemp(prefix="bmy"))  # short: a socket's path may have 107 bytes
    server = MariaDb(folder)
    try:
        server.install()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "mariadb"])
def database_url(request) -> str | None:
    """An empty database of each kind: None is SQLite in the private home."""
    if request.param == "sqlite":
        return None
    server: MariaDb = request.getfixturevalue("mariadb")
    return server.database()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Callable[[Path], Path]:
    """Give a home the database that Airflow makes at its first start, and return the home.

    Airflow made it, once: to make it takes seven seconds of each first start.
    """
    made = tmp_path_factory.mktemp("migrated")
    airflow_db.migrate(airflow.environment(home=made, root=ROOT, port=free_port()))

    def give(home: Path) -> Path:
        folder = home / "airflow"
        folder.mkdir(parents=True, mode=0o700)
        shutil.copy(made / "airflow" / "airflow.db", folder)
        return home

    return give


@pytest.fixture
def market() -> Iterator[market_server.Market]:
    """A stand-in for the sources of stocks."""
    with market_server.serve() as market:
        yield market


@pytest.fixture
def settings(tmp_path) -> Callable[..., Settings]:
    """Settings of a private home, with what a test adds."""

    def make(**overrides: Any) -> Settings:
        return bentley_settings.load(**({"home": tmp_path / "home"} | overrides))

    return make
