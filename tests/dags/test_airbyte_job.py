"""The sync task by an Airbyte server: the operator executed, its trigger run by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bentley.services.exchange.generated import GeneratedMarket
from bentley.services.exchange.server import ExchangeServer
from bentley.warehouse.ledger import INGEST
from bentley.warehouse.warehouse import Warehouse
from contract.airbyte.airbyte_server import CLIENT, CONNECTION, SECRET, AirbyteStandIn
from contract.airbyte.landed import Destination
from unit.stages.chain_support import batches

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3_600_000
NOW = 1_700_002_800_000 + HOUR // 2
HOURS = 24
FOR_EVER = ["running"]


@pytest.fixture(scope="module")
def exchange():
    with ExchangeServer(GeneratedMarket(7, ["BTCUSDT"]), now=NOW) as server:
        yield server


@pytest.fixture
def airbyte(exchange):
    with AirbyteStandIn() as server:
        server.now = exchange.now / 1000
        yield server


@pytest.fixture
def given(settings, exchange, airbyte):
    found = settings(
        exchange_url=exchange.url,
        symbols="BTCUSDT",
        since=NOW - HOURS * HOUR,
        airflow_port=9,  # nobody sets a note here
        airbyte_connection_id=CONNECTION,
        airbyte_api_url=airbyte.url,
        airbyte_client_id=CLIENT,
        airbyte_client_secret=SECRET,
    )
    airbyte.on_success = Destination(found, exchange).fill
    return found


@pytest.fixture
def ask(given, tmp_path):
    """Run a case of the script; what it printed as JSON, and all that it logged."""

    def run(case, *more):
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        source = [str(ROOT / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])]
        airflow = {"PYTHONPATH": os.pathsep.join(source), "AIRFLOW_HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("airbyte_script.py")), case, *more],
            env=kept | airflow | given.environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert SECRET not in done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def states(airbyte):
    return [job["status"] for job in airbyte.jobs.values()]


def last_batch(given):
    with Warehouse.open(given) as warehouse:
        return batches(warehouse, INGEST)[-1]


def test_the_task_waits_in_the_triggerer_through_every_state(ask, airbyte, given):
    airbyte.script = ["queued", "pending", "running", "incomplete", "running", "succeeded"]
    for status in (500, 429, 0, 401):
        airbyte.fault("GET", "/jobs/", status)
    said = ask("whole")
    assert said["event"] == "over"
    assert said["report"]["rows_written"] == HOURS
    assert last_batch(given).pipeline_runs == ("p-1",)
    assert airbyte.faults == []
    assert not any(one in said["written"] for one in (SECRET, CLIENT, *airbyte.tokens))


@pytest.mark.parametrize(
    ("state", "error"),
    [("failed", "RetriableError"), ("cancelled", "FatalError"), ("hibernating", "FatalError")],
)
def test_a_job_without_success_fails_the_task_by_its_kind(ask, airbyte, given, state, error):
    airbyte.script = ["running", state]
    report = ask("whole")["report"]
    assert report["error"] == error
    assert state in report["message"]
    assert last_batch(given).status == "failed"


def test_a_job_that_is_late_is_cancelled_by_the_task(ask, airbyte):
    airbyte.script = FOR_EVER
    said = ask("late")
    assert (said["event"], said["report"]["error"]) == ("late", "RetriableError")
    assert states(airbyte) == ["cancelled"]


def test_a_cleared_task_cancels_its_job(ask, airbyte):
    airbyte.script = FOR_EVER
    ask("killed")
    assert airbyte.calls("GET", "/jobs/") > 1
    assert states(airbyte) == ["cancelled"]


def test_a_cleared_task_leaves_the_job_of_somebody_else(ask, airbyte):
    airbyte.script = FOR_EVER
    airbyte.add_job()
    ask("killed")
    assert airbyte.calls("GET", "/jobs/") > 1
    assert states(airbyte) == ["running"]


def test_a_task_that_is_ended_before_it_waits_cancels_its_job(ask, airbyte):
    airbyte.script = FOR_EVER
    ask("killed_on_the_worker")
    assert states(airbyte) == ["cancelled"]


def test_a_triggerer_that_starts_anew_follows_the_same_job(ask, airbyte):
    airbyte.script = ["running"] * 30 + ["succeeded"]
    said = ask("restarted")
    assert said["report"]["rows_written"] == HOURS
    assert (len(airbyte.jobs), airbyte.calls("DELETE")) == (1, 0)


def test_a_task_that_is_ended_while_it_asks_for_a_job_cancels_it(ask, airbyte):
    airbyte.script = FOR_EVER
    ask("killed_before_the_answer")
    assert states(airbyte) == ["cancelled"]


def test_a_task_that_is_woken_before_its_job_has_ended_waits_again(ask, airbyte):
    airbyte.script = ["running"] * 3 + ["succeeded"]
    said = ask("refused")
    assert said["same"]
    assert said["report"]["rows_written"] == HOURS
    assert airbyte.calls("DELETE") == 0


def test_a_server_that_is_slow_does_not_hold_the_event_loop(ask, airbyte):
    airbyte.script = ["running", "succeeded"]
    airbyte.fault("GET", "/jobs/", 500, seconds=2.0)
    assert ask("beating", str(airbyte.add_job())) < 0.8
    assert airbyte.faults == []
