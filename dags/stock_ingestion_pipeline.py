"""Stocks from many sources into `mysql://mansa_bot/stock_prices`, every hour.

Each source of the universe is a mapped task of its own: one that fails leaves the others whole,
and one without its key is skipped. Then the consensus of all is decided.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task
from assets import STOCK_PRICES
from bentley_stocks import consensus_task, pull_source, report_task
from bentley_tasks import DEFAULTS, from_its_next_tick


@dag(
    dag_id="stock_ingestion_pipeline",
    schedule="@hourly",
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS | {"owner": "winston"},
    tags=["bentley", "stocks"],
    doc_md=__doc__,
)
def stock_ingestion_pipeline() -> None:
    """List the sources, pull each, decide, report."""

    @task
    def sources() -> list[str]:
        from bentley import settings  # noqa: PLC0415 - not needed to parse a DAG
        from bentley.stages.stock_pull import wanted_tickers  # noqa: PLC0415

        given = settings.load()
        wanted_tickers(given)
        return list(given.sources)

    @task(map_index_template="{{ task.op_kwargs['source'] }}")
    def pull(source: str, *, ti: Any = None, dag_run: Any = None) -> dict[str, Any]:
        return pull_source(source, ti=ti, dag_run=dag_run, longest_wait=timedelta(minutes=5))

    pulls = pull.expand(source=sources())
    pulls >> consensus_task(STOCK_PRICES)() >> report_task(before=["sources"], pulls="pull")()


from_its_next_tick(stock_ingestion_pipeline())
