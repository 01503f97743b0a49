"""The exchange as a process of its own, and as a thread, from start to end."""

import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest

from bentley.services.exchange.generated import GeneratedMarket
from bentley.services.exchange.server import ExchangeServer

PROGRAM = """
import sys
from pathlib import Path
from bentley.services.exchange.generated import GeneratedMarket
from bentley.services.exchange.server import serve
serve(GeneratedMarket(7, ["BTCUSDT"]), port=int(sys.argv[1]), now=1_700_000_000_000,
      started=lambda url: print(url, flush=True))
print("ended", flush=True)
"""


@pytest.fixture
def process():
    """The exchange in a process, its address, and its end in every case."""
    started = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield started, started.stdout.readline().strip()
    finally:
        started.kill()
        started.communicate()


def test_it_serves_as_soon_as_it_says_so_and_ends_on_ctrl_c(process):
    started, url = process
    assert httpx.get(f"{url}/api/v3/time").json() == {"serverTime": 1_700_000_000_000}
    assert url.startswith("http://127.0.0.1:")
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=20)
    assert (started.returncode, out, err) == (0, "ended\n", "")


def test_it_ends_on_sigterm(process):
    started, url = process
    httpx.get(f"{url}/api/v3/ping")
    started.terminate()
    started.communicate(timeout=20)
    assert started.returncode in {0, -signal.SIGTERM}
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/api/v3/ping")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_just_after_it_says_so_ends_it_quietly(signum):
    program = PROGRAM.replace(
        "print(url, flush=True)", f"os.kill(os.getpid(), {int(signum)})"
    ).replace("import sys", "import os, sys")
    done = subprocess.run(
        [sys.executable, "-c", program, "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_only_loopback_listens():
    with ExchangeServer(GeneratedMarket(7, ["BTCUSDT"])) as server:
        listener = server._listener.getsockname()
        assert listener[0] == "127.0.0.1"
        assert server.url == f"http://127.0.0.1:{listener[1]}"


def test_a_thread_frees_its_port_and_leaves_no_thread_behind():
    with ExchangeServer(GeneratedMarket(7, ["BTCUSDT"])) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with httpx.Client(base_url=server.url) as client:
            client.get("/api/v3/ping")
    server.stop()
    assert server._thread not in threading.enumerate()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))


def test_a_stop_does_not_wait_for_slow_answers():
    with ExchangeServer(GeneratedMarket(7, ["BTCUSDT"])) as server:
        server.faults([{"kind": "slow", "delay": 60}])
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(f"{server.url}/api/v3/ping", timeout=0.2)
        start = time.monotonic()
    assert time.monotonic() - start < 5


def test_a_generated_market_runs_with_the_real_clock():
    with (
        ExchangeServer(GeneratedMarket(7, ["BTCUSDT", "ADAUSDT"])) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        first = client.get("/api/v3/time").json()["serverTime"]
        assert abs(first - time.time() * 1000) < 5_000
        rows = client.get("/api/v3/klines?symbol=ADAUSDT&interval=1m&limit=3").json()
        assert rows[-1][0] <= client.get("/api/v3/time").json()["serverTime"]
        assert len(rows[-1]) == 12
        assert client.get("/control/clock").json()["running"]
        assert server.origin == "generated:7"


def test_reset_is_as_at_the_start():
    with (
        ExchangeServer(GeneratedMarket(7, ["BTCUSDT"]), now=1_700_000_000_000) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        server.advance(5)
        server.faults([{"kind": "500", "every": 1}])
        change = {"symbol": "BTCUSDT", "interval": "1h", "open_time": 1_699_992_000_000}
        server.rows([change | {"missing": True}])
        assert client.get("/api/v3/time").status_code == 500
        server.reset()
        assert client.get("/api/v3/time").json() == {"serverTime": 1_700_000_000_000}
        assert client.get("/control/rows").json() == []
        assert server.requests() == {"total": 1, "paths": {"/api/v3/time": {"200": 1}}}
