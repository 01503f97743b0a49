import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bentley.domain.errors import ConfigurationError, FatalError, RetriableError
from bentley.tracking.runs import Tracker


class Answers(BaseHTTPRequestHandler):
    """Gives every request the server's one answer and keeps what it asked for."""

    def answer(self):
        status, kind, body, delay = self.server.given
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        time.sleep(delay)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Retry-After", "3600")
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_args):
        pass


@pytest.fixture
def stand_in():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()

    def give(status, body=b"{}", kind="application/json", delay=0.0):
        server.given = (status, kind, body, delay)
        return f"127.0.0.1:{server.server_port}"

    give.asked = server.asked
    yield give
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_an_overloaded_server_is_retriable_at_once_whatever_wait_it_asks(stand_in, status):
    begun = time.monotonic()
    with pytest.raises(RetriableError, match=r"could not list its experiments.*run this again"):
        Tracker(f"http://{stand_in(status)}").reachable()
    assert time.monotonic() - begun < 10


def test_a_silent_server_is_retriable_after_the_time_limit(stand_in):
    begun = time.monotonic()
    with pytest.raises(RetriableError, match="timed out"):
        Tracker(f"http://{stand_in(200, delay=2.5)}", timeout_s=1).reachable()
    assert time.monotonic() - begun < 6


def test_a_closed_port_is_retriable_at_once():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(RetriableError, match=f"http://127.0.0.1:{port}.*MLFLOW_TRACKING_URI"):
        Tracker(f"http://127.0.0.1:{port}").reachable()
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_account_is_a_matter_of_configuration(stand_in, status):
    with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_PASSWORD"):
        Tracker(f"http://{stand_in(status, b'no', 'text/plain')}").reachable()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b"<html>router</html>", "text/html"),
        (200, b"[]", "application/json"),
        (422, b'{"detail": "not here"}', "application/json"),
    ],
)
def test_what_is_no_mlflow_server_is_named_so(stand_in, status, body, kind):
    with pytest.raises(ConfigurationError, match="no MLflow server"):
        Tracker(f"http://{stand_in(status, body, kind)}").reachable()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "bad"}'),
        (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}'),
        (413, b"too large"),
    ],
)
def test_a_refused_request_is_fatal(stand_in, status, body):
    with pytest.raises(FatalError, match="correct it first"):
        Tracker(f"http://{stand_in(status, body)}").reachable()


@pytest.mark.parametrize(
    "address", ["", "mlflow", "sqlite:///x.db", "ftp://u:hush@h/", "http://", "http://h:x/"]
)
def test_what_is_no_web_address_is_refused_without_its_password(address):
    with pytest.raises(ConfigurationError, match="MLFLOW_TRACKING_URI") as refused:
        Tracker(address)
    assert "hush" not in str(refused.value)


def test_the_account_is_sent_and_never_shown(stand_in):
    tracker = Tracker(f"http://winston:hu%40sh@{stand_in(503)}/")
    with pytest.raises(RetriableError) as refused:
        tracker.reachable()
    assert stand_in.asked[0][1] == "Basic d2luc3RvbjpodUBzaA=="
    shown = f"{refused.value} {refused.value.__cause__} {tracker.run_url('1', 'r')} {tracker.uri}"
    assert "hu@sh" not in shown
    assert "hu%40sh" not in shown
    assert "winston" not in shown


def test_a_password_that_the_server_repeats_is_masked(stand_in):
    body = b'{"error_code": "BAD_REQUEST", "message": "no access for winston:hush"}'
    with pytest.raises(FatalError, match=r"winston:\*\*\*"):
        Tracker(f"http://winston:hush@{stand_in(400, body)}").reachable()


def test_a_proxy_is_not_asked_for_this_machine(stand_in, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    Tracker(f"http://{stand_in(200)}").reachable()
    assert "NO_PROXY" not in os.environ


def test_mlflow_is_loaded_late_and_its_telemetry_never_starts():
    script = (
        "import os, sys\n"
        "from bentley.tracking.runs import Tracker\n"
        "tracker = Tracker('http://127.0.0.1:9')\n"
        "assert 'mlflow' not in sys.modules\n"
        "try:\n    tracker.reachable()\nexcept Exception as error:\n    print(type(error).__name__)\n"
        "from mlflow.telemetry import get_telemetry_client\n"
        "assert get_telemetry_client() is None\n"
        "assert 'MLFLOW_DISABLE_TELEMETRY' not in os.environ\n"
    )
    quiet = (
        "CI",
        "PYTEST_CURRENT_TEST",
        "GITHUB_ACTIONS",
        "MLFLOW_DISABLE_TELEMETRY",
        "DO_NOT_TRACK",
    )
    environment = {k: v for k, v in os.environ.items() if k not in quiet}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("RetriableError\n", "")
