"""The KNIME workflow over new bars into `mysql://mansa_bot/knime_processed`."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, task
from assets import BINANCE_OHLCV, KNIME_PROCESSED
from bentley_tasks import DEFAULTS, announcer, note_report, run_link


@dag(
    dag_id="knime_cli_workflow",
    schedule=[BINANCE_OHLCV],
    max_active_runs=1,
    default_args=DEFAULTS | {"owner": "airflow"},
    tags=["bentley", "process"],
    doc_md=__doc__,
)
def knime_cli_workflow() -> None:
    """Process what is unconsumed, then announce it."""

    @task
    def process(*, dag_run: Any = None) -> dict[str, Any]:
        from bentley import settings  # noqa: PLC0415
        from bentley.stages.process import process as run  # noqa: PLC0415

        given = settings.load()
        report = run(given, dag_run=run_link(dag_run))
        note_report(given, dag_run, report)
        return report.to_dict()

    process() >> announcer(KNIME_PROCESSED, "track")()


knime_cli_workflow()
