import time

import pytest

from bentley.domain.errors import FatalError, RetriableError
from bentley.tracking.server import server_command, server_env, wait_ready

CLOSED = "http://127.0.0.1:9"


def test_no_password_stands_among_the_arguments():
    command = server_command(host="127.0.0.1", port=5000, artifacts_dir="/data/artifacts")
    assert "--backend-store-uri" not in command
    environment = server_env(backend_uri="mysql+pymysql://u:hush@127.0.0.1:3307/mlflow")
    assert environment["MLFLOW_BACKEND_STORE_URI"] == "mysql+pymysql://u:hush@127.0.0.1:3307/mlflow"


def test_the_fast_settings_are_chosen():
    command = server_command(host="127.0.0.1", port=5001, artifacts_dir="/data/artifacts")
    assert command[command.index("--workers") + 1] == "1"
    assert command[command.index("--port") + 1] == "5001"
    environment = server_env(backend_uri="sqlite:///x.db")
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_server_that_ended_is_not_waited_for():
    begun = time.monotonic()
    with pytest.raises(FatalError, match="ended while it started"):
        wait_ready(CLOSED, timeout_s=30, alive=lambda: False)
    assert time.monotonic() - begun < 5


def test_a_server_that_never_answers_is_given_up():
    with pytest.raises(RetriableError, match=r"within 0\.3 s"):
        wait_ready(CLOSED, timeout_s=0.3, alive=lambda: True)
