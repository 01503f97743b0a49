"""What the DAGs of the chain share: defaults, run ids, and the task that announces news."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, CronTriggerTimetable, task
from airflow.sdk.exceptions import AirflowSkipException
from bentley_retry import BentleyRetryPolicy

DEFAULTS: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=20),
    "execution_timeout": timedelta(hours=2),
    "retry_policy": BentleyRetryPolicy(),
}
"""A constant delay: a consumer that waits longer each time misses its two minutes."""

FAILURE = "failure"
"""The XCom by which a task says why the run can't go on."""

PATIENT: dict[str, Any] = DEFAULTS | {
    "retries": 5,
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": timedelta(minutes=5),
}
"""For what depends on the exchange, whose outages last minutes: ten of them at the least."""

BACKFILL_PARAMS = {
    "backfill_since": "Load history from the exchange's archives instead of a sync, from this time "
    "on (UTC, like 2017-08-17)",
    "backfill_until": "End of that history, exclusive; all that is published by default",
    "backfill_symbols": "Symbols, like BTCUSDT ETHUSDT; the settings' by default",
    "backfill_intervals": "Bar intervals, like 1m; the settings' by default",
}
"""The form of a run by hand that loads history."""

_LONGEST_RUN_ID = 250


def from_its_next_tick(dag: Any) -> None:
    """Let a schedule begin with its next tick.

    Airflow would also run the tick that has just passed (for a tenth of the interval), as soon
    as the DAG is unpaused: beside the run for whose sake it is unpaused, and ahead of it.
    """
    nothing = timedelta(milliseconds=1)  # a database may give back 0.0 as 0, which reads as False
    dag.timetable = CronTriggerTimetable(dag.schedule, timezone="UTC", run_immediately=nothing)


def pipeline_runs(dag_run: Any) -> list[str]:
    """Read the id under which the master follows a run, where it started this one."""
    from bentley.domain.errors import ConfigurationError  # noqa: PLC0415 - not needed to parse

    given = (dag_run.conf or {}).get("pipeline_run")
    if given is None:
        return []
    if not isinstance(given, str) or not 0 < len(given) <= _LONGEST_RUN_ID:
        msg = f"conf.pipeline_run {given!r} is not the id of a run (1 to 250 characters)"
        raise ConfigurationError(msg)
    return [given]


def history_wanted(params: Any) -> dict[str, str]:
    """Read the form of a run as settings of a backfill; empty where a sync is wanted."""
    from bentley.domain.errors import ConfigurationError  # noqa: PLC0415 - not needed to parse

    given = {name: value for name in BACKFILL_PARAMS if (value := params.get(name))}
    if given and "backfill_since" not in given:
        msg = (
            f"{', '.join(given)} is given without backfill_since: from where on is history wanted?"
        )
        raise ConfigurationError(msg)
    return {name.removeprefix("backfill_"): value for name, value in given.items()}


def run_link(dag_run: Any) -> str:
    """Name an Airflow run so that its page can be found from it."""
    return f"{dag_run.dag_id}/{dag_run.run_id}"


def note_report(settings: Any, dag_run: Any, report: Any) -> None:
    """Put a stage's counts, its origin and its MLflow runs on the page of the Airflow run."""
    from bentley.services.airflow_note import set_note  # noqa: PLC0415 - not needed to parse a DAG

    lines = [f"origin: {report.origin} · {report.status}: {report.summary}"]
    lines += [failure["message"] for failure in report.failures]
    lines += [f"rejected: {' '.join(filter(None, one.values()))}" for one in report.rejects]
    lines += [run["url"] for run in report.details.get("runs", ())]
    set_note(settings, dag_run.dag_id, dag_run.run_id, "\n\n".join(lines))


def failure_before(ti: Any, dag_run: Any, task_ids: list[str]) -> Any:
    """Read why a task that this one follows has failed; None where all of them did their work."""
    from bentley.stages.follow import Failure  # noqa: PLC0415 - not needed to parse a DAG

    states = ti.get_task_states(
        dag_id=dag_run.dag_id, run_ids=[dag_run.run_id], task_ids=task_ids
    ).get(dag_run.run_id, {})
    failed = [task_id for task_id in task_ids if states.get(task_id) == "failed"]
    if not failed:
        return None
    told = ti.xcom_pull(task_ids=failed[0], key=FAILURE)
    if told is not None:
        return Failure(**told)
    step = "see its log and mend that, then trigger the master again"
    return Failure(f"the task {failed[0]} of {dag_run.dag_id}", "failed", step)


def announcer(asset: Asset, consumer: str) -> Any:
    """Make the task that emits `asset` while the ledger holds batches for `consumer`.

    It asks the ledger and not the task before it: news of a run that died in between, or of a
    command beside Airflow, is announced all the same.
    """

    @task(task_id="announce", outlets=[asset])
    def announce(*, outlet_events: Any = None) -> dict[str, Any]:
        from bentley import settings  # noqa: PLC0415 - not needed to parse a DAG
        from bentley.stages.pending import announcement  # noqa: PLC0415

        news = announcement(settings.load(), consumer)
        if news is None:
            msg = f"nothing new for {consumer}: no event"
            raise AirflowSkipException(msg)
        outlet_events[asset].extra = news
        return news

    return announce
