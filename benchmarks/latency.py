"""From an asset event to the consumer's first line, beside a bare pair on the same Airflow."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import harness
import httpx
import sample
import services
from harness import HERE, ROOT, Context, Figure, Goal

from bentley.domain.errors import RetriableError
from bentley.services import airflow, airflow_db
from bentley.services.airflow_answers import DagRunReference
from bentley.services.airflow_api import AirflowClient
from bentley.services.processes import ProcessGroup
from bentley.settings import load

GOAL = Goal(1.1)
OURS = ("airbyte_sync_dag", "knime_cli_workflow", "mlflow_logging_dag")
BARE = ("bare_producer", "bare_consumer")

_HOUR = 3_600_000
_DAY = 24 * _HOUR
_WAIT_SECONDS = 240.0
_QUIET_SECONDS = 2.0
_LOOK_SECONDS = 1.0


def measure(context: Context) -> Iterator[Figure]:
    """Both pairs run in turn on one Airflow; each sync has an hour's news."""
    repeats = 2 if context.quick else 10
    context.say("starting Airflow, MLflow and an exchange")
    with _pipeline(context) as pipeline:
        pipeline.warm_up()
        found = harness.alternate(
            {
                "bentley": lambda: pipeline.turn("airbyte_sync_dag", "knime_cli_workflow"),
                "bare pair": lambda: pipeline.turn(*BARE),
            },
            repeats,
            context.say,
        )
    yield Figure(
        what="event to first line",
        unit="s",
        ours=found["bentley"],
        peer_name="bare pair",
        peer=found["bare pair"],
        ratio=found["bentley"] / found["bare pair"],
        goal=GOAL,
        runs=repeats,
    )


class Pipeline:
    """Our DAGs and the bare pair, up on one Airflow."""

    def __init__(
        self, client: AirflowClient, group: ProcessGroup, exchange: str, notes: Path
    ) -> None:
        self.client = client
        self.group = group
        self.exchange = exchange
        self.notes = notes

    def warm_up(self) -> None:
        """Unpause consumers before producers, and let each pair run once."""
        self.client.wait_for_dag([*OURS, *BARE], alive=self.group.check)
        for dag_id in (*reversed(OURS), *reversed(BARE)):
            self.client.unpause(dag_id)
        self._rest()
        self.turn("airbyte_sync_dag", "knime_cli_workflow")
        self.turn(*BARE)

    def turn(self, producer: str, consumer: str) -> float:
        """Run a producer; return the seconds from its event to its consumer's first line."""
        httpx.post(
            f"{self.exchange}/control/clock", json={"advance_ms": _HOUR}, trust_env=False
        ).raise_for_status()
        run = self.client.trigger(producer)
        emitted, started = self._consumer_of(producer, run.run_id, consumer)
        seconds = self._first_line(started) - emitted
        self._rest()
        return seconds

    def _consumer_of(
        self, producer: str, run_id: str, consumer: str
    ) -> tuple[float, DagRunReference]:
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            self.group.check()
            # Airflow 3.3.2 answers 500 while a run that an event created is still queued.
            with suppress(RetriableError):
                for event in self.client.asset_events(
                    source_dag_id=producer, source_run_id=run_id, limit=1
                ):
                    for run in event.created_dagruns:
                        if run.dag_id == consumer:
                            return event.timestamp.timestamp(), run
            time.sleep(_LOOK_SECONDS)
        msg = f"no event of {producer} {run_id} has started {consumer}"
        raise TimeoutError(msg)

    def _first_line(self, run: DagRunReference) -> float:
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            for line in self.notes.read_text(encoding="utf-8").splitlines():
                dag_id, run_id, at = line.split(" ")
                if (dag_id, run_id) == (run.dag_id, run.run_id):
                    return float(at)
            time.sleep(_LOOK_SECONDS)
        msg = f"{run.dag_id} {run.run_id} has not come to its first line"
        raise TimeoutError(msg)

    def _rest(self) -> None:
        """Wait until no run is left and none comes."""
        deadline = time.monotonic() + _WAIT_SECONDS
        quiet_since = None
        while quiet_since is None or time.monotonic() - quiet_since < _QUIET_SECONDS:
            self.group.check()
            busy = any(not run.finished for run in self.client.runs(limit=50))
            quiet_since = None if busy else quiet_since or time.monotonic()
            if time.monotonic() > deadline:
                msg = "the DAGs don't come to rest"
                raise TimeoutError(msg)
            time.sleep(_LOOK_SECONDS)


@contextmanager
def _pipeline(context: Context) -> Iterator[Pipeline]:
    root, home = _root(context), context.fresh("home")
    notes = home / "first-lines"
    notes.touch()
    now = sample.START + 30 * _DAY + 1
    with services.exchange(home, now) as exchange, services.mlflow(home) as mlflow:
        settings = load(
            home=home,
            exchange_url=exchange,
            mlflow_tracking_uri=mlflow,
            airflow_port=services.free_port(),
            since=now - 5 * _DAY,
        )
        with ProcessGroup(home=home, logs=home / "logs") as group:
            env = airflow.environment(
                home=home,
                root=root,
                port=settings.airflow_port,
                extra=settings.environment() | {"BENCH_FIRST_LINES": str(notes)},
            )
            airflow_db.migrate(env)
            for name, argv in airflow.components():
                group.start(name, argv, env=env, cwd=ROOT)
            airflow.wait_healthy(settings.airflow_port, alive=group.check)
            with AirflowClient(settings.airflow_url) as client:
                yield Pipeline(client, group, exchange, notes)


def _root(context: Context) -> Path:
    """Our DAGs and plugins with the bare pair and the probe beside them."""
    root = context.fresh("root")
    for folder, part in (("dags", "bare_pair.py"), ("plugins", "first_line.py")):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(HERE / "airflow_parts" / part, root / folder)
    return root
