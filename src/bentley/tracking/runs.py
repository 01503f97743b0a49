"""MLflow runs that come out once: adopted where an earlier attempt was cut off, finished last."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from bentley.domain.errors import ConfigurationError, FatalError
from bentley.tracking.edge import Edge
from bentley.tracking.records import (
    CLAIM_TAG,
    DatasetRecord,
    RunRecord,
    dataset_fields,
)

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

FINISHED = "FINISHED"
READ_RETRIES = 1
_ACTIVE = "active"
# MLflow 3 opens its pages for language models unless a link and the experiment say otherwise
_VIEW = "?workflowType=machine_learning"
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
_SOURCE_TAGS = {"mlflow.source.name": "bentley", "mlflow.source.type": "JOB"}


@dataclass(frozen=True)
class LoggedRun:
    """Where a finished run is to be found."""

    run_id: str
    experiment_id: str
    url: str


@dataclass(frozen=True)
class StoredRun:
    """What the server holds of a run; times in UTC milliseconds, `datasets` maps name to digest."""

    run_id: str
    experiment_id: str
    url: str
    name: str
    status: str
    started_ms: int
    ended_ms: int | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    datasets: Mapping[str, str]

    @property
    def finished(self) -> bool:
        """Whether all of it was logged."""
        return self.status == FINISHED


class Tracker:
    """Logs runs to one MLflow server; `timeout_s` bounds each request.

    Every method raises RetriableError where the server can't be reached or is overloaded,
    FatalError where it refuses, and ConfigurationError where the address or the account is
    wrong, without ever repeating a password.
    """

    def __init__(self, tracking_uri: str, *, timeout_s: float = 30.0) -> None:
        self._edge = Edge(tracking_uri, timeout_s=timeout_s)

    @property
    def uri(self) -> str:
        """The server's address without user and password."""
        return self._edge.uri

    def run_url(self, experiment_id: str, run_id: str) -> str:
        """Return the address of a run's page."""
        return f"{self.uri}/#/experiments/{experiment_id}/runs/{run_id}{_VIEW}"

    def reachable(self) -> None:
        """Return when the server and its database answer an account like ours."""
        with self._edge.call("list its experiments", retries=READ_RETRIES) as client:
            client.search_experiments(max_results=1)

    def log(
        self,
        record: RunRecord,
        *,
        run_id: str | None = None,
        on_created: Callable[[str], None] | None = None,
        confirm: Callable[[str], None] | None = None,
    ) -> LoggedRun:
        """Bring the run of `record.claim` to FINISHED and say where it is.

        The caller holds the claim, so that one process at a time is here with it, but an earlier
        one may have been killed anywhere: a run that carries the claim (or `run_id`) is adopted.
        A finished one stays as it is; in an unfinished one, what was logged stays and the rest
        is added. `on_created` receives the id as soon as there is one that the caller doesn't
        know, before anything else is logged; `confirm` just before the run is finished. What they
        raise leaves it unfinished: the place to notice that the claim was lost meanwhile.
        """
        record.check()
        run = self._adopt(record, run_id)
        if run is None:
            run = self._create(record)
        if on_created is not None and run.info.run_id != run_id:
            on_created(run.info.run_id)
        if run.info.status != FINISHED:
            self._log_values(run, record)
            self._log_dataset(run, record.dataset)
            self._log_artifacts(run, record)
            if confirm is not None:
                confirm(run.info.run_id)
            self._finish(run, record)
        where = run.info.experiment_id
        return LoggedRun(run.info.run_id, where, self.run_url(where, run.info.run_id))

    def get(self, run_id: str) -> StoredRun | None:
        """Return what the server holds of a run, or None where it is missing or deleted."""
        run = self._get_active(run_id)
        if run is None:
            return None
        info, data = run.info, run.data
        return StoredRun(
            run_id=info.run_id,
            experiment_id=info.experiment_id,
            url=self.run_url(info.experiment_id, info.run_id),
            name=info.run_name,
            status=info.status,
            started_ms=info.start_time,
            ended_ms=info.end_time,
            params=dict(data.params),
            metrics=dict(data.metrics),
            tags=dict(data.tags),
            datasets=_datasets(run),
        )

    def _adopt(self, record: RunRecord, run_id: str | None) -> Run | None:
        known = self._get_active(run_id) if run_id else None
        if known is not None and known.data.tags.get(CLAIM_TAG) == record.claim:
            if known.info.status == FINISHED:
                return known
        else:
            known = None
        return self._find(record) or known

    def _find(self, record: RunRecord) -> Run | None:
        doing = f"look for the run of claim {record.claim}"
        with self._edge.call(doing, retries=READ_RETRIES) as client:
            experiment = client.get_experiment_by_name(record.experiment)
            if experiment is None:
                return None
            found = client.search_runs(
                [experiment.experiment_id],
                f"tags.`{CLAIM_TAG}` = '{record.claim}'",
                order_by=["attributes.start_time ASC"],
            )
            # a database may compare without regard to case
            runs = [run for run in found if run.data.tags.get(CLAIM_TAG) == record.claim]
            return _keep_one(client, runs)

    def _create(self, record: RunRecord) -> Run:
        """Make the run, and keep one where another process made one since we looked.

        Every process that comes by here keeps the same one, so that none can finish a second.
        """
        experiment_id = self._experiment(record.experiment)
        with self._edge.call(f"create run {record.name}") as client:
            created = client.create_run(
                experiment_id,
                start_time=record.started_ms,
                tags={**_SOURCE_TAGS, CLAIM_TAG: record.claim},
                run_name=record.name,
            )
        return self._find(record) or created

    def _experiment(self, name: str) -> str:
        with self._edge.call(f"make experiment {name}") as client:
            from mlflow.exceptions import MlflowException  # noqa: PLC0415 - 1 s to import

            found = client.get_experiment_by_name(name)
            if found is None:
                try:
                    return str(client.create_experiment(name, tags=_EXPERIMENT_TAGS))
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                found = client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != _ACTIVE:
            msg = (
                f"MLflow's experiment {name!r} was deleted; restore it with `mlflow experiments "
                f"restore --experiment-id {found.experiment_id if found else '...'}`"
            )
            raise ConfigurationError(msg)
        return str(found.experiment_id)

    def _get_active(self, run_id: str) -> Run | None:
        with self._edge.call(f"read run {run_id}", retries=READ_RETRIES) as client:
            from mlflow.exceptions import MlflowException  # noqa: PLC0415 - 1 s to import

            try:
                run = client.get_run(run_id)
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
        return run if run.info.lifecycle_stage == _ACTIVE else None

    def _log_values(self, run: Run, record: RunRecord) -> None:
        run_id, held = run.info.run_id, run.data
        with self._edge.call(f"log the values of run {run_id}") as client:
            entities = _entities()
            client.log_batch(
                run_id,
                metrics=[
                    entities.Metric(key, value, record.ended_ms, 0)
                    for key, value in record.finite_metrics().items()
                    if key not in held.metrics  # a second value would stay in its history
                ],
                params=[
                    entities.Param(key, value)
                    for key, value in record.all_params().items()
                    if key not in held.params  # MLflow refuses a changed one
                ],
                tags=[entities.RunTag(key, value) for key, value in record.all_tags().items()],
            )

    def _log_dataset(self, run: Run, dataset: DatasetRecord | None) -> None:
        if dataset is None or _datasets(run):
            return
        run_id = run.info.run_id
        with self._edge.call(f"log the dataset of run {run_id}", retries=READ_RETRIES) as client:
            entities = _entities()
            context = entities.InputTag("mlflow.data.context", dataset.context)
            made_from = entities.Dataset(**dataset_fields(dataset))
            client.log_inputs(run_id, [entities.DatasetInput(made_from, [context])])

    def _log_artifacts(self, run: Run, record: RunRecord) -> None:
        artifacts = record.all_artifacts()
        if not artifacts:
            return
        with tempfile.TemporaryDirectory(prefix="bentley-run-") as folder:
            for path, artifact in artifacts.items():
                content = artifact if isinstance(artifact, (bytes, str)) else artifact()
                if not isinstance(content, (bytes, str)):
                    msg = (
                        f"artifact {path!r} is made of {type(content).__name__}, not bytes or text"
                    )
                    raise FatalError(msg)
                file = Path(folder, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.encode() if isinstance(content, str) else content)
            doing = f"store the artifacts of run {run.info.run_id}"
            with self._edge.call(doing, retries=READ_RETRIES) as client:
                client.log_artifacts(run.info.run_id, folder)

    def _finish(self, run: Run, record: RunRecord) -> None:
        doing = f"finish run {run.info.run_id}"
        with self._edge.call(doing, retries=READ_RETRIES) as client:
            client.set_terminated(run.info.run_id, FINISHED, record.ended_ms)


def _entities() -> ModuleType:
    """Import MLflow's entities; called inside a call alone, where its telemetry is off."""
    from mlflow import entities  # noqa: PLC0415 - 1 s to import

    return entities


def _datasets(run: Run) -> dict[str, str]:
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {entry.dataset.name: entry.dataset.digest for entry in inputs}


def _keep_one(client: MlflowClient, runs: list[Run]) -> Run | None:
    """Choose the finished or else the oldest run of a claim, and delete the others.

    There are some where a create reached the server and its answer never came back, and where
    two processes held the claim because a database server had dropped the lock of the first.
    """
    if not runs:
        return None
    first, *others = sorted(
        runs, key=lambda r: (r.info.status != FINISHED, r.info.start_time, r.info.run_id)
    )
    for surplus in others:
        client.delete_run(surplus.info.run_id)
    return first
