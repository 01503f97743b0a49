"""Binance OHLCV through Airbyte into `mysql://mansa_bot/binance_ohlcv`, every hour."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, task
from assets import BINANCE_OHLCV
from bentley_tasks import (
    BACKFILL_PARAMS,
    PATIENT,
    announcer,
    from_its_next_tick,
    history_wanted,
    note_report,
    pipeline_runs,
    run_link,
)


@dag(
    dag_id="airbyte_sync_dag",
    schedule="@hourly",
    catchup=False,
    max_active_runs=1,
    default_args=PATIENT | {"owner": "airflow"},
    tags=["bentley", "ingest"],
    doc_md=__doc__,
    params={
        name: Param(None, type=["null", "string"], description=said)
        for name, said in BACKFILL_PARAMS.items()
    },
)
def airbyte_sync_dag() -> None:
    """Sync, then announce what is new."""

    @task
    def sync(*, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
        from bentley import settings  # noqa: PLC0415

        history = history_wanted(params)
        given = settings.load(**history)
        if history:
            from bentley.stages.backfill import backfill as run  # noqa: PLC0415
        else:
            from bentley.stages.ingest import sync as run  # noqa: PLC0415
        report = run(given, pipeline_runs=pipeline_runs(dag_run), dag_run=run_link(dag_run))
        note_report(given, dag_run, report)
        return report.to_dict()

    sync() >> announcer(BINANCE_OHLCV, "process")()


from_its_next_tick(airbyte_sync_dag())
