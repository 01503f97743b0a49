"""`bentley stocks` as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stock_support import row

BENTLEY = str(Path(sys.executable).parent / "bentley")
PERIOD = ("--since", "2024-01-01", "--until", "2024-01-06")


@pytest.fixture(autouse=True)
def _history(market):
    market.histories["AAPL"] = [row("2024-01-04"), row("2024-01-05")]
    market.messages["AAPL"] = []


@pytest.fixture
def bentley(market, tmp_path):
    def call(*arguments, **env):
        given = os.environ | market.environment() | {"BENTLEY_HOME": str(tmp_path)} | env
        return subprocess.run(
            [BENTLEY, "stocks", *arguments], env=given, capture_output=True, text=True, check=False
        )

    return call


def test_a_pull_shows_what_each_source_gave(bentley):
    done = bentley("pull", "--tickers", "AAPL", *PERIOD, POLYGON_API_KEY="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "polygon        skipped  POLYGON_API_KEY is not set" in done.stdout
    assert "tiingo         pulled   2 read, 2 written" in done.stdout
    assert "stock_consensus (bentley, origin exchange): committed" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_again_reads_from_the_start_on_what_was_corrected_since(bentley, market):
    pull = ("pull", "--tickers", "AAPL", *PERIOD, "--source", "tiingo", "--json")
    assert bentley(*pull).returncode == 0
    market.histories["AAPL"][0] = row("2024-01-04", "99")
    done = bentley(*pull, "--again")
    assert json.loads(done.stdout)["sources"][0]["rows_written"] == 1
    asked = market.requests("tiingo")[-1].query
    assert asked["startDate"] == "2024-01-01"


def test_json_is_one_document(bentley):
    done = bentley("pull", "--tickers", "AAPL", "GONE", *PERIOD, "--source", "tiingo", "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["sources"][0]["state"] == "failed"
    assert "GONE: Tiingo knows no ticker GONE" in found["sources"][0]["said"]
    assert found["consensus"]["rows_written"] == 2


def test_nothing_configured_is_a_wrong_call(bentley):
    done = bentley("pull", "--tickers", "AAPL", "--source", "tiingo", TIINGO_API_KEY="")
    assert done.returncode == 2
    assert "TIINGO_API_KEY is not set" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pull",), "no tickers: name some in BENTLEY_TICKERS"),
        (("pull", "--tickers", "A A!"), "ticker 'A A!' is not written like AAPL"),
        (("pull", "--tickers", "AAPL", "--source", "bloomberg"), "no source 'bloomberg'"),
    ],
)
def test_a_wrong_call_is_named(bentley, arguments, said):
    done = bentley(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_the_consensus_again(bentley):
    assert bentley("pull", "--tickers", "AAPL", *PERIOD).returncode == 0
    done = bentley("consensus", "--json")
    assert json.loads(done.stdout)["batch_id"] is None
    done = bentley("consensus", "--again", "--json", BENTLEY_SOURCES="yahoo,tiingo")
    assert json.loads(done.stdout)["rows_written"] == 2
