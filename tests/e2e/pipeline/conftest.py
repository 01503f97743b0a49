"""A live pipeline: real Airflow, MLflow and MariaDB over an exchange whose clock a test moves."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pytest
import sqlalchemy as sa
from mlflow import MlflowClient

from bentley import settings as bentley_settings
from bentley.services.airflow_api import AirflowClient
from bentley.services.exchange.generated import GeneratedMarket
from bentley.services.exchange.server import ExchangeServer
from bentley.services.run import Services, services
from bentley.settings import Settings
from bentley.stages import ingest
from bentley.stages.track import EXPERIMENT
from bentley.stages.verify import Verification, verify
from bentley.warehouse import ledger
from bentley.warehouse.ledger import COMMITTED, PROCESS, TRACK
from bentley.warehouse.schema import batches
from bentley.warehouse.warehouse import Warehouse

HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR
OHLCV = "mysql://mansa_bot/binance_ohlcv"


@dataclass
class Live:
    """The pipeline under test, and what a test does to it."""

    settings: Settings
    services: Services
    exchange: ExchangeServer
    airflow: AirflowClient
    warehouse: Warehouse

    def sync_beside(self) -> None:
        """Commit a batch as `bentley sync` does: Airflow hears nothing of it."""
        self.exchange.advance(HOUR)
        report = ingest.sync(self.settings)
        assert report.rows_news > 0

    def emit(self) -> None:
        """Tell Airflow that the asset has changed."""
        self.airflow._call("POST", "/assets/events", json={"asset_id": self.asset_id})

    @cached_property
    def asset_id(self) -> int:
        found = self.airflow._get("/assets", name_pattern=OHLCV)["assets"]
        return next(int(one["id"]) for one in found if one["name"] == OHLCV)

    def waiting(self) -> int:
        with self.warehouse.reading() as connection:
            return sum(
                len(ledger.unconsumed(connection, consumer)) for consumer in (PROCESS, TRACK)
            )

    def until(self, true: Callable[[], Any], what: str, *, seconds: float = 120) -> float:
        """Wait for something that must become true within the time that is promised."""
        started = time.monotonic()
        while not true():
            self.services.group.check()
            waited = time.monotonic() - started
            assert waited < seconds, f"{what}: not within {seconds:g} s"
            time.sleep(0.5)
        return time.monotonic() - started

    def settle(self) -> None:
        """Within two minutes of quiet, all is processed and every batch logged exactly once."""
        self.until(lambda: self.waiting() == 0, "everything consumed")
        found = self.verification()
        assert found.held, [check for check in found.checks if not check.held]
        client = MlflowClient(self.settings.mlflow_tracking_uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
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

    def verification(self) -> Verification:
        return verify(self.settings)

    def master(self, **conf: Any) -> str:
        run_id = f"test__{time.time_ns()}"
        self.airflow.trigger("bentley_master_orchestration", conf, run_id=run_id)
        return run_id

    def ended(self, dag_id: str, run_id: str, *, seconds: float = 180) -> str:
        self.until(
            lambda: self.airflow.run(dag_id, run_id).finished, f"{dag_id} {run_id}", seconds=seconds
        )
        return self.airflow.run(dag_id, run_id).state


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="package")
def live(tmp_path_factory, mariadb) -> Iterator[Live]:
    market = GeneratedMarket(5, ["BTCUSDT", "ETHUSDT"])
    home = tmp_path_factory.mktemp("live")
    with ExchangeServer(market, now=START) as exchange:
        mlflow_port = _free_port()
        settings = bentley_settings.load(
            home=home,
            exchange_url=exchange.url,
            warehouse_url=mariadb.database(),
            symbols="BTCUSDT ETHUSDT",
            since=START - 3 * 24 * HOUR,
            airflow_port=_free_port(),
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
