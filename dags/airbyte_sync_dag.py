"""Binance OHLCV through Airbyte into `mysql://mansa_bot/binance_ohlcv`, every hour."""

from __future__ import annotations

from airflow.sdk import Param, dag
from assets import BINANCE_OHLCV
from bentley_operators import SyncBars
from bentley_tasks import BACKFILL_PARAMS, PATIENT, announcer, from_its_next_tick


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
    SyncBars(task_id="sync") >> announcer(BINANCE_OHLCV, "process")()


from_its_next_tick(airbyte_sync_dag())
