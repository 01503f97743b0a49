"""The client against a server that answers as told; the real Airflow is in tests/e2e."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from bentley.domain.errors import FatalError, RetriableError
from bentley.services.airflow_api import AirflowClient

DAG = {"dag_id": "probe", "is_paused": True, "last_parsed_time": "2026-01-02T00:00:00Z"}
RUN = {
    "dag_id": "probe",
    "dag_run_id": "one",
    "state": "queued",
    "run_type": "manual",
    "run_after": "2026-01-01T00:00:00Z",
    "logical_date": None,
}


class Stub:
    """Answers by (method, path); a list is used up one by one, the last stays."""

    def __init__(self):
        self.answers = {}
        self.calls = []
        self.tokens = 0

    def answer(self, method, path, *answers):
        self.answers[method, path] = list(answers)

    def handle(self, method, path, query, headers, body):
        if path == "/auth/token":
            self.tokens += 1
            return (
                (201, {"access_token": f"token-{self.tokens}"})
                if body["password"] == "admin"
                else (401, {"detail": "Invalid credentials"})
            )
        self.calls.append((method, path, query, headers.get("Authorization"), body))
        waiting = self.answers.get((method, path), [(404, {"detail": f"no {path}"})])
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]


@pytest.fixture
def stub():
    return Stub()


@pytest.fixture
def client(stub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self):
            parts = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            answer = stub.handle(
                self.command, parts.path, query, self.headers, json.loads(raw) if raw else None
            )
            code, body, *more = answer
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(code)
            for name, value in (more[0] if more else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = reply  # noqa: N815  the base class's names

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with AirflowClient(f"http://127.0.0.1:{server.server_address[1]}/") as client:
        yield client
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_token_serves_many_calls(client, stub):
    stub.answer("GET", "/api/v2/dags/probe", (200, DAG))
    client.dag("probe")
    assert client.dag("probe").is_paused
    assert stub.tokens == 1
    assert {call[3] for call in stub.calls} == {"Bearer token-1"}


@pytest.mark.parametrize(
    "refusal", [(401, {"detail": "Token Expired"}), (403, {"detail": "Invalid JWT token"})]
)
def test_a_token_refused_is_fetched_anew_once(client, stub, refusal):
    stub.answer("GET", "/api/v2/dags/probe", refusal, (200, DAG))
    assert client.dag("probe").dag_id == "probe"
    assert stub.tokens == 2
    stub.answer("GET", "/api/v2/dags/probe", refusal)
    with pytest.raises(FatalError, match=str(refusal[0])):
        client.dag("probe")
    assert stub.tokens == 3


def test_a_right_that_is_missing_is_no_reason_for_a_new_token(client, stub):
    stub.answer("GET", "/api/v2/dags/probe", (403, {"detail": "Forbidden"}))
    with pytest.raises(FatalError, match="403: Forbidden"):
        client.dag("probe")
    assert stub.tokens == 1


def test_a_wrong_password_is_fatal_and_not_repeated_in_the_message(client):
    client._login["password"] = "hunter2"
    with pytest.raises(FatalError, match="POST /auth/token gave 401: Invalid credentials") as error:
        client.dags()
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("code", [400, 404, 409, 422])
def test_refusals_are_fatal_with_status_and_detail(client, stub, code):
    stub.answer("POST", "/api/v2/dags/probe/dagRuns", (code, {"detail": "because"}))
    with pytest.raises(FatalError, match=f"{code}: because"):
        client.trigger("probe")


def test_a_start_that_has_arrived_is_not_refused(client, stub):
    """Its answer was lost, and it was sent again."""
    conflict = (409, {"detail": "this run is there"})
    stub.answer("POST", "/api/v2/dags/probe/dagRuns", (503, "oops"), conflict)
    stub.answer("GET", "/api/v2/dags/probe/dagRuns/mine", (200, RUN | {"dag_run_id": "mine"}))
    with pytest.raises(RetriableError):
        client.start("probe", run_id="mine")
    assert client.start("probe", run_id="mine").run_id == "mine"
    stub.answer("GET", "/api/v2/dags/probe/dagRuns/mine", (404, {"detail": "none"}))
    with pytest.raises(FatalError, match="409: this run is there"):
        client.start("probe", run_id="mine")


def test_a_validation_error_is_told_in_words(client, stub):
    fault = {"loc": ["body", "logical_date"], "msg": "Field required", "input": "secret"}
    stub.answer("POST", "/api/v2/dags/probe/dagRuns", (422, {"detail": [fault]}))
    with pytest.raises(FatalError, match=r"422: body\.logical_date: Field required$"):
        client.trigger("probe")


@pytest.mark.parametrize(
    ("code", "headers", "after"), [(500, {}, None), (503, {}, None), (429, {"Retry-After": "7"}, 7)]
)
def test_a_broken_or_busy_airflow_is_retriable(client, stub, code, headers, after):
    stub.answer("GET", "/api/v2/dags/probe", (code, "oops", headers))
    with pytest.raises(RetriableError, match=f"{code}: oops") as error:
        client.dag("probe")
    assert error.value.retry_after == after


def test_an_airflow_out_of_reach_is_retriable():
    with (
        AirflowClient("http://127.0.0.1:1") as client,
        pytest.raises(RetriableError, match="out of reach"),
    ):
        client.dags()


def test_another_server_on_the_port_is_told(client, stub):
    stub.answer("GET", "/api/v2/dags/probe", (200, "<html>"))
    with pytest.raises(FatalError, match="another server"):
        client.dag("probe")


def test_a_trigger_sends_what_airflow_wants(client, stub):
    stub.answer("POST", "/api/v2/dags/probe/dagRuns", (200, RUN))
    run = client.trigger("probe", {"a": 1}, run_id="one", note="x" * 2000)
    body = stub.calls[-1][4]
    assert body["logical_date"] is None
    assert (body["conf"], body["dag_run_id"]) == ({"a": 1}, "one")
    assert len(body["note"]) == 1000
    assert not run.finished
    assert run.run_after == datetime(2026, 1, 1, tzinfo=UTC)


def test_names_in_paths_are_quoted(client, stub):
    stub.answer(
        "GET", "/api/v2/dags/probe/dagRuns/manual__2026-01-01T00%3A00%3A00%2B00%3A00", (200, RUN)
    )
    client.run("probe", "manual__2026-01-01T00:00:00+00:00")


def test_pages_are_read_to_the_end(client, stub):
    pages = [[{**DAG, "dag_id": f"d{n}"} for n in range(*span)] for span in ((100,), (100, 130))]
    stub.answer("GET", "/api/v2/dags", *((200, {"dags": page}) for page in pages))
    assert [dag.dag_id for dag in client.dags()] == [f"d{n}" for n in range(130)]
    assert [call[2]["offset"] for call in stub.calls] == ["0", "100"]


def test_logs_are_lines(client, stub):
    content = [
        {"timestamp": "2026-01-01T00:00:00Z", "level": "info", "event": "hello"},
        {"event": "boom", "error_detail": [{"exc_type": "ValueError"}]},
        "plain",
    ]
    path = "/api/v2/dags/probe/dagRuns/one/taskInstances/echo/logs/2"
    stub.answer("GET", path, (200, {"content": content, "continuation_token": None}))
    assert client.logs("probe", "one", "echo", try_number=2).splitlines() == [
        "2026-01-01T00:00:00Z info hello",
        'boom [{"exc_type": "ValueError"}]',
        "plain",
    ]


def test_waiting_for_dags_ends_when_all_are_parsed_after_the_moment_given(client, stub):
    stale, old = {**DAG, "is_stale": True}, {**DAG, "last_parsed_time": "2026-01-01T00:00:00Z"}
    stub.answer("GET", "/api/v2/dags", *((200, {"dags": [dag]}) for dag in (stale, old, DAG)))
    stub.answer("GET", "/api/v2/importErrors", (200, {"import_errors": []}))
    since = datetime(2026, 1, 1, 12, tzinfo=UTC)
    found = client.wait_for_dag(["probe"], since=since, timeout=10)
    assert list(found) == ["probe"]
    assert sum(path == "/api/v2/dags" for _, path, *_ in stub.calls) == 3


def test_a_file_that_fails_to_import_ends_the_wait_at_once_but_not_one_from_before(client, stub):
    stub.answer("GET", "/api/v2/dags", (200, {"dags": []}))
    old = {"filename": "a.py", "timestamp": "2020-01-01T00:00:00Z", "stack_trace": "Old"}
    new = {**old, "timestamp": "2999-01-01T00:00:00Z", "stack_trace": "NameError: x"}
    stub.answer(
        "GET",
        "/api/v2/importErrors",
        (200, {"import_errors": [old]}),
        (200, {"import_errors": [new]}),
    )
    with pytest.raises(FatalError, match=r"a\.py can't be imported:\nNameError: x"):
        client.wait_for_dag(["probe"], timeout=60)


def test_a_wait_in_vain_names_the_missing_and_stops_for_the_dead(client, stub):
    stub.answer("GET", "/api/v2/dags", (200, {"dags": [DAG]}))
    stub.answer("GET", "/api/v2/importErrors", (200, {"import_errors": []}))
    with pytest.raises(RetriableError, match=r"not parsed within 0 s: missing$"):
        client.wait_for_dag(["probe", "missing"], timeout=0.1)

    def dead():
        msg = "airflow-dag-processor died"
        raise FatalError(msg)

    with pytest.raises(FatalError, match="died"):
        client.wait_for_dag(["missing"], alive=dead)
