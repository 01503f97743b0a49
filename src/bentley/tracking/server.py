"""How Bentley runs its own `mlflow server`: few processes, loopback, no telemetry."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from bentley.domain.errors import FatalError, RetriableError

_POLL_S = 0.1


def server_command(*, host: str, port: int, artifacts_dir: Path | str) -> list[str]:
    """Return the arguments that start the server; its database stands in `server_env`.

    One worker: the default of four answers several times slower on a small machine.
    """
    return [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
        "--serve-artifacts",
        "--artifacts-destination",
        str(artifacts_dir),
        "--uvicorn-opts",
        "--no-access-log",
    ]


def server_env(*, backend_uri: str) -> dict[str, str]:
    """Return the variables that the server needs beside the process's own environment.

    `backend_uri` is a SQLAlchemy address of a database that nothing else uses. It goes through
    the environment because every user of the machine can read a process's arguments.
    """
    return {
        "MLFLOW_BACKEND_STORE_URI": backend_uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


def wait_ready(uri: str, *, timeout_s: float, alive: Callable[[], bool] = lambda: True) -> None:
    """Return when the server at `uri` answers; `alive` says whether its process still runs.

    Raises FatalError where the process ended and RetriableError after `timeout_s` seconds.
    """
    deadline = time.monotonic() + timeout_s
    with httpx.Client(trust_env=False, timeout=2.0) as client:
        while True:
            try:
                if client.get(f"{uri}/health").is_success:
                    return
            except httpx.HTTPError:
                pass
            if not alive():
                msg = f"the MLflow server for {uri} ended while it started; its log says why"
                raise FatalError(msg)
            if time.monotonic() >= deadline:
                msg = f"no MLflow server answered at {uri} within {timeout_s:g} s; see its log"
                raise RetriableError(msg)
            time.sleep(_POLL_S)
