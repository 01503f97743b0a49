"""The master's report of a run, on a real MLflow server: of one at its end, and of one that failed."""

import pytest

from archive_support import ms
from bentley.domain.errors import FatalError
from bentley.services.exchange.market import CELLS
from bentley.sources import catalog
from bentley.stages import stock_consensus, stock_pull
from bentley.stages.follow import Failure
from bentley.stages.orchestrate import EXPERIMENT, report_failure, require, verify_and_report
from bentley.stages.process import process
from bentley.stages.track import track
from bentley.tracking.runs import Tracker
from bentley.warehouse.schema import knime_processed
from stock_support import row
from unit.stages.chain_support import HOUR, ingest_batch

RUN = "manual__2024-01-31T12:00:00+00:00"
STEM = "manual__2024-01-31T12_00_00+00_00"
PNG = b"\x89PNG"
LACKING = Failure(
    "knime_cli_workflow", "failed: the disk is full", "mend that, then trigger the master again"
)


@pytest.fixture
def found(configured, mlflow_uri):
    return configured(mlflow_tracking_uri=mlflow_uri)


@pytest.fixture
def rows(exchange):
    now = exchange.now
    served = exchange.exchange.market.klines("BTCUSDT", "1h", now - 24 * HOUR, now, 100, now)
    cells = [name for name in CELLS if name != "ignore"]
    return [
        dict(zip(cells, map(str, row), strict=False)) | {"symbol": "BTCUSDT", "interval": "1h"}
        for row in served
        if row[6] < now
    ]


@pytest.fixture
def ended(found, warehouse, rows, exchange):
    ingest_batch(warehouse, rows, now=exchange.now, runs=[RUN])
    process(found)
    track(found)
    return found


def given(attempt=1):
    return {"pipeline_run": RUN, "dag_run": f"master/{RUN}", "attempt": attempt}


def logged(uri):
    """What MLflow has of the reports of this warehouse's runs, by the address of each."""
    tracker = Tracker(uri)
    with tracker._edge.call("look") as client:
        experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
        runs = client.search_runs([experiment], max_results=1000)
        files = {run.info.run_id: client.list_artifacts(run.info.run_id) for run in runs}
    return {
        tracker.run_url(experiment, run.info.run_id): (
            run,
            {f.path for f in files[run.info.run_id]},
        )
        for run in runs
    }


def test_a_run_at_its_end_is_reported_everywhere(ended, rows, mlflow_uri):
    result = verify_and_report(ended, **given())
    assert result["held"], result["failed"]
    require(result)
    text = (ended.reports / f"{STEM}.md").read_text()
    assert result["report"] == str(ended.reports / f"{STEM}.md")
    assert text.startswith("**every check held**")
    assert f"| knime_cli_workflow | done | {len(rows)} | {len(rows)} | 0 |" in text
    assert f"| BTCUSDT 1h | {len(rows)} |" in text
    assert (ended.reports / f"{STEM}.png").read_bytes().startswith(PNG)
    run, files = logged(mlflow_uri)[result["mlflow"]]
    assert run.info.status == "FINISHED"
    assert (run.data.metrics["bars"], run.data.metrics["checks_failed"]) == (len(rows), 0)
    assert run.data.tags["airflow.run"] == f"master/{RUN}"
    assert {"report.md", "report.png"} <= files
    assert "every check held" in result["note"]
    assert result["mlflow"] in result["note"]
    assert result["stocks"] == []  # there are no tickers
    assert "ticker" not in text
    assert "stocks" not in result["note"]


def test_how_fresh_each_ticker_is_stands_in_the_report_and_in_the_note(
    ended, configured, exchange, market, mlflow_uri, monkeypatch
):
    """By the exchange's clock: the session of Monday, 13 November 2023, is the last that is due."""
    monkeypatch.setattr(stock_pull, "clock", lambda: exchange.now)
    market.histories["AAPL"] = [row("2023-11-07"), row("2023-11-09")]
    stocked = configured(
        mlflow_tracking_uri=mlflow_uri,
        tickers="AAPL MSFT",
        max_failed_share=1,
        **market.settings(),
    )
    pulling = stocked.model_copy(update={"since": ms("2023-11-01")})
    stock_pull.pull(pulling, catalog.named("tiingo"))
    stock_consensus.decide(pulling)
    result = verify_and_report(stocked, **given())
    assert result["held"], result["failed"]
    text = (ended.reports / f"{STEM}.md").read_text()
    assert "| AAPL | 2 | 2023-11-07 | 2023-11-09 | 2 | 1 |" in text.splitlines()
    assert "| MSFT | 0 | - | - | - | - |" in text.splitlines()
    told = "stocks: AAPL to 2023-11-09, 2 sessions behind, MSFT has no price yet"
    assert told in result["note"].splitlines()
    assert [one["ticker"] for one in result["stocks"]] == ["AAPL", "MSFT"]


def test_a_check_that_does_not_hold_is_named_and_the_next_attempt_tells_anew(
    ended, warehouse, mlflow_uri
):
    with warehouse.writing() as connection:
        connection.execute(knime_processed.update().values(close="1.00000001"))
    result = verify_and_report(ended, **given())
    assert "checksums of what was consumed are equal" in result["failed"]
    assert "FAILED checksums" in result["note"]
    assert "**a check did not hold**" in (ended.reports / f"{STEM}.md").read_text()
    with pytest.raises(FatalError, match="checksums"):
        require(result)
    again = verify_and_report(ended, **given(attempt=2))
    assert {result["mlflow"], again["mlflow"]} <= logged(mlflow_uri).keys()
    assert result["mlflow"] != again["mlflow"]


def test_a_run_that_failed_is_reported_with_its_stage_reason_and_next_step(
    found, warehouse, rows, mlflow_uri
):
    ingest_batch(warehouse, rows, runs=[RUN])
    away = found.model_copy(update={"exchange_url": "http://127.0.0.1:9"})  # it isn't asked
    result = report_failure(away, **given(), failure=LACKING)
    with pytest.raises(FatalError) as raised:
        require(result)
    assert str(raised.value) == LACKING.message == result["failed"]
    text = (found.reports / f"{STEM}.md").read_text()
    for told in (text, result["note"]):
        assert "**knime_cli_workflow failed: the disk is full**" in told
        assert "Next step: mend that, then trigger the master again" in told
        assert "origin: exchange" in told
    assert f"| airbyte_sync_dag | done | {len(rows)} |" in text
    assert "| knime_cli_workflow | waiting | 0 |" in text
    assert (found.reports / f"{STEM}.png").read_bytes().startswith(PNG)
    run, files = logged(mlflow_uri)[result["mlflow"]]
    assert run.data.metrics["ingest_rows_written"] == len(rows)
    assert {"report.md", "report.png"} <= files


def test_where_mlflow_is_what_failed_the_report_is_in_the_file(found):
    away = found.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"})
    result = report_failure(away, **given(), failure=LACKING)
    assert result["mlflow"] is None
    assert result["report"] in result["note"]
    assert "the disk is full" in (found.reports / f"{STEM}.md").read_text()
