"""`bentley run`: every service up, the master triggered, its progress shown, all ended again."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from bentley.domain.errors import FatalError, RetriableError
from bentley.services import airflow, airflow_db, homes, preflight
from bentley.services.airflow_answers import DagRun
from bentley.services.airflow_api import AirflowClient
from bentley.services.processes import ProcessGroup
from bentley.services.replay_room import replay_room
from bentley.settings import Settings
from bentley.stages.follow import STAGES, Chain, follow
from bentley.stages.layout import ROOT
from bentley.stages.track import tracking_uri
from bentley.tracking import server as mlflow_server
from bentley.warehouse.warehouse import Warehouse

MASTER = "bentley_master_orchestration"
CONSUMERS_FIRST = ("mlflow_logging_dag", "knime_cli_workflow", MASTER, "airbyte_sync_dag")
"""The order of unpausing: an event for a paused consumer is lost."""

STOCKS = "stock_ingestion_pipeline"
TIINGO = "tiingo_data_pull"

_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 120.0
"""How long a run bears nothing but passing errors: a database that starts anew, an API that is busy."""

_RAISED = re.compile(r'"exc_value": "((?:[^"\\]|\\.)*)"')

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Progress:
    """The chain as it stands: what the ledger says, and what Airflow says of the master."""

    chain: Chain
    master: DagRun
    seconds: float


class Services:
    """The processes of one home, up and healthy; made by `services`."""

    def __init__(self, settings: Settings, group: ProcessGroup) -> None:
        self.settings = settings
        self.group = group

    def start_chain(self) -> str:
        """Unpause the DAGs, those of stocks where they are configured, and trigger the master.

        Return the pipeline run's id.
        """
        run_id = f"run__{datetime.now(UTC).strftime('%Y-%m-%dT%H%M%S.%f')}"
        with self.client() as client:
            self.patiently(
                lambda: client.wait_for_dag(
                    [MASTER, *STAGES.values(), STOCKS, TIINGO], alive=self.group.check
                )
            )
            paused = [
                dag_id
                for dag_id in (*CONSUMERS_FIRST, *self.configured())
                if self.patiently(partial(client.dag, dag_id)).is_paused
            ]
            for dag_id in paused:
                self.patiently(partial(client.unpause, dag_id))
            for dag_id in paused:  # an asset's watchers start at the parse after its unpausing
                self.patiently(partial(client.parse, dag_id))
            note = f"origin: {self.settings.origin}"
            self.patiently(lambda: client.start(MASTER, run_id=run_id, note=note))
        return run_id

    def configured(self) -> list[str]:
        """The DAGs of stocks that have what they need; a replay has no stocks."""
        given = self.settings
        if given.replayed or not given.tickers:
            return []
        return [STOCKS] if given.tiingo_api_key is None else [STOCKS, TIINGO]

    def follow(self, run_id: str) -> Iterator[Progress]:
        """Yield the chain's progress until the master has ended."""
        started = time.monotonic()
        with self.client() as client:
            while True:
                master = self.patiently(partial(client.run, MASTER, run_id))
                chain = self.patiently(partial(follow, self.settings, run_id))
                yield Progress(chain, master, time.monotonic() - started)
                if master.finished:
                    return
                time.sleep(_POLL_SECONDS)

    def patiently(self, ask: Callable[[], T]) -> T:
        """Ask until there is an answer: a passing error ends a run only if nothing else comes.

        A service that died ends it at once.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            self.group.check()
            try:
                return ask()
            except RetriableError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_SECONDS)

    def verdict(self, run_id: str) -> dict[str, Any]:
        """Return the master's own report; FatalError says at which task it failed and why."""
        with self.client() as client:
            with suppress(FatalError):  # it failed before it had a report
                found: dict[str, Any] = client.xcom(MASTER, run_id, "verify", "report")
                return found
            tasks = client.task_instances(MASTER, run_id)
            failed = [task for task in tasks if task.state == "failed"]
            task_id = failed[0].task_id if failed else "verify"
            tries = failed[0].try_number if failed else 1
            log = client.logs(MASTER, run_id, task_id, try_number=tries)
            values = _RAISED.findall(log)
            reason = json.loads(f'"{values[-1]}"') if values else "see its log in the Airflow page"
            msg = f"{MASTER} failed at {task_id}: {reason}"
            raise FatalError(msg)

    def client(self) -> AirflowClient:
        """Return a client of this home's Airflow."""
        return AirflowClient(self.settings.airflow_url)


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of Airflow's processes, and of `bentley airflow`."""
    return airflow.environment(
        home=settings.data_home,
        root=ROOT,
        port=settings.airflow_port,
        extra=settings.environment() | {"MLFLOW_TRACKING_URI": tracking_uri(settings)},
    )


def running_settings(settings: Settings) -> Settings:
    """Return the settings of the run that holds this home, where one is up, or those given."""
    if homes.holder(settings.home) is None:  # a killed run leaves its record behind
        return settings
    try:
        found = json.loads(_record(settings).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return settings
    return settings.model_copy(update=found)


def _record(settings: Settings) -> Path:
    return settings.home / "run.json"


@contextmanager
def services(
    settings: Settings, *, say: Say, hurried: Callable[[], bool] = lambda: False
) -> Iterator[Services]:
    """Start MLflow and Airflow on the settings' ports, and end them with all their trees.

    Raises ConfigurationError, before anything is started, for a home in use, a missing package, a
    busy port or a broken database; RetriableError or FatalError for a database out of reach or a
    service that doesn't come up.
    """
    own_mlflow = settings.mlflow_tracking_uri is None
    logs = settings.data_home / "logs"
    with (
        ProcessGroup(home=settings.home, logs=logs, hurried=hurried) as group,
        _warehouse(settings),
    ):
        env = environment(settings)
        if own_mlflow:
            _start_mlflow(settings, group)
        say("preparing Airflow's database")
        airflow_db.migrate(env)
        say("starting Airflow and MLflow: half a minute, longer at the first start")
        for name, argv in airflow.components():
            group.start(name, argv, env=env, cwd=ROOT)
        _wait(settings, group, own_mlflow=own_mlflow)
        record = _record(settings)
        record.touch(mode=0o600)  # an address may hold a password
        record.write_text(
            json.dumps({"origin": settings.origin, "exchange_url": settings.exchange_url}),
            encoding="utf-8",
        )
        try:
            yield Services(settings, group)
        finally:
            record.unlink(missing_ok=True)


@contextmanager
def _warehouse(settings: Settings) -> Iterator[None]:
    """Look at all that a run needs, and at last open and migrate the warehouse."""
    preflight.check(settings)
    if settings.replayed:
        with replay_room(settings):
            yield
    else:
        Warehouse.open(settings).close()
        yield


def _start_mlflow(settings: Settings, group: ProcessGroup) -> None:
    home = settings.home / "mlflow"
    home.mkdir(parents=True, exist_ok=True)
    command = mlflow_server.server_command(
        host="127.0.0.1", port=settings.mlflow_port, artifacts_dir=home / "artifacts"
    )
    given = settings.mlflow_database_url
    address = f"sqlite:///{home / 'mlflow.db'}" if given is None else given.get_secret_value()
    backend = mlflow_server.server_env(backend_uri=address)
    group.start("mlflow", command, env={**airflow.inherited(), **backend}, cwd=home)


def _wait(settings: Settings, group: ProcessGroup, *, own_mlflow: bool) -> None:
    if own_mlflow:
        mlflow_server.wait_ready(tracking_uri(settings), timeout_s=120, alive=lambda: _up(group))
    airflow.wait_healthy(settings.airflow_port, alive=group.check)


def _up(group: ProcessGroup) -> bool:
    group.check()  # raises with the name and the last words of whichever died
    return True
