"""The DAGs as the public contract names them."""

from __future__ import annotations

OHLCV = "mysql://mansa_bot/binance_ohlcv"
PROCESSED = "mysql://mansa_bot/knime_processed"
STOCKS = "mysql://mansa_bot/stock_prices"
SOURCES_OF_DATA = ("airbyte_sync_dag", "stock_ingestion_pipeline", "tiingo_data_pull")


def test_every_file_imports(described):
    assert described["errors"] == {}


def test_ids_owners_and_schedules(described):
    seen = {dag_id: (dag["owner"], dag["schedule"]) for dag_id, dag in described["dags"].items()}
    assert seen == {
        "airbyte_sync_dag": ("airflow", "@hourly"),
        "knime_cli_workflow": ("airflow", [OHLCV]),
        "mlflow_logging_dag": ("bentley-bot", [OHLCV, PROCESSED]),
        "bentley_master_orchestration": ("bentley-bot", "@daily"),
        "stock_ingestion_pipeline": ("winston", "@hourly"),
        "tiingo_data_pull": ("airflow", "@daily"),
    }


def test_a_schedule_begins_with_its_next_tick(described):
    first = {dag_id: dag["first_run"] for dag_id, dag in described["dags"].items()}
    assert first == {
        "airbyte_sync_dag": "2024-01-01T01:00:00+00:00",
        "bentley_master_orchestration": "2024-01-02T00:00:00+00:00",
        "knime_cli_workflow": None,
        "mlflow_logging_dag": None,
        "stock_ingestion_pipeline": "2024-01-01T01:00:00+00:00",
        "tiingo_data_pull": "2024-01-02T00:00:00+00:00",
    }


def test_who_emits_what(described):
    outlets = {dag_id: dag["outlets"] for dag_id, dag in described["dags"].items()}
    assert outlets == {
        "airbyte_sync_dag": [OHLCV],
        "knime_cli_workflow": [PROCESSED],
        "mlflow_logging_dag": [],
        "bentley_master_orchestration": [],
        "stock_ingestion_pipeline": [STOCKS],
        "tiingo_data_pull": [STOCKS],
    }


def test_a_stage_runs_one_at_a_time_and_is_never_run_for_the_past(described):
    for dag_id in (*SOURCES_OF_DATA, "knime_cli_workflow", "mlflow_logging_dag"):
        assert described["dags"][dag_id]["max_active_runs"] == 1
    assert not any(dag["catchup"] for dag in described["dags"].values())


def test_every_task_is_retried_by_our_policy(described):
    for dag in described["dags"].values():
        assert dag["policies"] == ["BentleyRetryPolicy"]
        assert all(retries >= 1 for retries in dag["retries"].values())


def test_a_retry_never_makes_a_consumer_miss_its_two_minutes(described):
    for dag_id, dag in described["dags"].items():
        if dag_id not in SOURCES_OF_DATA:
            assert {delay for delays in dag["delays"].values() for delay in delays} == {20}


def test_a_sync_outlasts_an_outage_of_ten_minutes(described):
    delays = described["dags"]["airbyte_sync_dag"]["delays"]["sync"]
    for attempt, delay in enumerate(delays):
        assert min(20 * 2**attempt, 300) <= delay <= min(40 * 2**attempt, 300)
    assert sum(delays) >= 600


def test_every_dag_says_what_it_is_for(described):
    assert all(dag["doc"] for dag in described["dags"].values())
