"""A sync by an Airbyte server: a stand-in built from its contract, on each database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import stamina
import structlog

from bentley.airbyte.server import Job
from bentley.domain.errors import BentleyError, ConfigurationError, FatalError, RetriableError
from bentley.stages import airbyte_job, ingest
from bentley.warehouse.ledger import INGEST
from bentley.warehouse.schema import binance_ohlcv
from contract.airbyte.airbyte_server import CLIENT, CONNECTION, SECRET, AirbyteStandIn
from contract.airbyte.landed import Destination
from unit.stages.chain_support import batches, rows_of

HOUR = 3_600_000
HOURS = 48
FOR_EVER = ["running"]


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    for name, seconds in (
        ("LOOK_SECONDS", 0.01),
        ("_REFUSED_SECONDS", 0.01),
        ("_CANCEL_SECONDS", 2.0),
    ):
        monkeypatch.setattr(airbyte_job, name, seconds)
    with stamina.set_testing(True, attempts=10, cap=True):
        yield


@pytest.fixture
def airbyte(exchange):
    with AirbyteStandIn() as server:
        server.now = exchange.now / 1000
        yield server


@pytest.fixture
def given(configured, exchange, airbyte):
    """Settings of a server whose destination writes to the warehouse."""

    def make(**more):
        server = {
            "airbyte_connection_id": CONNECTION,
            "airbyte_api_url": airbyte.url,
            "airbyte_client_id": CLIENT,
            "airbyte_client_secret": SECRET,
            "since": exchange.now - HOURS * HOUR,
        }
        return configured(**(server | more))

    airbyte.on_success = Destination(make(), exchange).fill
    return make


def last_batch(warehouse):
    return batches(warehouse, INGEST)[-1]


def test_a_job_is_followed_through_every_state_and_folded_in(given, airbyte, warehouse):
    airbyte.script = ["queued", "running", "incomplete", "running", "succeeded"]
    shown = []
    report = ingest.sync(given(), pipeline_runs=["run-1"], dag_run="d/r", progress=shown.append)
    assert (report.rows_written, report.rows_news) == (HOURS, HOURS - 1)  # the last one is forming
    batch = last_batch(warehouse)
    assert (batch.status, batch.engine, batch.pipeline_runs, batch.dag_run) == (
        "committed", "airbyte-server", ("run-1",), "d/r",
    )  # fmt: skip
    assert batch.details["job"] in airbyte.jobs
    assert shown
    assert airbyte.calls("DELETE") == 0


def test_what_a_server_brings_is_what_the_connector_brings(given, configured):
    assert ingest.sync(given()).rows_written == HOURS
    embedded = configured(since=given().since)
    again = ingest.sync(embedded)
    assert (again.rows_read, again.rows_written) == (HOURS, 0)


@pytest.mark.parametrize(
    ("status", "more"),
    [
        (401, {}),
        (403, {}),
        (404, {}),
        (408, {}),
        (429, {"headers": {"Retry-After": "0"}}),
        (429, {}),
        (500, {}),
        (503, {}),
        (200, {"body": "<html>"}),
        (0, {}),
    ],
)
def test_a_wait_outlasts_what_passes(given, airbyte, status, more):
    airbyte.script = ["running", "running", "succeeded"]
    for _ in range(8 if status in {401, 403} else 4):  # a refused token is renewed once
        airbyte.fault("GET", "/jobs/", status, **more)
    assert ingest.sync(given()).rows_written == HOURS
    assert airbyte.faults == []
    assert len(airbyte.jobs) == 1
    assert airbyte.calls("DELETE") == 0


def test_a_token_that_expires_during_the_wait_is_renewed(given, airbyte, monkeypatch):
    airbyte.script = ["running"] * 3 + ["succeeded"]
    look = airbyte_job.Watch.look

    def later(self):
        airbyte.expire_tokens()
        return look(self)

    monkeypatch.setattr(airbyte_job.Watch, "look", later)
    assert ingest.sync(given()).rows_written == HOURS
    assert airbyte.calls("POST", "/applications/token") >= 4


def test_a_refusal_of_the_last_look_does_not_end_a_job_that_is_well(given, airbyte):
    airbyte.script = ["running"] * 7 + ["succeeded"]
    for _ in range(airbyte_job._REFUSALS + 1):
        airbyte.fault("GET", "/jobs/", 404)
    assert ingest.sync(given()).rows_written == HOURS
    assert airbyte.calls("DELETE") == 0


def test_a_token_that_is_refused_for_a_while_does_not_end_a_job(given, airbyte):
    airbyte.script = ["running"] * 3 + ["succeeded"]
    job = airbyte_job.start(given())
    for _ in range(4):
        airbyte.fault("POST", "/applications/token", 401)
    with airbyte_job.AirbyteServer.of(given()) as server:
        watch = airbyte_job.Watch(server, job.id, every=0.01)
        assert [watch.look() for _ in range(8)] == [0.01] * 7 + [None]


def test_a_job_that_is_gone_is_told(given):
    with pytest.raises(ConfigurationError, match="answered 404"):
        airbyte_job.finish(given(), Job(7, "running"), late=False)


def test_a_job_that_failed_is_tried_again_and_in_the_ledger(given, airbyte, warehouse):
    airbyte.script = ["running", "failed"]
    with pytest.raises(RetriableError, match=r"job \d+ failed: its log is on"):
        ingest.sync(given(), pipeline_runs=["run-1"])
    batch = last_batch(warehouse)
    assert (batch.status, batch.pipeline_runs) == ("failed", ("run-1",))
    assert "failed: its log is on" in batch.error
    assert rows_of(warehouse, binance_ohlcv) == []


def test_a_job_that_is_cancelled_in_airbyte_is_not_started_again(given, airbyte, warehouse):
    airbyte.script = ["running", "cancelled"]
    with pytest.raises(FatalError, match="was cancelled in Airbyte"):
        ingest.sync(given())
    assert last_batch(warehouse).status == "failed"


def test_a_state_that_nobody_knows_is_named_and_the_job_cancelled(given, airbyte, warehouse):
    airbyte.script = ["running", "hibernating"]
    with pytest.raises(FatalError, match="in the state 'hibernating'; known are cancelled, failed"):
        ingest.sync(given())
    assert [job["status"] for job in airbyte.jobs.values()] == ["cancelled"]
    assert "hibernating" in last_batch(warehouse).error


def test_a_job_that_is_too_late_is_cancelled(given, airbyte):
    airbyte.script = FOR_EVER
    with pytest.raises(RetriableError, match=r"within 0\.005 minutes and was cancelled"):
        ingest.sync(given(stage_timeout_minutes=0.005))
    assert [job["status"] for job in airbyte.jobs.values()] == ["cancelled"]


@pytest.mark.parametrize("statuses", [[429], [503] * 4, [0] * 3])
def test_a_job_is_cancelled_though_the_server_is_busy(given, airbyte, statuses):
    airbyte.script = FOR_EVER
    for status in statuses:
        airbyte.fault("DELETE", "/jobs/", status)
    with pytest.raises(RetriableError, match="was cancelled"):
        ingest.sync(given(stage_timeout_minutes=0.005))
    assert [job["status"] for job in airbyte.jobs.values()] == ["cancelled"]


def test_a_job_that_could_not_be_cancelled_is_the_next_starts_own(given, airbyte):
    airbyte.script = FOR_EVER
    for _ in range(1000):
        airbyte.fault("DELETE", "/jobs/", 503)
    with pytest.raises(RetriableError, match="could not be cancelled"):
        ingest.sync(given(stage_timeout_minutes=0.005))
    assert [job["status"] for job in airbyte.jobs.values()] == ["running"]
    airbyte.faults.clear()
    with pytest.raises(RetriableError, match="was cancelled"):
        ingest.sync(given(stage_timeout_minutes=0.005))
    assert [job["status"] for job in airbyte.jobs.values()] == ["cancelled"]


def test_a_job_that_is_late_where_nothing_is_told_of_it_is_cancelled(given, airbyte):
    airbyte.script = FOR_EVER
    job = airbyte_job.start(given())
    for _ in range(20):
        airbyte.fault("GET", "/jobs/", 503)
    with pytest.raises(RetriableError, match="answered 503"):
        airbyte_job.finish(given(), job, late=True)
    assert [job["status"] for job in airbyte.jobs.values()] == ["cancelled"]


@pytest.mark.parametrize("status", [504, 0])
def test_a_job_whose_start_was_not_answered_is_ours(given, airbyte, status):
    airbyte.script = FOR_EVER
    airbyte.fault("POST", "/jobs", status, done=True)
    assert airbyte_job.start(given()).own
    assert len(airbyte.jobs) == 1


def test_a_job_whose_start_was_killed_is_the_next_starts_own(given, airbyte, monkeypatch):
    def killed(*_):
        airbyte.add_job()
        raise KeyboardInterrupt

    airbyte.script = FOR_EVER
    with monkeypatch.context() as patch:
        patch.setattr(airbyte_job, "_start", killed)
        with pytest.raises(KeyboardInterrupt):
            airbyte_job.start(given())
    assert airbyte_job.start(given()).own
    for job in airbyte.jobs.values():
        job["status"] = "cancelled"
    airbyte.add_job()  # of somebody else, and nothing is open any more
    assert not airbyte_job.start(given()).own


@pytest.mark.parametrize("status", [429, 404, 409])
def test_a_start_that_was_refused_makes_no_later_job_ours(given, airbyte, status):
    airbyte.fault("POST", "/jobs", status)
    with pytest.raises(BentleyError):
        airbyte_job.start(given())
    airbyte.script = FOR_EVER
    airbyte.add_job()
    assert not airbyte_job.start(given()).own


def test_a_job_that_we_have_cancelled_is_started_again(given, airbyte):
    airbyte.script = FOR_EVER
    job = airbyte_job.start(given())
    assert airbyte_job.cancel(given(), job)
    with pytest.raises(RetriableError, match="was cancelled by Bentley"):
        airbyte_job.finish(given(), job, late=False)


def test_a_start_that_is_answered_with_an_unknown_state_is_cancelled(given, airbyte):
    airbyte.script = ["hibernating"]
    said = {"jobId": 100, "status": "hibernating"}
    airbyte.fault("POST", "/jobs", 200, body=said, done=True)
    with pytest.raises(FatalError, match="in the state 'hibernating'"):
        ingest.sync(given())
    assert [job["status"] for job in airbyte.jobs.values()] == ["cancelled"]


def test_a_wish_of_the_server_does_not_outlast_the_time_limit(given, airbyte):
    airbyte.script = FOR_EVER
    airbyte.fault("GET", "/jobs/", 429, headers={"Retry-After": "3600"})
    with pytest.raises(RetriableError, match="was cancelled"):
        ingest.sync(given(stage_timeout_minutes=0.005))


def test_an_interrupted_wait_cancels_the_job(given, airbyte, warehouse, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    airbyte.script = FOR_EVER
    monkeypatch.setattr(airbyte_job.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ingest.sync(given())
    assert [job["status"] for job in airbyte.jobs.values()] == ["cancelled"]
    assert last_batch(warehouse).status == "failed"


@pytest.mark.parametrize(
    ("signum", "code", "seen"),
    [
        (signal.SIGINT, 130, ("GET", "/jobs/")),
        (signal.SIGTERM, 143, ("GET", "/jobs/")),
        (signal.SIGTERM, 143, ("POST", "/jobs")),  # it is not answered yet
    ],
)
def test_a_command_that_is_ended_cancels_its_job(given, airbyte, tmp_path, signum, code, seen):
    airbyte.script = FOR_EVER
    airbyte.fault("POST", "/jobs", None, seconds=1.0)
    command = subprocess.Popen(
        [sys.executable, "-c", "from bentley.cli import main; main()", "sync"],
        env={**os.environ, **given().environment()},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    )
    with command:
        deadline = time.monotonic() + 60
        while not airbyte.calls(*seen):
            assert command.poll() is None, command.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        command.send_signal(signum)
        assert command.wait(timeout=30) == code
    assert [job["status"] for job in airbyte.jobs.values()] == ["cancelled"]


def test_a_job_that_is_running_already_is_followed_and_folded_in(given, airbyte, warehouse):
    airbyte.script = ["running", "succeeded"]
    other = airbyte.add_job()
    assert ingest.sync(given()).rows_written == HOURS
    assert last_batch(warehouse).details["job"] == other
    assert list(airbyte.jobs) == [other]


def test_a_job_of_somebody_else_is_never_cancelled(given, airbyte):
    airbyte.script = FOR_EVER
    other = airbyte.add_job()
    with pytest.raises(RetriableError, match="goes on: it is not ours"):
        ingest.sync(given(stage_timeout_minutes=0.005))
    airbyte.jobs[other]["_left"] = ["hibernating"]
    with pytest.raises(FatalError, match="hibernating"):
        airbyte_job.finish(given(), Job(other, "running", own=False))
    assert airbyte.calls("DELETE") == 0


def test_a_job_of_somebody_else_that_is_cancelled_makes_room_for_ours(given, airbyte):
    airbyte.script = ["running", "cancelled"]
    airbyte.add_job()
    with pytest.raises(RetriableError, match="was cancelled in Airbyte") as caught:
        ingest.sync(given())
    assert caught.value.retry_after == 1  # at once: it may have been that of a cleared task
    airbyte.script = ["succeeded"]
    assert ingest.sync(given()).rows_written == HOURS


def test_an_airbyte_whose_clock_is_ahead_is_refused(given, airbyte, exchange, warehouse):
    airbyte.now = exchange.now / 1000 + 60
    with pytest.raises(ConfigurationError, match=r"clock is (59|60) s ahead"):
        ingest.sync(given())
    assert rows_of(warehouse, binance_ohlcv) == []


def test_a_server_that_is_away_at_the_start_is_in_the_ledger(given, airbyte, warehouse):
    for _ in range(10):
        airbyte.fault("POST", "/applications/token", 503)
    with pytest.raises(RetriableError, match="answered 503"):
        ingest.sync(given(), pipeline_runs=["run-1"])
    assert (last_batch(warehouse).status, last_batch(warehouse).pipeline_runs) == (
        "failed", ("run-1",),
    )  # fmt: skip


def test_a_replay_is_read_by_the_connector_whatever_is_configured(given, airbyte):
    report = ingest.sync(given(origin="replay:x", warehouse_url=None))
    assert report.engine == ingest.ENGINE
    assert report.rows_written == HOURS
    assert airbyte.seen == []


@pytest.mark.parametrize("script", [["running", "failed"], ["running", "hibernating"]])
def test_no_secret_is_in_an_error_the_ledger_or_a_log(given, airbyte, warehouse, script):
    airbyte.script = script
    with structlog.testing.capture_logs() as told, pytest.raises(BentleyError) as caught:
        ingest.sync(given())
    said = f"{caught.value} {caught.value.__cause__} {last_batch(warehouse)} {told}"
    assert "job" in said
    assert SECRET not in said
    assert not any(token in said for token in airbyte.tokens)
