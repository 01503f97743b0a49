from __future__ import annotations

import configparser
import json
import os
import stat
import sys
import threading
from base64 import urlsafe_b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bentley.domain.errors import FatalError, RetriableError
from bentley.services import airflow


@pytest.fixture
def place(tmp_path):
    return {"home": tmp_path / "home", "root": tmp_path / "root", "port": 18080}


def secrets_of(place) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(place["home"] / "airflow" / "airflow.cfg")
    return parser


def test_everything_lies_in_the_home_and_listens_on_loopback(place):
    env = airflow.environment(**place)
    folder = place["home"] / "airflow"
    assert env["AIRFLOW_HOME"] == str(folder)
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith(f"sqlite:///{folder}/airflow.db")
    assert env["AIRFLOW__CORE__DAGS_FOLDER"] == str(place["root"] / "dags")
    assert env["AIRFLOW__CORE__PLUGINS_FOLDER"] == str(place["root"] / "plugins")
    assert env["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert env["AIRFLOW__API__PORT"] == "18080"
    assert env["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:18080/execution/"
    assert env["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"


def test_admin_admin_is_written_for_this_user_alone(place):
    env = airflow.environment(**place)
    passwords = place["home"] / "airflow" / "passwords.json"
    assert env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"] == str(passwords)
    assert json.loads(passwords.read_text()) == {"admin": "admin"}
    assert stat.S_IMODE(passwords.stat().st_mode) == 0o600


def test_keys_are_made_once_are_long_enough_and_stay_out_of_the_environment(place):
    env = airflow.environment(**place)
    keys = secrets_of(place)
    assert len(keys["api_auth"]["jwt_secret"].encode()) >= 64
    assert len(urlsafe_b64decode(keys["core"]["fernet_key"])) == 32
    assert len(keys["api"]["secret_key"]) >= 32
    values = {value for section in keys.sections() for value in keys[section].values()}
    assert not values & set(env.values())
    assert stat.S_IMODE((place["home"] / "airflow" / "airflow.cfg").stat().st_mode) == 0o600
    airflow.environment(**place)
    assert secrets_of(place) == keys


def test_two_homes_share_no_key_and_no_path(place, tmp_path):
    one = airflow.environment(**place)
    two = airflow.environment(**{**place, "home": tmp_path / "other", "port": 18081})
    same = {name for name in one if one[name] == two[name]}
    assert not {name for name in same if str(tmp_path / "home") in one[name]}
    assert secrets_of(place) != secrets_of({"home": tmp_path / "other"})


def test_another_airflow_of_the_caller_does_not_leak_in(place, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "theirs")
    monkeypatch.setenv("AIRFLOW_CONFIG", "/theirs/airflow.cfg")
    monkeypatch.setenv("AIRFLOW_CONN_BROKER", "kept")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    env = airflow.environment(**place, extra={"AIRFLOW__CORE__PARALLELISM": "2"})
    gone = {
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW_CONFIG",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONWARNINGS",
    }
    assert not gone & env.keys()
    assert env["AIRFLOW_CONN_BROKER"] == "kept"
    assert env["AIRFLOW__CORE__PARALLELISM"] == "2"
    assert env["PATH"] == os.environ["PATH"]


def test_loopback_goes_through_no_proxy(place, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "internal.example")
    env = airflow.environment(**place)
    assert env["NO_PROXY"] == env["no_proxy"] == "internal.example,127.0.0.1,localhost"


def test_components_run_on_this_python_and_serve_no_logs():
    components = dict(airflow.components())
    assert len(components) == 4
    assert all(argv[:3] == [sys.executable, "-m", "airflow"] for argv in components.values())
    for name in ("airflow-scheduler", "airflow-triggerer"):
        assert "--skip-serve-logs" in components[name]


@pytest.fixture
def health():
    """A server whose answers a test sets, (status code, body): its port, of Airflow, of its tasks."""
    answers, tasks = [(503, {})], [(200, {})]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            waiting = tasks if self.path == "/execution/health" else answers
            code, body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            content = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1], answers, tasks
    server.shutdown()
    thread.join()
    server.server_close()


HEALTHY = {part: {"status": "healthy"} for part in airflow.HEALTHY_PARTS}


def test_waiting_ends_when_all_are_healthy_and_tells_what_changes(health):
    port, answers, _ = health
    part = {**HEALTHY, "triggerer": {"status": None}}
    answers[:] = [(503, {}), (200, part), (200, part), (200, HEALTHY)]
    seen = []
    status = airflow.wait_healthy(port, alive=lambda: None, timeout=10, progress=seen.append)
    assert status == dict.fromkeys(airflow.HEALTHY_PARTS, "healthy")
    assert [one["triggerer"] for one in seen] == ["None", "healthy"]


def test_healthy_means_that_tasks_can_start_too(health):
    port, answers, tasks = health
    answers[:] = [(200, HEALTHY)]
    tasks[:] = [(500, {}), (503, {}), (200, {})]
    airflow.wait_healthy(port, alive=lambda: None, timeout=10)
    assert tasks == [(200, {})]


def test_the_heartbeat_of_a_run_before_does_not_count(health):
    port, answers, _ = health
    old = {"status": "healthy", "latest_scheduler_heartbeat": "2020-01-01T00:00:00+00:00"}
    new = {"status": "healthy", "latest_scheduler_heartbeat": "2999-01-01T00:00:00Z"}
    answers[:] = [(200, {**HEALTHY, "scheduler": old}), (200, {**HEALTHY, "scheduler": new})]
    seen = []
    airflow.wait_healthy(port, alive=lambda: None, timeout=10, progress=seen.append)
    assert [one["scheduler"] for one in seen] == ["stale", "healthy"]


def test_a_death_is_reported_at_once(health):
    port, _, _ = health

    def alive():
        msg = "airflow-scheduler died"
        raise FatalError(msg)

    with pytest.raises(FatalError, match="airflow-scheduler died"):
        airflow.wait_healthy(port, alive=alive, timeout=60)


def test_the_time_limit_names_what_is_not_healthy(health):
    port, answers, _ = health
    answers[:] = [(200, {**HEALTHY, "scheduler": {"status": "unhealthy"}})]
    with pytest.raises(RetriableError, match="scheduler is unhealthy"):
        airflow.wait_healthy(port, alive=lambda: None, timeout=0.3)
    answers[:] = [(500, {})]
    with pytest.raises(RetriableError, match="gave no answer within"):
        airflow.wait_healthy(port, alive=lambda: None, timeout=0.3)
