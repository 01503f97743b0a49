"""The DAGs of stocks where a key is missing: run by Airflow as a library, each task for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote

import pytest

import market_server
from bentley import settings as bentley_settings
from bentley.services import airflow
from stock_support import row

ROOT = Path(__file__).resolve().parents[2]
STOCKS, TIINGO = "stock_ingestion_pipeline", "tiingo_data_pull"
NO_TIINGO = "TIINGO_API_KEY is not set"
NO_POLYGON = "POLYGON_API_KEY is not set"
KEYLESS = {"TIINGO_API_KEY": "", "POLYGON_API_KEY": ""}
TWO = {"BENTLEY_SOURCES": "tiingo polygon"}
RUN = {
    "dag_id": STOCKS,
    "state": "running",
    "run_type": "manual",
    "run_after": "2026-01-01T00:00:00Z",
}

RUNS = {
    "one has no key and one is refused": (STOCKS, KEYLESS | TWO | {"TIINGO_API_KEY": "old"}),
    "none has a key": (STOCKS, KEYLESS | TWO),
    "the daily one has no key": (TIINGO, KEYLESS),
    "one has no key": (STOCKS, {"POLYGON_API_KEY": ""}),
}
"""The one that gives prices is the last: what is stored is not asked for again."""


@pytest.fixture(scope="module")
def notes():
    """Airflow's API as far as it takes notes, by the id of a run; its port under None."""
    kept = {}

    class Handler(BaseHTTPRequestHandler):
        def reply(self):
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            run_id = unquote(self.path.rpartition("/")[2])
            if self.command == "PATCH":
                kept[run_id] = given["note"]
            content = json.dumps(RUN | {"dag_run_id": run_id, "access_token": "t"}).encode()
            self.send_response(201 if self.command == "POST" else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PATCH = reply  # noqa: N815  the base class's names

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        kept[None] = server.server_port
        yield kept
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def ended(notes, migrated, tmp_path_factory):
    """How each run ended: its state, tasks, outcomes, note and log."""
    home = migrated(tmp_path_factory.mktemp("stocks"))
    with market_server.serve() as market:
        market.histories["AAPL"] = [row("2024-01-02"), row("2024-01-03")]
        given = bentley_settings.load(
            home=home,
            exchange_url="http://127.0.0.1:9",
            tickers="AAPL",
            sources="tiingo polygon yahoo",
            since="2024-01-01",
            until="2024-01-04",
            airflow_port=notes[None],
            **market.settings(),
        )
        done = subprocess.run(
            [
                sys.executable,
                str(Path(__file__).with_name("stocks_script.py")),
                json.dumps(list(RUNS.values())),
            ],
            env=_environment(given, home),
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        asked = {one.api for one in market.asked}
    assert done.returncode == 0, done.stderr[-3000:]
    assert asked == {"tiingo", "yahoo"}
    found, log = [], []
    for line in done.stdout.splitlines():
        log.append(line)
        if line.startswith("{"):
            told = json.loads(line)
            tasks = {(name, at): state for name, at, state in told.pop("tasks")}
            note, said = notes[told.pop("run_id")], "\n".join(log)
            found.append(SimpleNamespace(**told, tasks=tasks, note=note, log=said))
            log.clear()
    return dict(zip(RUNS, found, strict=True))


def _environment(given, home):
    found = airflow.environment(
        home=home, root=ROOT, port=given.airflow_port, extra=given.environment()
    )
    source = [str(ROOT / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return found | {"PYTHONPATH": os.pathsep.join(source)}


def test_a_source_without_its_key_is_skipped_and_the_run_says_so(ended):
    run = ended["one has no key"]
    assert run.state == "success"
    assert [run.tasks["pull", at] for at in range(3)] == ["success", "skipped", "success"]
    assert run.tasks["consensus", -1] == run.tasks["report", -1] == "success"
    assert run.outcomes["polygon"] == ["skipped", NO_POLYGON]
    assert {run.outcomes[name][0] for name in ("tiingo", "yahoo")} == {"pulled"}
    assert f"polygon is skipped: {NO_POLYGON}" in run.log
    assert f"| polygon | skipped | {NO_POLYGON} |" in run.note
    assert "| tiingo | pulled | 2 read, 2 written" in run.note


def test_a_run_in_which_every_source_is_skipped_fails_and_names_each_reason(ended):
    run = ended["none has a key"]
    assert run.state == "failed"
    assert [run.tasks["pull", at] for at in range(2)] == ["skipped", "skipped"]
    assert (run.tasks["consensus", -1], run.tasks["report", -1]) == ("skipped", "failed")
    assert run.outcomes == {"tiingo": ["skipped", NO_TIINGO], "polygon": ["skipped", NO_POLYGON]}
    told = f"tiingo: {NO_TIINGO}; polygon: {NO_POLYGON}"
    assert f"ConfigurationError: no source of stocks is configured ({told})" in run.log
    assert f"| tiingo | skipped | {NO_TIINGO} |" in run.note
    assert f"| polygon | skipped | {NO_POLYGON} |" in run.note


def test_a_daily_pull_without_its_key_fails_and_says_why(ended):
    run = ended["the daily one has no key"]
    assert run.state == "failed"
    assert run.tasks == {
        ("pull", -1): "skipped",
        ("consensus", -1): "skipped",
        ("report", -1): "failed",
    }
    assert f"ConfigurationError: no source of stocks is configured (tiingo: {NO_TIINGO})" in run.log
    assert f"| tiingo | skipped | {NO_TIINGO} |" in run.note


def test_where_one_is_skipped_and_one_fails_both_reasons_are_named(ended):
    run = ended["one has no key and one is refused"]
    assert run.state == "failed"
    assert [run.tasks["pull", at] for at in range(2)] == ["failed", "skipped"]
    assert run.tasks["report", -1] == "failed"
    state, refused = run.outcomes["tiingo"]
    assert (state, run.outcomes["polygon"]) == ("failed", ["skipped", NO_POLYGON])
    assert "its key is refused" in refused
    told = f"tiingo: {refused}; polygon: {NO_POLYGON}"
    assert f"FatalError: no source of stocks gave anything ({told})" in run.log
    assert f"| tiingo | failed | {refused} |" in run.note
