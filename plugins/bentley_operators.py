"""Operators that wait in the triggerer: for an Airbyte server, processed data, a whole chain."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from bentley_tasks import FAILURE, history_wanted, note_report, pipeline_runs, run_link
from bentley_triggers import AirbyteJobTrigger, CaughtUpTrigger, ChainTrigger


class SyncBars(BaseOperator):
    """Brings new bars: by the connector, by an Airbyte server's job, or history where it is asked for.

    A server's job is waited for in the triggerer.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._started: Any = None
        self._killed = False

    def execute(self, context: Any) -> dict[str, Any]:
        """Sync or load at once, or start a server's job and hand over to the triggerer."""
        from bentley import settings  # noqa: PLC0415 - not needed to parse a DAG

        history = history_wanted(context["params"])
        given = settings.load(**history)
        if history:
            from bentley.stages.backfill import backfill as run  # noqa: PLC0415
        elif given.synced_by_server:
            self._start_and_wait(given, context)
        else:
            from bentley.stages.ingest import sync as run  # noqa: PLC0415
        return self._noted(given, context, run(given, **_of(context)))

    def fold(
        self, context: Any, event: Any = None, *, job_id: int, own: bool, deadline: float = 0.0
    ) -> dict[str, Any]:
        """Take in what the job brought, or cancel it where its time is over; the server tells."""
        from bentley import settings  # noqa: PLC0415
        from bentley.airbyte.server import Job  # noqa: PLC0415
        from bentley.stages import airbyte_job  # noqa: PLC0415

        given = settings.load()
        job = self._started = Job(job_id, str(event), own=own)
        late = event == "late" or time.time() >= deadline
        report = airbyte_job.finish(given, job, late=late, **_of(context))
        if report is None:
            self._wait(job, deadline)
        self._started = None
        return self._noted(given, context, report)

    def on_kill(self) -> None:
        """Cancel the job whose wait has not been handed over yet, or is about to be started."""
        self._killed = True
        self._cancel()

    def _cancel(self) -> None:
        from bentley import settings  # noqa: PLC0415
        from bentley.stages import airbyte_job  # noqa: PLC0415

        if self._started is not None:
            airbyte_job.cancel(settings.load(), self._started)

    def _start_and_wait(self, given: Any, context: Any) -> None:
        from bentley.stages import airbyte_job  # noqa: PLC0415

        job = self._started = airbyte_job.start(given, **_of(context))
        if self._killed:  # while it was asked for
            self._cancel()
        self._wait(job, time.time() + given.stage_timeout_minutes * 60)

    def _wait(self, job: Any, deadline: float) -> None:
        self.defer(
            trigger=AirbyteJobTrigger(job.id, own=job.own, deadline=deadline),
            method_name="fold",
            kwargs={"job_id": job.id, "own": job.own, "deadline": deadline},
        )

    @staticmethod
    def _noted(given: Any, context: Any, report: Any) -> dict[str, Any]:
        note_report(given, context["dag_run"], report)
        found: dict[str, Any] = report.to_dict()
        return found


def _of(context: Any) -> dict[str, Any]:
    """Say whose a batch is: the pipeline runs that wait for it, and the run that makes it."""
    dag_run = context["dag_run"]
    return {"pipeline_runs": pipeline_runs(dag_run), "dag_run": run_link(dag_run)}


class LogToMlflow(BaseOperator):
    """Logs every processed batch, once `knime_processed` has taken in all of `binance_ohlcv`.

    Waiting and logging are one task: a second one would cost its start on every run.
    """

    def __init__(self, *, max_wait: timedelta, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.max_wait = max_wait

    def execute(self, context: Any) -> dict[str, Any]:
        """Log at once, or wait in the triggerer where there is something to wait for."""
        from bentley import settings  # noqa: PLC0415 - not needed to parse a DAG
        from bentley.stages.track import caught_up  # noqa: PLC0415

        if not caught_up(settings.load()):
            self.defer(trigger=CaughtUpTrigger(), method_name="log", timeout=self.max_wait)
        return self.log(context)

    def log(self, context: Any, event: Any = None) -> dict[str, Any]:
        """Log what is there now."""
        from bentley import settings  # noqa: PLC0415
        from bentley.stages.track import track  # noqa: PLC0415

        run = run_link(context["dag_run"])
        links = {"airflow.mlflow_logging_dag": run, "airflow.url": context["ti"].log_url}
        given = settings.load()
        report = track(given, dag_run=run, links=links)
        note_report(given, context["dag_run"], report)
        return report.to_dict()


class FollowChain(BaseOperator):
    """Follows a pipeline run to the end of its last stage, or says why it will not get there."""

    template_fields = ("pipeline_run", "sync_run_id")

    def __init__(
        self, *, pipeline_run: str, sync_run_id: str, max_wait: timedelta, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline_run = pipeline_run
        self.sync_run_id = sync_run_id
        self.max_wait = max_wait

    def execute(self, context: Any) -> None:
        """Hand over to the triggerer."""
        self._wait(context)

    def execute_complete(self, context: Any, event: str) -> None:
        """End with the chain; of a stall, find the reason or go on waiting."""
        if event == "done":
            return
        self._diagnose(context)
        self._wait(context)

    def _wait(self, context: Any) -> None:
        deadline = self._deadline(context).timestamp()
        self.defer(
            trigger=ChainTrigger(self.pipeline_run, deadline=deadline),
            method_name="execute_complete",
        )

    def _deadline(self, context: Any) -> datetime:
        started: datetime = context["dag_run"].start_date
        return started + self.max_wait

    def _diagnose(self, context: Any) -> None:
        from bentley import settings  # noqa: PLC0415 - not needed to parse a DAG
        from bentley.stages.follow import INGEST, diagnose, follow  # noqa: PLC0415

        given = settings.load()
        stage = follow(given, self.pipeline_run).awaited
        if stage is None:
            return
        ti = context["ti"]
        if stage.stage == INGEST:
            over = ti.get_dagrun_state(stage.dag_id, self.sync_run_id) == "failed"
        else:
            over = not ti.get_dr_count(dag_id=stage.dag_id, states=["running", "queued"])
        late = datetime.now(UTC) >= self._deadline(context)
        failure = diagnose(
            given,
            stage,
            paused=ti.get_dag(stage.dag_id).is_paused,
            over=over,
            late=str(self.max_wait) if late else None,
        )
        if failure is not None:
            ti.xcom_push(FAILURE, asdict(failure))
            raise AirflowFailException(failure.message)
