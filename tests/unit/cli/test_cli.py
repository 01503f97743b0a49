"""The command line: what goes to which stream, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
WORKFLOW = ROOT / "workflows" / "ohlcv_processing.knwf"


@pytest.fixture
def bentley(tmp_path):
    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).parent / "bentley"), *arguments],
            env={**os.environ, "BENTLEY_HOME": str(tmp_path / "home"), **more},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sync", "--since", "soon"), "'soon' is not a time"),
        (("sync", "--interval", "7h"), "'7h'"),
        (("sync", "--symbols", "BTC/USDT"), "BTC/USDT"),
        (("process", "--nonsense"), "nonsense"),
        (("nonsense",), "nonsense"),
        (("knime", "check", "nowhere.knwf"), "nowhere.knwf"),
        (("replay-exchange", "--data", "nowhere", "--port", "1"), "nowhere"),
    ],
)
def test_a_wrong_call_is_exit_2_and_names_the_value(bentley, arguments, said):
    done = bentley(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_failure_of_the_work_is_exit_1_and_json_stays_clean(bentley):
    done = bentley("sync", "--json", BENTLEY_EXCHANGE_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "http://127.0.0.1:9" in done.stderr.splitlines()[-1]


def test_an_airbyte_server_is_not_pretended(bentley):
    done = bentley("sync", AIRBYTE_CONNECTION_ID="some-connection")
    assert done.returncode == 2
    assert "AIRBYTE_CONNECTION_ID" in done.stderr


def test_nothing_to_process_is_one_json_document(bentley):
    done = bentley("process", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["status"] == "nothing to do"


def test_our_own_workflow_is_supported_whole(bentley):
    done = bentley("knime", "check", str(WORKFLOW), "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["lacks"] == []


def test_a_workflow_variable_of_the_wrong_form_is_named(bentley):
    done = bentley("knime", "run", str(WORKFLOW), "--variable", "symbol")
    assert done.returncode == 2
    assert "'symbol'" in done.stderr


def test_the_output_fits_80_columns(bentley):
    done = bentley("process")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
