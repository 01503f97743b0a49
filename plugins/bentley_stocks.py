"""The tasks that the DAGs of stocks share: a source's pull, the consensus, and the report."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from bentley_tasks import failure_before, run_link

OUTCOME = "outcome"
"""The XCom by which a pull says what became of its source, also where it fails."""


def pull_source(
    source: str, *, ti: Any, dag_run: Any, longest_wait: timedelta, stale_before: int | None = None
) -> dict[str, Any]:
    """Pull a source within a task: skipped without its key, failed at once for a longer wait."""
    from bentley import settings  # noqa: PLC0415 - not needed to parse a DAG
    from bentley.domain.errors import BentleyError, RetriableError  # noqa: PLC0415
    from bentley.stages import stock_run  # noqa: PLC0415

    given = settings.load()
    reason = stock_run.reason_to_skip(given, source)
    if reason is not None:
        ti.xcom_push(OUTCOME, stock_run.skipped(source, reason).to_dict())
        msg = f"{source} is skipped: {reason}"
        raise AirflowSkipException(msg)
    try:
        report = stock_run.pull(given, source, dag_run=run_link(dag_run), stale_before=stale_before)
    except BentleyError as error:
        ti.xcom_push(OUTCOME, stock_run.failed(source, error).to_dict())
        wait = error.retry_after if isinstance(error, RetriableError) else None
        if wait is not None and wait > longest_wait.total_seconds():
            msg = f"{error}; that is longer than this run waits, so the next one asks again"
            raise AirflowFailException(msg) from error
        raise
    ti.xcom_push(OUTCOME, stock_run.pulled(source, report).to_dict())
    return report.to_dict()


def consensus_task(asset: Asset) -> Any:
    """Make the task that decides what is new, and emits `asset` for it.

    It runs whatever became of the pulls, for what came before a failure is there. The ledger says
    what there is to announce: also what a command beside Airflow decided, or an attempt that died.
    """

    @task(task_id="consensus", trigger_rule="all_done", outlets=[asset])
    def consensus(*, dag_run: Any = None, outlet_events: Any = None) -> dict[str, Any]:
        from bentley import settings  # noqa: PLC0415
        from bentley.stages import stock_consensus  # noqa: PLC0415

        given = settings.load()
        stock_consensus.decide(given, dag_run=run_link(dag_run))
        news = stock_consensus.announcement(given)
        if news is None:
            msg = "nothing new: no event"
            raise AirflowSkipException(msg)
        outlet_events[asset].extra = news
        return news

    return consensus


def report_task(*, before: list[str], pulls: str) -> Any:
    """Make the last task: it says on the run's page which source gave what.

    It fails where none gave anything. `before` are the tasks without which there is no pull.
    """

    @task(task_id="report", trigger_rule="all_done")
    def report(*, dag_run: Any = None, ti: Any = None) -> list[dict[str, Any]]:
        from bentley import settings  # noqa: PLC0415
        from bentley.services.airflow_note import set_note  # noqa: PLC0415
        from bentley.stages import stock_consensus, stock_run  # noqa: PLC0415

        given = settings.load()
        news = ti.xcom_pull(task_ids="consensus")
        if news is not None:  # its task is over, so the event is out
            stock_consensus.announced(given, news["batch_id"])
        failure = failure_before(ti, dag_run, [*before, "consensus"])
        if failure is not None:
            raise AirflowFailException(failure.message)
        found = ti.xcom_pull(task_ids=pulls, key=OUTCOME)
        told = [found] if isinstance(found, dict) else found or ()
        outcomes = [stock_run.Outcome(**one) for one in told if one is not None]
        names = {one.source for one in outcomes}
        wanted = (ti.xcom_pull(task_ids=before[0]) if before else None) or ()
        outcomes += [stock_run.silent(name) for name in wanted if name not in names]
        set_note(given, dag_run.dag_id, dag_run.run_id, stock_run.table(outcomes))
        stock_run.require_one(outcomes)
        return [one.to_dict() for one in outcomes]

    return report
