"""Starts the chain, follows it to its end through the ledger, verifies it, and reports."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import dag, task
from bentley_operators import FollowChain
from bentley_tasks import DEFAULTS, failure_before, from_its_next_tick, run_link

_PIPELINE_RUN = "{{ dag_run.run_id }}"
_SYNC_RUN = "master__{{ dag_run.run_id }}"


@dag(
    dag_id="bentley_master_orchestration",
    schedule="@daily",
    catchup=False,
    max_active_runs=4,
    default_args=DEFAULTS | {"owner": "bentley-bot"},
    tags=["bentley", "orchestration"],
    doc_md=__doc__,
)
def bentley_master_orchestration() -> None:
    """Start, follow, verify."""
    start = TriggerDagRunOperator(
        task_id="start",
        trigger_dag_id="airbyte_sync_dag",
        trigger_run_id=_SYNC_RUN,
        conf={"pipeline_run": _PIPELINE_RUN},
        skip_when_already_exists=True,
    )
    follow = FollowChain(
        task_id="follow",
        pipeline_run=_PIPELINE_RUN,
        sync_run_id=_SYNC_RUN,
        max_wait=timedelta(minutes=float(os.environ.get("BENTLEY_STAGE_TIMEOUT_MINUTES", "60"))),
        trigger_rule="none_failed",
    )

    # Always: a run that didn't get to its end is reported, too, before it fails with its reason.
    @task(trigger_rule="all_done")
    def verify(*, dag_run: Any = None, ti: Any = None) -> None:
        from bentley import settings  # noqa: PLC0415 - not needed to parse a DAG
        from bentley.services.airflow_note import set_note  # noqa: PLC0415
        from bentley.stages import orchestrate  # noqa: PLC0415

        found = settings.load()
        run = {
            "pipeline_run": dag_run.run_id,
            "dag_run": run_link(dag_run),
            "attempt": ti.try_number,
        }
        failure = failure_before(ti, dag_run, ["start", "follow"])
        if failure is None:
            report = orchestrate.verify_and_report(found, **run)
        else:
            report = orchestrate.report_failure(found, **run, failure=failure)
        set_note(found, dag_run.dag_id, dag_run.run_id, report["note"])
        ti.xcom_push("report", report)
        orchestrate.require(report)

    start >> follow >> verify()


from_its_next_tick(bentley_master_orchestration())
