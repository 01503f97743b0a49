"""One real MLflow server for all tests of a session that ask for it, whatever their folder."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psutil
import pytest

from bentley.tracking.server import server_command, server_env, wait_ready

_URI = pytest.StashKey[str]()


def shared_mlflow(config: pytest.Config) -> str:
    """The server's address; it is started at the first call and ended with the session."""
    if _URI not in config.stash:
        config.stash[_URI] = _start(config)
    return config.stash[_URI]


def _start(config: pytest.Config) -> str:
    home = Path(tempfile.mkdtemp(prefix="bmlflow"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = server_command(host="127.0.0.1", port=port, artifacts_dir=home / "artifacts")
    environment = {**os.environ, **server_env(backend_uri=f"sqlite:///{home / 'mlflow.db'}")}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    config.add_cleanup(lambda: _end(process, home))
    try:
        wait_ready(uri, timeout_s=150, alive=lambda: process.poll() is None)
    except Exception as error:
        error.add_note((home / "log").read_text()[-3000:])
        raise
    return uri


def _end(process: subprocess.Popen, home: Path) -> None:
    tree = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in psutil.wait_procs(tree, timeout=10)[1]:
        child.kill()
    shutil.rmtree(home, ignore_errors=True)
