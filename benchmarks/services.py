"""The servers that a comparison needs beside it: an exchange with generated bars, and MLflow."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import harness
import httpx
from harness import HERE

from bentley.tracking import server as mlflow_server

_START_SECONDS = 60


def free_port() -> int:
    """Find a port on loopback that nobody holds now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def exchange(folder: Path, now: int) -> Iterator[str]:
    """Serve the generated market in a process of its own; yield its address.

    Its clock stands at `now` (UTC milliseconds). It refuses nobody for asking too much.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = harness.python(str(HERE / "feed.py"), str(port), str(now))
    with _process("exchange", argv, {}, folder) as process:
        _wait(f"{url}/api/v3/ping", process)
        yield url


@contextmanager
def mlflow(folder: Path) -> Iterator[str]:
    """Run the MLflow server as `bentley run` does; yield its address."""
    port = free_port()
    argv = mlflow_server.server_command(
        host="127.0.0.1", port=port, artifacts_dir=folder / "artifacts"
    )
    env = mlflow_server.server_env(backend_uri=f"sqlite:///{folder / 'mlflow.db'}")
    with _process("mlflow", argv, env, folder) as process:
        url = f"http://127.0.0.1:{port}"
        mlflow_server.wait_ready(url, timeout_s=120, alive=lambda: process.poll() is None)
        yield url


@contextmanager
def _process(
    name: str, argv: list[str], env: dict[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            argv, env=harness.environment(**env), cwd=folder, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx.get(url, trust_env=False).raise_for_status()
        except httpx.HTTPError:
            if process.poll() is not None or time.monotonic() > deadline:
                msg = f"nothing answers at {url}"
                raise RuntimeError(msg) from None
            time.sleep(0.05)
        else:
            return
