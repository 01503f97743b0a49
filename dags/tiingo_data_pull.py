"""Tiingo's end-of-day prices of the whole universe, raw and adjusted, every day.

A split or a dividend pulls that ticker's adjusted history again, and adjusted prices are tied to
the raw ones by the events between them.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task
from assets import STOCK_PRICES
from bentley_stocks import consensus_task, pull_source, report_task
from bentley_tasks import PATIENT, from_its_next_tick


@dag(
    dag_id="tiingo_data_pull",
    schedule="@daily",
    catchup=False,
    max_active_runs=1,
    default_args=PATIENT | {"owner": "airflow"},
    tags=["bentley", "stocks"],
    doc_md=__doc__,
)
def tiingo_data_pull() -> None:
    """Pull, decide, report."""

    # Its free plan counts by the hour: a universe of more tickers goes on in the next one.
    @task(execution_timeout=timedelta(hours=6))
    def pull(*, ti: Any = None, dag_run: Any = None) -> dict[str, Any]:
        return pull_source(
            "tiingo",
            ti=ti,
            dag_run=dag_run,
            longest_wait=timedelta(hours=2),
            stale_before=int(dag_run.start_date.timestamp() * 1000),
        )

    pull() >> consensus_task(STOCK_PRICES)() >> report_task(before=[], pulls="pull")()


from_its_next_tick(tiingo_data_pull())
