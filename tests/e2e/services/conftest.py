"""A real Airflow on a free port in a home of its own, with one small DAG."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from bentley.services import airflow, airflow_db
from bentley.services.airflow_api import AirflowClient
from bentley.services.processes import ProcessGroup
from support import free_port

PROBE = """
import datetime
import logging
import os

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import Asset, BaseOperator, dag, task

HELLO = Asset(name="mysql://mansa_bot/hello", uri="mysql://HOST:3307/mansa_bot/hello")


class Wait(BaseOperator):
    def execute(self, context):
        self.defer(
            trigger=TimeDeltaTrigger(datetime.timedelta(seconds=3)), method_name="resume"
        )

    def resume(self, context, event=None):
        self.log.info("an operator says it waited")


@dag(schedule=None, catchup=False)
def probe():
    @task(outlets=[HELLO])
    def echo(params=None) -> str:
        logging.getLogger("bentley.stages").info("a logger says hello")
        print("a print says hello")
        return os.environ["BENTLEY_HOME"]

    echo() >> Wait(task_id="wait")


@dag(schedule=[HELLO], catchup=False)
def consumer():
    @task
    def consume() -> int:
        return 7

    consume()


probe()
consumer()
"""


@dataclass(frozen=True)
class Airflow:
    """What a test gets: the client, and what it needs to look behind it."""

    client: AirflowClient
    group: ProcessGroup
    env: dict[str, str]
    home: Path
    port: int


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    (root / "dags").mkdir()
    (root / "plugins").mkdir()
    (root / "dags" / "probe.py").write_text(PROBE)
    return root


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("bentley home")  # a blank in the path must not matter


@pytest.fixture(scope="module")
def running(root, home):
    port = free_port()
    with ProcessGroup(home=home, logs=home / "logs") as group:
        env = airflow.environment(
            home=home, root=root, port=port, extra={"BENTLEY_HOME": str(home)}
        )
        assert airflow_db.migrate(env)
        for name, argv in airflow.components():
            group.start(name, argv, env=env)
        airflow.wait_healthy(port, alive=group.check)
        with AirflowClient(f"http://127.0.0.1:{port}") as client:
            yield Airflow(client, group, env, home, port)
