"""The stages by their command, on databases and an exchange that can be made to fail."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from bentley import settings as bentley_settings
from bentley.services.exchange.generated import GeneratedMarket
from bentley.services.exchange.server import ExchangeServer
from bentley.settings import Settings
from bentley.tracking.runs import Tracker
from unit.stages.mlflow_support import shared_mlflow

HOUR = 3_600_000
NOW = 1_700_002_800_000
SYMBOLS = ("BTCUSDT", "ETHUSDT")
SECRETS = ("pw-7", "tr4cking-pw")
SCRIPT = Path(sys.executable).parent / "bentley"


@dataclass
class Place:
    """One home and database of its own, and the commands run there."""

    home: Path
    exchange_url: str
    warehouse_url: str | None = None
    tracking_uri: str | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return bentley_settings.load(
            home=self.home,
            exchange_url=self.exchange_url,
            warehouse_url=self.warehouse_url,
            mlflow_tracking_uri=self.tracking_uri,
            symbols=SYMBOLS,
            history_days=90,
        )

    def environment(self) -> dict[str, str]:
        names = ("PATH", "HOME", "LANG", "PYTHONPATH")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        return kept | self.settings.environment() | dict(self.extra)

    def start(self, *arguments: str, command: Iterable[str] = (), **more) -> subprocess.Popen:
        self.home.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            [*(tuple(command) or (str(SCRIPT),)), *arguments],
            env=self.environment(),
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **more,
        )

    def run(self, *arguments: str, timeout: float = 150, **more) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **more)
        try:
            return finished(process, timeout)
        finally:
            if process.poll() is None:
                kill_tree(process)


def finished(process: subprocess.Popen, timeout: float = 150) -> subprocess.CompletedProcess:
    """Wait for a command; whatever it says, it says no secret."""
    out, err = process.communicate(timeout=timeout)
    for secret in SECRETS:
        assert secret not in out + err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def failed(done: subprocess.CompletedProcess) -> str:
    """Return what a command that failed under --json says, the same on both of its streams."""
    assert done.returncode == 1, done.stdout + done.stderr
    said = json.loads(done.stdout)["error"]
    assert said in done.stderr
    return said


def kill_tree(process: subprocess.Popen) -> None:
    """SIGKILL for a process and all below it, as when the machine takes them."""
    try:
        root = psutil.Process(process.pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        tree = []
    for one in tree:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(tree, timeout=20)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def bears(run, claim):
    """Whether a run bears the claim of a warehouse's batch, whatever stands behind it."""
    return any(f"{value}:".startswith(f"{claim}:") for value in run.data.tags.values())


def runs_of(uri, claim):
    """Every run in MLflow that bears the claim, deleted ones apart."""
    with Tracker(uri)._edge.call("look") as client:
        experiments = [one.experiment_id for one in client.search_experiments()]
        found = []
        for experiment in experiments:
            page = client.search_runs([experiment], max_results=1000)
            found += [run for run in page if bears(run, claim)]
        return found


@pytest.fixture(scope="session")
def mlflow_uri(request):
    return shared_mlflow(request.config)


@pytest.fixture(scope="session")
def exchange_server():
    market = GeneratedMarket(7, SYMBOLS)
    with ExchangeServer(market, now=NOW, weight_limit=10**9) as server:
        yield server


@pytest.fixture
def exchange(exchange_server):
    exchange_server.reset()
    return exchange_server


@pytest.fixture
def place(tmp_path, exchange, request):
    """Make a place: `place("a")` on SQLite, `place("b", mariadb=True)` on the server."""

    def make(name: str, *, mariadb: bool = False, **more) -> Place:
        url = request.getfixturevalue("mariadb").database() if mariadb else None
        return Place(tmp_path / name, exchange.url, url, **more)

    return make
