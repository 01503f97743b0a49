"""A run record as the pipeline makes them, shared by the tests and by the processes they kill."""

import hashlib

from bentley.tracking.records import DatasetRecord, RunRecord


def record(claim="batch:1", **changes):
    fields = {
        "experiment": "bentley-test",
        "name": claim.replace(":", "-"),
        "claim": claim,
        "started_ms": 1_700_000_000_000,
        "ended_ms": 1_700_000_060_000,
        "params": {"symbols": "BTCUSDT ETHUSDT", "interval": "1h"},
        "metrics": {"rows_read": 2880.0, "freshness_hours": 0.5, "BTCUSDT/volatility": 0.01},
        "tags": {"bentley.origin": "replay"},
        "note": "# batch\n\nall of it",
        "dataset": DatasetRecord(
            name="knime_processed",
            source="mysql://bentley:hush@127.0.0.1:3307/mansa_bot",
            digest=hashlib.sha256(claim.encode()).hexdigest(),
            schema={"open_time": "long", "close": "double"},
            profile={"num_rows": 2880},
        ),
        "artifacts": {
            "report.md": "# report",
            "pictures/a.png": lambda: b"\x89PNG picture",
        },
    }
    return RunRecord(**{**fields, **changes})


def active_runs(client, claim, experiment="bentley-test"):
    found = client.get_experiment_by_name(experiment)
    runs = client.search_runs([found.experiment_id], max_results=500) if found else []
    return [run for run in runs if run.data.tags.get("bentley.claim") == claim]
