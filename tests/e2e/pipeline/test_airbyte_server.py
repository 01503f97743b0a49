"""A real Airflow whose syncs an Airbyte server does: a stand-in built from the published contract."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from bentley import settings as bentley_settings
from bentley.services.airflow_api import AirflowClient
from bentley.services.exchange.generated import GeneratedMarket
from bentley.services.exchange.server import ExchangeServer
from bentley.services.run import Services, services
from bentley.settings import Settings
from bentley.warehouse import ledger
from bentley.warehouse.schema import binance_ohlcv
from bentley.warehouse.warehouse import Warehouse
from contract.airbyte.airbyte_server import CLIENT, CONNECTION, SECRET, AirbyteStandIn
from contract.airbyte.landed import Destination
from support import free_port

pytestmark = pytest.mark.timeout(600)

HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR
HOURS = 72
MASTER = "bentley_master_orchestration"
SYNC = "airbyte_sync_dag"
FOR_EVER = ["running"]


@dataclass
class Synced:
    """A pipeline that is up, and the server that does its syncs."""

    settings: Settings
    services: Services
    airflow: AirflowClient
    airbyte: AirbyteStandIn
    destination: Destination

    def until(self, true: Callable[[], Any], what: str, *, seconds: float = 120) -> Any:
        started = time.monotonic()
        while not (found := true()):
            self.services.group.check()
            assert time.monotonic() - started < seconds, f"{what}: not within {seconds:g} s"
            time.sleep(0.2)
        return found

    def start(self) -> str:
        """Start a sync whose job goes on for ever, and wait until the triggerer has it."""
        self.until(lambda: not self.running() and not self.running("queued"), "all else has ended")
        self.airbyte.script = FOR_EVER
        self.airflow.start(SYNC, run_id=f"test__{time.time_ns()}")
        return self.waiting()

    def running(self, state: str = "running") -> list[str]:
        return [run.run_id for run in self.airflow.runs(SYNC, state=state)]

    def waiting(self) -> str:
        """The one sync at work, once it waits: at a full hour that of the schedule may come first."""
        (run_id,) = self.until(self.running, "a sync is at work")
        self.waits(run_id)
        return run_id

    def waits(self, run_id: str) -> None:
        before = self.airbyte.calls("GET", "/jobs/")
        self.until(lambda: self.sync_state(run_id) == "deferred", "the task holds no worker")
        self.until(lambda: self.airbyte.calls("GET", "/jobs/") > before, "its job is looked at")
        assert self.sync_state(run_id) == "deferred"

    def sync_state(self, run_id: str) -> str | None:
        found = self.airflow.task_instances(SYNC, run_id)
        return next(one.state for one in found if one.task_id == "sync")

    def ended(self, dag_id: str, run_id: str) -> str | None:
        run = self.until(
            lambda: (found := self.airflow.run(dag_id, run_id)).finished and found,
            f"{dag_id} {run_id}",
            seconds=240,
        )
        return run.state

    @property
    def jobs(self) -> list[str]:
        return [job["status"] for job in self.airbyte.jobs.values()]


@pytest.fixture(scope="module")
def synced(tmp_path_factory, migrated) -> Iterator[Synced]:
    """The pipeline, up for all tests; at its end, nothing that it wrote may hold the secret."""
    home = migrated(tmp_path_factory.mktemp("synced"))
    market = GeneratedMarket(5, ["BTCUSDT"])
    with ExchangeServer(market, now=START + HOUR // 2) as exchange, AirbyteStandIn() as airbyte:
        airbyte.now = exchange.now / 1000
        settings = bentley_settings.load(
            home=home,
            exchange_url=exchange.url,
            symbols="BTCUSDT",
            since=START - HOURS * HOUR,
            airflow_port=free_port(),
            mlflow_port=free_port(),
            airbyte_connection_id=CONNECTION,
            airbyte_api_url=airbyte.url,
            airbyte_client_id=CLIENT,
            airbyte_client_secret=SECRET,
        )
        destination = Destination(settings, exchange)
        airbyte.on_success = destination.fill
        with services(settings, say=lambda _: None) as up, up.client() as airflow:
            yield Synced(settings, up, airflow, airbyte, destination)
    files = [file for file in home.rglob("*") if file.is_file()]
    # that the search sees what is there is seen by what may be read
    open_words = (b"airbyte-server", settings.airbyte_api_url.encode())
    seen = {file.suffix for file in files if any(word in file.read_bytes() for word in open_words)}
    assert seen >= {".db", ".log"}, seen
    leaks = [str(file) for file in files if SECRET.encode() in file.read_bytes()]
    assert not leaks, leaks


def test_a_pipeline_run_goes_through_the_server_to_its_end(synced):
    synced.airbyte.script = FOR_EVER
    run_id = synced.services.start_chain()
    synced.waiting()
    (job,) = synced.airbyte.jobs.values()
    synced.airbyte.script = ["succeeded"]
    for status in (500, 429, 0, 401):
        synced.airbyte.fault("GET", "/jobs/", status)
    job["_left"] = ["queued", "running", "incomplete", "succeeded"]
    assert synced.ended(MASTER, run_id) == "success"
    assert synced.airbyte.faults == []
    with Warehouse.open(synced.settings) as warehouse, warehouse.reading() as connection:
        sources = connection.execute(
            sa.select(binance_ohlcv.c.source, sa.func.count()).group_by(binance_ohlcv.c.source)
        ).all()
        (batch, *_) = ledger.of_run(connection, run_id)
    assert sources == [("airbyte-server", len(synced.destination.rows()))]
    assert batch.engine == "airbyte-server"
    assert batch.details["job"] in synced.airbyte.jobs


def test_a_cleared_task_cancels_its_job_and_starts_another(synced):
    run_id = synced.start()
    *_, job = synced.airbyte.jobs.values()
    synced.airbyte.script = ["succeeded"]
    synced.airflow._call(
        "POST",
        f"/dags/{SYNC}/clearTaskInstances",
        json={
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": ["sync"],
            "only_failed": False,
        },
    )
    synced.until(lambda: job["status"] == "cancelled", "its job is cancelled")
    assert synced.ended(SYNC, run_id) == "success"
    assert "succeeded" in synced.jobs[synced.jobs.index("cancelled") + 1 :]


def test_a_task_that_is_marked_as_failed_cancels_its_job(synced):
    run_id = synced.start()
    *_, job = synced.airbyte.jobs.values()
    synced.airflow._call(
        "PATCH",
        f"/dags/{SYNC}/dagRuns/{run_id}/taskInstances/sync",
        json={"new_state": "failed"},
    )
    synced.until(lambda: job["status"] == "cancelled", "its job is cancelled")
    assert synced.ended(SYNC, run_id) == "failed"
