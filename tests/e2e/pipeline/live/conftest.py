"""A live pipeline: real Airflow, MLflow and MariaDB over an exchange whose clock a test moves."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from mlflow import MlflowClient
from mlflow.entities import Run

from archive_support import lines, put
from bentley import settings as bentley_settings
from bentley.domain.bars import FIELDS
from bentley.domain.errors import RetriableError
from bentley.services.airflow_api import AirflowClient
from bentley.services.exchange.generated import GeneratedMarket
from bentley.services.exchange.server import ExchangeServer
from bentley.services.run import Services, services
from bentley.services.run import environment as run_environment
from bentley.settings import Settings
from bentley.stages import intake
from bentley.stages.track import EXPERIMENT
from bentley.stages.verify import Verification, verify
from bentley.warehouse import ledger
from bentley.warehouse.ledger import COMMITTED, INGEST, PROCESS, TRACK
from bentley.warehouse.schema import batches
from bentley.warehouse.warehouse import Warehouse
from live import planted
from support import free_port
from unit.stages.chain_support import add_rows

HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR
OHLCV = "mysql://mansa_bot/binance_ohlcv"
WHERE_THE_ORIGIN_IS_NAMED = {
    *("airflow.db:xcom.value", "airflow.db:asset_event.extra", "airflow.db:dag_run_note.content"),
    *(".log", "mlflow.db:tags.value", "warehouse:meta.value"),
}


@dataclass
class Live:
    """The pipeline under test, and what a test does to it."""

    settings: Settings
    services: Services
    exchange: ExchangeServer
    airflow: AirflowClient
    warehouse: Warehouse

    def commit(self) -> int:
        """Commit the next hour's bars as a sync does, but without a connector: in no time."""
        with self.syncing():
            return self.close(self.begin())

    @contextmanager
    def syncing(self) -> Iterator[None]:
        """Be the one sync at work: whatever batch of it is open else passes for dead."""
        with self.warehouse.alone(INGEST, wait_seconds=60):
            yield

    def begin(self) -> int:
        """Write the bars closed by the next hour in a batch that is open still; return its id."""
        now = self.exchange.advance(HOUR)
        rows = [
            dict(zip(FIELDS, map(str, (symbol, "1h", *row)), strict=False))
            for symbol in self.settings.symbols
            for row in self.market.klines(symbol, "1h", now - 3 * HOUR, now - HOUR, 10, now)
        ]
        with self.warehouse.writing() as connection:
            batch_id = ledger.begin(connection, INGEST, engine="test", exchange_time=now)
        add_rows(self.warehouse, batch_id, rows, now=now)
        return batch_id

    def close(self, batch_id: int) -> int:
        """Commit an open batch."""
        assert intake.close(self.warehouse, batch_id).rows_news > 0
        return batch_id

    def sync_beside(self) -> subprocess.Popen[str]:
        """Start `bentley sync`, of which Airflow hears nothing."""
        return subprocess.Popen(
            [str(Path(sys.executable).parent / "bentley"), "sync", "--json"],
            env=run_environment(self.settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def emit(self) -> None:
        """Tell Airflow that the asset has changed."""
        self.airflow._call("POST", "/assets/events", json={"asset_id": self.asset_id})

    @cached_property
    def asset_id(self) -> int:
        found = self.airflow._get("/assets", name_pattern=OHLCV)["assets"]
        return next(int(one["id"]) for one in found if one["name"] == OHLCV)

    @property
    def market(self) -> GeneratedMarket:
        return self.exchange.exchange.market

    def unconsumed(self, consumer: str) -> list[int]:
        with self.warehouse.reading() as connection:
            return [batch.id for batch in ledger.unconsumed(connection, consumer)]

    def waiting(self) -> int:
        return sum(len(self.unconsumed(consumer)) for consumer in (PROCESS, TRACK))

    def at_work(self, stage: str) -> list[ledger.Batch]:
        """The open batches of a stage: it has read what there is to do."""
        with self.warehouse.reading() as connection:
            return ledger.running(connection, stage)

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Whoever is about to write the table waits, in the midst of its work."""
        with self.warehouse.engine.connect() as connection:
            connection.exec_driver_sql(f"LOCK TABLES {table} WRITE")
            try:
                yield
            finally:
                connection.exec_driver_sql("UNLOCK TABLES")

    @contextmanager
    def away(self, table: str) -> Iterator[None]:
        """The table is not there."""
        with self.warehouse.engine.connect() as connection:
            connection.exec_driver_sql(f"RENAME TABLE {table} TO {table}_away")
            try:
                yield
            finally:
                connection.exec_driver_sql(f"RENAME TABLE {table}_away TO {table}")

    def task_of(self, dag_id: str) -> psutil.Process:
        """The process of the DAG's running task; its parent is the task's supervisor."""
        found = self.airflow._get(f"/dags/{dag_id}/dagRuns/~/taskInstances", state="running")
        (task,) = found["task_instances"]
        return psutil.Process(task["pid"])

    def until(
        self, true: Callable[[], Any], what: str, *, seconds: float = 120, every: float = 0.2
    ) -> Any:
        """Wait for something that must become true within the time that is promised."""
        started = time.monotonic()
        while not (found := self.asked(true)):
            self.services.group.check()
            waited = time.monotonic() - started
            assert waited < seconds, f"{what}: not within {seconds:g} s"
            time.sleep(every)
        return found

    @staticmethod
    def asked(true: Callable[[], Any]) -> Any:
        """Ask something of services that may be slow under load: an answer is all that counts."""
        with suppress(RetriableError):
            return true()

    def settle(self) -> None:
        """Within two minutes of quiet, all is processed and every batch logged exactly once."""
        self.until(lambda: self.waiting() == 0, "everything consumed")
        found = self.verification()
        assert found.held, [check for check in found.checks if not check.held]
        runs = self.mlflow_runs()
        claims = [run.data.tags["bentley.claim"] for run in runs]
        assert all(run.info.status == "FINISHED" for run in runs)
        with self.warehouse.reading() as connection:
            processed = connection.execute(
                sa.select(batches.c.id, batches.c.started_at).where(
                    batches.c.stage == PROCESS,
                    batches.c.status == COMMITTED,
                    batches.c.rows_news > 0,
                )
            ).all()
        wanted = [f"{self.warehouse.name}:{row.id}:{row.started_at}" for row in processed]
        assert sorted(claims) == sorted(wanted)

    def mlflow_runs(self, **wanted: Any) -> list[Run]:
        client = MlflowClient(self.settings.mlflow_tracking_uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        return client.search_runs([experiment.experiment_id], max_results=1000, **wanted)

    def verification(self) -> Verification:
        return verify(self.settings)

    def master(self, **conf: Any) -> str:
        return self.start("bentley_master_orchestration", conf)

    def start(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """Start a run, and return its id."""
        run_id = f"test__{time.time_ns()}"
        self.until(lambda: self.airflow.start(dag_id, conf, run_id=run_id), f"{dag_id} started")
        return run_id

    def ended(self, dag_id: str, run_id: str, *, seconds: float = 180) -> str:
        self.until(
            lambda: self.airflow.run(dag_id, run_id).finished, f"{dag_id} {run_id}", seconds=seconds
        )
        return self.until(lambda: self.airflow.run(dag_id, run_id).state, "its state")


@pytest.fixture(scope="package")
def live(tmp_path_factory, mariadb, migrated) -> Iterator[Live]:
    """The pipeline, up for all tests; at its end, nothing that it wrote may hold its password."""
    market = GeneratedMarket(5, ["BTCUSDT", "ETHUSDT"])
    home = migrated(tmp_path_factory.mktemp("live"))
    address = planted.plant(mariadb)
    archived = tmp_path_factory.mktemp("archived")
    put(archived, "2023-10", lines("2023-10-01", "2023-11-01"))
    with ExchangeServer(market, now=START) as exchange, planted.ProcessList() as process_list:
        mlflow_port = free_port()
        settings = bentley_settings.load(
            home=home,
            exchange_url=exchange.url.replace("://", f"://reader:{planted.CORE}@"),
            warehouse_url=address,
            symbols="BTCUSDT ETHUSDT",
            since=START - 3 * 24 * HOUR,
            archive=str(archived),
            airflow_port=free_port(),
            mlflow_port=mlflow_port,
        )
        with services(settings, say=lambda _: None) as up, up.client() as airflow:
            settings = settings.model_copy(
                update={"mlflow_tracking_uri": f"http://127.0.0.1:{mlflow_port}"}
            )
            with Warehouse.open(settings) as warehouse:
                pipeline = Live(settings, up, exchange, airflow, warehouse)
                first = up.start_chain()
                assert pipeline.ended("bentley_master_orchestration", first) == "success"
                yield pipeline
    # that the search looks everywhere is seen by what may be read everywhere
    told = planted.places(settings.origin, home, address)
    assert set(told) | {Path(one).suffix for one in told} >= WHERE_THE_ORIGIN_IS_NAMED, told
    assert any("airbyte/guard.py" in one for one in process_list.seen)
    leaks = planted.places(planted.CORE, home, address)
    leaks += [one for one in process_list.seen if planted.CORE in one]
    assert not leaks, leaks
