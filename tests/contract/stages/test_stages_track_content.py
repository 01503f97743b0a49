"""What the MLflow run of a batch holds, entry by entry, on a real MLflow server."""

import json
import math
import platform
import re
import statistics
from importlib.metadata import version
from pathlib import Path

import polars as pl
import pytest
from mlflow.store.tracking.rest_store import RestStore

from bentley.stages import measure, run_content
from bentley.stages.ingest import sync
from bentley.stages.process import process
from bentley.stages.track import track
from bentley.tracking import pictures
from bentley.tracking.runs import Tracker
from bentley.warehouse import frames, ledger
from bentley.warehouse.ledger import INGEST, PROCESS, TRACK
from bentley.warehouse.schema import batches as batches_table
from bentley.warehouse.schema import binance_ohlcv, knime_processed
from unit.stages.chain_support import HOUR, START, bar, batches, ingest_batch

PAGE = Path(__file__).resolve().parents[3] / "docs" / "mlflow.md"
GIVEN = [at for at in range(30) if at not in {10, 11}]
REFUSED_BY_INGEST, REFUSED_BY_WORKFLOW = 20, 25
KEPT = [at for at in GIVEN if at not in {REFUSED_BY_INGEST, REFUSED_BY_WORKFLOW}]
CLOSES = {at: 100 + (at * 7) % 11 for at in KEPT}
NOW = START + 31 * HOUR
"""The bar of the hour before is missing still."""

SYNC_RUN = "manual__2026-01-01T00:00:00+00:00"
WRITES = ("log_batch", "log_metric", "log_param", "set_tag")


@pytest.fixture
def found(configured, mlflow_uri):
    return configured(mlflow_tracking_uri=mlflow_uri)


@pytest.fixture
def writes(monkeypatch):
    """Every call that sends values to the server."""
    calls = []

    def counted(name):
        original = getattr(RestStore, name)

        def call(self, *args, **given):
            calls.append(name)
            return original(self, *args, **given)

        return call

    for name in WRITES:
        monkeypatch.setattr(RestStore, name, counted(name))
    return calls


@pytest.fixture
def logged(found, warehouse, writes):
    """The run of a batch with a gap, two rejects and a lag, after an ingest that failed."""
    bad = {"high": "0.00000001"}
    ingest_batch(warehouse, [bar(40, **bad)], now=NOW, error="too many bad rows")
    rows = [bar(at, f"{CLOSES.get(at, 1)}.00000000") for at in GIVEN]
    rows[GIVEN.index(REFUSED_BY_INGEST)] |= bad
    ingested = ingest_batch(warehouse, rows, now=NOW, runs=["run-1"])
    with warehouse.writing() as connection:
        connection.execute(
            batches_table.update()
            .where(batches_table.c.id == ingested)
            .values(dag_run=f"airbyte_sync_dag/{SYNC_RUN}")
        )
        connection.execute(
            binance_ohlcv.update()
            .where(binance_ohlcv.c.open_time == START + REFUSED_BY_WORKFLOW * HOUR)
            .values(high="0.01000000")
        )
    process(found, dag_run="knime_cli_workflow/asset__1")
    links = {"airflow.url": "http://log", "airflow.mlflow_logging_dag": "mlflow_logging_dag/r1"}
    report = track(found, dag_run="mlflow_logging_dag/r1", links=links)
    (run,) = report.details["runs"]
    assert writes == ["log_batch"]
    with Tracker(found.mlflow_tracking_uri)._edge.call("look") as client:
        return client, client.get_run(run["run_id"])


def last(warehouse, stage):
    return batches(warehouse, stage)[-1]


def expected_statistics():
    returns = [math.log(CLOSES[at] / CLOSES[at - 1]) for at in KEPT if at - 1 in CLOSES]
    deviation = statistics.stdev(returns)
    return {
        "return_total": CLOSES[29] / CLOSES[0] - 1,
        "log_return_mean": statistics.fmean(returns),
        "log_return_min": min(returns),
        "log_return_max": max(returns),
        "volatility": deviation,
        "volatility_annual": deviation * math.sqrt(365 * 24),
    }


def test_every_entry_of_a_run_is_what_the_tables_say(logged, found, warehouse):
    """One chain for all: making it costs more than looking at it."""
    client, run = logged
    the_metrics(run.data.metrics, warehouse)
    the_params(run.data.params)
    the_tags_and_the_note(run.data.tags, found, warehouse)
    the_dataset(run, warehouse)
    the_pictures(client, run.info.run_id, warehouse)
    the_times(run.info, warehouse)
    the_page_defines_all(run)


def the_metrics(metrics, warehouse):
    age = 1 + 1 / HOUR
    assert metrics.pop("ingest_seconds") == last(warehouse, INGEST).seconds
    assert metrics.pop("process_seconds") == last(warehouse, PROCESS).seconds
    assert 0 < metrics.pop("track_seconds") <= last(warehouse, TRACK).seconds
    assert metrics == pytest.approx(
        {
            "ingest_rows_read": 28,
            "ingest_rows_written": 27,
            "ingest_rows_rejected": 1,
            "rows_read": 27,
            "rows_written": 26,
            "rows_rejected": 1,
            "gaps": 2,
            "missing_bars": 3,
            "expected_bars": 31,
            "present_bars": 26,
            "quality_score": 26 / 31,
            "freshness_hours": age,
            "BTCUSDT-1h.freshness_hours": age,
            **{f"BTCUSDT-1h.{name}": value for name, value in expected_statistics().items()},
        },
        rel=1e-12,
    )


def the_params(params):
    assert params == {
        "origin": "exchange",
        "symbols": "BTCUSDT",
        "intervals": "1h",
        "first_open": "2020-09-13T12:00:00Z",
        "last_open": "2020-09-14T17:00:00Z",
        "ingest_engine": "test",
        "process_engine": "bentley-knime",
        "bentley_version": version("bentley-budget-bot"),
        "python_version": platform.python_version(),
        "mlflow_version": version("mlflow"),
        "git_commit": run_content._commit(),
    }


def the_tags_and_the_note(tags, found, warehouse):
    base = f"{found.airflow_url}/dags"
    pages = {
        "airbyte_sync_dag": f"{base}/airbyte_sync_dag/runs/{SYNC_RUN}",
        "knime_cli_workflow": f"{base}/knime_cli_workflow/runs/asset__1",
        "mlflow_logging_dag": f"{base}/mlflow_logging_dag/runs/r1",
    }
    processed = last(warehouse, PROCESS)
    note = tags["mlflow.note.content"]
    assert {name: value for name, value in tags.items() if not name.startswith("mlflow.")} == {
        "bentley.claim": f"{warehouse.name}:{processed.id}:{processed.started_at}",
        "bentley.origin": "exchange",
        "bentley.batch": str(processed.id),
        "bentley.track_batch": str(last(warehouse, TRACK).id),
        "bentley.ingest_batches": str(last(warehouse, INGEST).id),
        "bentley.pipeline_runs": "run-1",
        "bentley.warehouse": warehouse.name,
        "airflow.url": "http://log",
        **{f"airflow.{dag_id}": page for dag_id, page in pages.items()},
    }
    row = "| BTCUSDT-1h | 2020-09-13T12:00:00Z | 2020-09-14T17:00:00Z | 26 | 31 | 2 |"
    assert "**26 bars processed, 1 rejected**" in note
    assert row in note
    assert re.findall(r"\]\((.*)\)", note) == list(pages.values())


def the_dataset(run, warehouse):
    processed = last(warehouse, PROCESS)
    (entry,) = run.inputs.dataset_inputs
    assert processed.checksum is not None
    assert (entry.dataset.name, entry.dataset.digest) == (
        "knime_processed", processed.checksum[:36],
    )  # fmt: skip
    assert json.loads(entry.dataset.profile) == {"num_rows": 26, "checksum": processed.checksum}
    columns = json.loads(entry.dataset.schema)["mlflow_colspec"]
    assert [column["name"] for column in columns] == [one.name for one in knime_processed.c]
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "pipeline")]


def the_pictures(client, run_id, warehouse):
    assert [one.path for one in client.list_artifacts(run_id)] == ["pictures"]
    bars = frames.read(warehouse, "BTCUSDT", "1h", table="knime_processed")
    gaps = [(START + 10 * HOUR, START + 12 * HOUR), (START + 20 * HOUR, START + 21 * HOUR)]
    failed, ingested = batches(warehouse, INGEST)
    assert failed.status == ledger.FAILED
    history = pl.DataFrame(
        {
            "ended_ms": [failed.ended_at, ingested.ended_at, last(warehouse, PROCESS).ended_at],
            "freshness_hours": [None, None, None],
            "rows_rejected": [1, 1, 1],
            "rows_written": [0, 27, None],
        }
    )
    expected = {
        "pictures/BTCUSDT-1h.png": pictures.price_volume(
            bars, gaps, symbol="BTCUSDT", interval="1h", origin="exchange"
        ),
        "pictures/freshness-and-rejects.png": pictures.freshness_rejects(history, bound_hours=3.0),
    }
    stored = [one.path for one in client.list_artifacts(run_id, "pictures")]
    assert sorted(stored) == sorted(expected)
    for path, content in expected.items():
        assert Path(client.download_artifacts(run_id, path)).read_bytes() == content, path


def the_times(info, warehouse):
    assert info.run_name == f"batch-{last(warehouse, PROCESS).id}"
    assert info.start_time == last(warehouse, INGEST).started_at
    assert info.end_time == last(warehouse, PROCESS).ended_at


def the_page_defines_all(run):
    page = PAGE.read_text(encoding="utf-8")
    names = {*run.data.metrics, *run.data.params, *run.data.tags}
    for name in sorted(names):
        general = name.replace("BTCUSDT-1h.", "SERIES.")
        if not name.startswith("mlflow.") or name == "mlflow.note.content":
            assert f"`{general}`" in page, name


def test_a_sync_that_was_told_to_end_is_measured_up_to_there(configured, warehouse, exchange):
    end = (exchange.now // HOUR - 24) * HOUR
    found = configured(until=end)
    sync(found)
    process(found)
    parents = batches(warehouse, INGEST)
    assert measure.clock(parents, None) == end < parents[0].exchange_time


def test_an_airflow_run_that_is_tried_again_names_what_it_has_logged(found, warehouse):
    ingest_batch(warehouse, [bar(0)], now=NOW)
    process(found)
    first = track(found, dag_run="mlflow_logging_dag/r1")
    again = track(found, dag_run="mlflow_logging_dag/r1")
    assert again.details == first.details
    assert (again.batch_id, again.rows_written, again.status) == (first.batch_id, 1, "committed")
    assert track(found, dag_run="mlflow_logging_dag/r2").batch_id is None
    assert track(found).batch_id is None
