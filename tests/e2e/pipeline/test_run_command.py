"""`bentley run` as a user types it: every row goes through the chain, and no process stays."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import polars as pl
import psutil
import pytest
import sqlalchemy as sa

from bentley.domain.bars import DECIMALS, FIELDS
from support import free_port

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[3]
SYMBOLS = ("BTCUSDT", "ADAUSDT")


@dataclass
class Run:
    """A `bentley run --json` that is up."""

    process: subprocess.Popen[str]
    errors: IO[str]
    started: float = field(default_factory=time.monotonic)

    def said(self) -> str:
        self.errors.seek(0)
        return self.errors.read()

    def follows(self) -> float:
        """Wait until it follows the chain, and return the seconds that this took."""
        while ", master " not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() - self.started < 240, self.said()
            time.sleep(0.2)
        return time.monotonic() - self.started

    def summary(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        assert line, self.said()
        return json.loads(line)

    def ended_by(self, signum: int) -> int:
        self.process.send_signal(signum)
        return self.process.wait(timeout=40)


class Home:
    """A fresh home with ports of its own, in which the command is run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.airflow_port, self.mlflow_port = free_port(), free_port()

    def bentley(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / "bentley"), *arguments],
            env=self.environment(**more),
            cwd=self.folder.parent,
            capture_output=True,
            text=True,
            timeout=420,
            check=False,
        )

    @contextmanager
    def up(self, *arguments: str, **more: str) -> Iterator[Run]:
        """Start `bentley run --json`, and end it in every case."""
        with (self.folder.parent / "stderr").open("w+") as errors:
            process = subprocess.Popen(
                [str(Path(sys.executable).parent / "bentley"), "run", "--json", *arguments],
                env=self.environment(**more),
                cwd=self.folder.parent,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            try:
                yield Run(process, errors)
            finally:
                process.terminate()
                process.communicate()

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "BENTLEY_HOME": str(self.folder),
            "BENTLEY_AIRFLOW_PORT": str(self.airflow_port),
            "BENTLEY_MLFLOW_PORT": str(self.mlflow_port),
            **more,
        }

    def leaves_nothing(self) -> bool:
        """Whether no process is left, and nobody listens on the ports."""
        for port in (self.airflow_port, self.mlflow_port):
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return False
        return self.survivors() == []

    def survivors(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("BENTLEY_HOME") == str(self.folder):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found


def recorded_rows(folder: Path, symbol: str, interval: str) -> pl.DataFrame:
    rows = pl.read_csv(folder / f"{symbol}-{interval}.csv.zst", infer_schema=False)
    return rows.rename(
        {
            "quote_asset_volume": "quote_volume",
            "taker_buy_base": "taker_buy_base_volume",
            "taker_buy_quote": "taker_buy_quote_volume",
        }
    ).select(name for name in FIELDS if name not in {"symbol", "interval"})


def stored_rows(engine: sa.Engine, table: str, symbol: str, interval: str) -> pl.DataFrame:
    names = [name for name in FIELDS if name not in {"symbol", "interval"}]
    query = sa.text(
        f"SELECT {', '.join(names)} FROM {table} k "
        "WHERE k.symbol = :symbol AND k.interval = :interval ORDER BY k.open_time"
    )
    with engine.connect() as connection:
        rows = connection.execute(query, {"symbol": symbol, "interval": interval}).all()
    text = [
        [f"{Decimal(c):.8f}" if n in DECIMALS else str(c) for n, c in zip(names, row, strict=True)]
        for row in rows
    ]
    return pl.DataFrame(text, schema=dict.fromkeys(names, pl.String), orient="row")


@pytest.fixture(params=["sqlite", "mariadb"])
def warehouse(request, tmp_path) -> tuple[dict[str, str], sa.URL]:
    """Where the bars go: what is set for it, and the database where they must then be."""
    if request.param == "sqlite":
        path = tmp_path / "home" / "replay" / "mansa_bot.db"
        return {}, sa.make_url(f"sqlite:///{path}")
    address = request.getfixturevalue("mariadb").database()
    url = sa.make_url(address)
    return {"BENTLEY_WAREHOUSE_URL": address}, url.set(database=f"{url.database}_replay")


def test_every_recorded_row_goes_through_to_the_last_digit(tmp_path, recorded, warehouse, migrated):
    given, url = warehouse
    folder = recorded / "binance_klines"
    home = Home(tmp_path / "home")
    migrated(home.folder / "replay")

    done = home.bentley(
        *("run", "--once", "--json", "--replay", str(folder), "--symbols", *SYMBOLS), **given
    )

    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    result = json.loads(done.stdout)
    assert result["held"] is True
    assert result["origin"].startswith("replay:binance_klines@")
    assert all(check["held"] for check in result["verification"]["checks"])
    assert "pw-7" not in done.stdout + done.stderr
    engine = sa.create_engine(url)
    for symbol in SYMBOLS:
        expected = recorded_rows(folder, symbol, "1h")
        assert stored_rows(engine, "binance_ohlcv", symbol, "1h").equals(expected)
        assert stored_rows(engine, "knime_processed", symbol, "1h").equals(expected)
    engine.dispose()
    report = Path(result["master"]["report"])
    assert "every check held" in report.read_text()
    assert report.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "home" / "mansa_bot.db").exists()  # the real warehouse
    assert home.leaves_nothing()


def test_generated_bars_a_second_start_and_both_ways_to_end_it(tmp_path, recorded):
    home = Home(tmp_path / "home")
    # the public exchange is out of reach: nobody listens where the proxy should be
    given = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}

    with home.up("--symbols", "BTCUSDT", **given) as first:
        summary = first.summary()
        assert summary["held"] is True, first.said()
        assert summary["origin"] == "generated:7"
        assert "GENERATED bars" in first.said()
        stored = summary["verification"]["series"][0]["rows"]
        assert stored > 600  # 30 days, less some outages
        replay = ("--replay", str(recorded / "binance_klines"))
        refused = home.bentley("run", "--once", *replay, **given)
        assert refused.returncode == 2
        assert f"already running in {home.folder} (pid {first.process.pid})" in refused.stderr
        assert first.ended_by(signal.SIGTERM) == 0, first.said()
    assert home.leaves_nothing()

    with home.up("--symbols", "BTCUSDT", **given) as second:
        assert second.follows() < 60
        summary = second.summary()
        assert summary["held"] is True, second.said()
        assert summary["origin"] == "generated:7"
        assert summary["chain"]["stages"][0]["rows_read"] < 10
        assert summary["verification"]["series"][0]["rows"] >= stored
        assert second.ended_by(signal.SIGINT) == 0, second.said()
        assert "every process is ended" in second.said()
    assert home.leaves_nothing()


def test_a_busy_port_is_named_before_anything_starts(tmp_path):
    home = Home(tmp_path / "home")
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", home.mlflow_port))
        taken.listen()
        done = home.bentley("run", "--once", BENTLEY_EXCHANGE_URL="http://127.0.0.1:9")
        busy = home.bentley("run", "--once")
    assert done.returncode == 1  # an exchange that was named and doesn't answer
    assert "http://127.0.0.1:9" in done.stderr
    assert busy.returncode == 2
    assert str(home.mlflow_port) in busy.stderr
    assert "BENTLEY_MLFLOW_PORT" in busy.stderr
    assert not (tmp_path / "home" / "mlflow").exists()
