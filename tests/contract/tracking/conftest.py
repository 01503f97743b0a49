"""A real MLflow server on SQLite, started once for all tests of this folder."""

import os
import subprocess

import psutil
import pytest

from bentley.tracking.runs import Tracker
from bentley.tracking.server import server_command, server_env, wait_ready
from support import free_port


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory):
    home = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = server_command(host="127.0.0.1", port=port, artifacts_dir=home / "artifacts")
    environment = {**os.environ, **server_env(backend_uri=f"sqlite:///{home / 'mlflow.db'}")}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        try:
            wait_ready(uri, timeout_s=150, alive=lambda: process.poll() is None)
        except Exception as error:
            error.add_note((home / "log").read_text()[-3000:])
            raise
        yield uri
    finally:
        tree = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in psutil.wait_procs(tree, timeout=10)[1]:
            child.kill()


@pytest.fixture
def tracker(mlflow_uri):
    return Tracker(mlflow_uri)


@pytest.fixture
def mlflow_client(tracker):
    """MLflow's own client, to look at what our code left behind."""
    with tracker._edge.call("look") as client:
        return client
