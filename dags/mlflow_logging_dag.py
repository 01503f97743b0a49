"""One MLflow run per processed batch, once the processed data has caught up with the raw."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag
from assets import BINANCE_OHLCV, KNIME_PROCESSED
from bentley_operators import LogToMlflow
from bentley_tasks import DEFAULTS


@dag(
    dag_id="mlflow_logging_dag",
    schedule=[BINANCE_OHLCV, KNIME_PROCESSED],
    max_active_runs=1,
    default_args=DEFAULTS | {"owner": "bentley-bot"},
    tags=["bentley", "track"],
    doc_md=__doc__,
)
def mlflow_logging_dag() -> None:
    """Wait until all is processed, then log."""
    LogToMlflow(task_id="track", max_wait=timedelta(minutes=30))


mlflow_logging_dag()
