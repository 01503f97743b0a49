"""What would stop a run later is named before anything is started."""

from __future__ import annotations

import http.server
import threading

import pytest

from bentley.domain.errors import ConfigurationError
from bentley.services import preflight
from support import free_port

NOBODY = "http://user:pw-7@127.0.0.1:1"


@pytest.fixture
def ports():
    return {"airflow_port": free_port(), "mlflow_port": free_port()}


def test_an_mlflow_server_that_does_not_answer(settings, ports):
    with pytest.raises(ConfigurationError) as error:
        preflight.check(settings(**ports, mlflow_tracking_uri=NOBODY))
    message = str(error.value)
    assert "127.0.0.1:1 does not answer" in message
    assert "MLFLOW_TRACKING_URI" in message
    assert "pw-7" not in message


def test_an_mlflow_server_that_answers_needs_no_port_here(settings, ports):
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            port = server.server_address[1]
            taken = {**ports, "mlflow_port": port}
            preflight.check(settings(**taken, mlflow_tracking_uri=f"http://127.0.0.1:{port}"))
            with pytest.raises(ConfigurationError, match=f"port {port} \\(MLflow\\)"):
                preflight.check(settings(**taken))
        finally:
            server.shutdown()


def test_the_database_of_our_own_mlflow(settings, ports):
    with pytest.raises(ConfigurationError) as error:
        preflight.check(
            settings(**ports, mlflow_database_url="mysql+pymysql://bentley:pw-7@127.0.0.1:1/mlflow")
        )
    message = str(error.value)
    assert "127.0.0.1" in message
    assert "BENTLEY_MLFLOW_DATABASE_URL" in message
    assert "pw-7" not in message
