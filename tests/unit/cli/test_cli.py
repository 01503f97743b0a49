"""The command line: what goes to which stream, and the exit codes that scripts rely on."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from archive_support import line, lines, ms, put
from bentley import cli, output
from bentley.services import airflow_db

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
        (("backfill", "--archive", "https://"), "BENTLEY_ARCHIVE"),
        (("backfill", "--archive", "nowhere"), "nowhere has no data/spot"),
    ],
)
def test_a_wrong_call_is_exit_2_and_names_the_value(bentley, arguments, said):
    done = bentley(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_a_failure_of_the_work_is_exit_1_and_json_stays_clean(bentley):
    done = bentley("sync", "--json", BENTLEY_EXCHANGE_URL="http://user:secret@127.0.0.1:9")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said["kind"] == "RetriableError"
    assert "http://127.0.0.1:9" in said["error"]
    assert done.stderr.splitlines()[-1] == f"bentley: {said['error']}"
    assert "secret" not in done.stdout + done.stderr


def test_what_the_machine_refuses_is_a_line_and_no_traceback(monkeypatch, capsys):
    def full(**_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/picture.png")

    monkeypatch.setattr(cli, "app", full)
    monkeypatch.setattr(cli.structlog, "configure", lambda **_: None)  # it is every test's
    monkeypatch.setattr(sys, "argv", ["bentley", "track", "--json"])
    monkeypatch.setattr(output, "_written", [])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    seen = capsys.readouterr()
    assert "No space left on device: '/tmp/picture.png'" in seen.err
    assert json.loads(seen.out)["kind"] == "FatalError"


def test_a_run_that_is_stopped_before_its_result_says_so_in_json(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        run = subprocess.Popen(
            [str(Path(sys.executable).parent / "bentley"), "run", "--once", "--json"],
            env={**os.environ, "BENTLEY_HOME": str(tmp_path), "BENTLEY_EXCHANGE_URL": address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        silent.accept()[0].close()  # it asks for the time: it is up
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=30)
    assert run.returncode == 130
    assert json.loads(out) == {"error": "stopped by SIGINT", "kind": "Stopped"}
    assert "every process is ended" in err


def test_a_wrong_call_is_one_json_document_too(bentley):
    for arguments in (("sync", "--since", "soon"), ("process", "--nonsense")):
        done = bentley(*arguments, "--json")
        assert done.returncode == 2
        said = json.loads(done.stdout)
        assert said["kind"] == "ConfigurationError"
        assert arguments[-1].strip("-") in said["error"]
        assert done.stderr


@pytest.mark.parametrize("arguments", ["dags trigger --help", "dags -h", "--version", "--json"])
def test_what_follows_airflow_is_airflows(monkeypatch, arguments):
    called = []

    def airflow(argv, **_):
        called.append(argv)
        return subprocess.CompletedProcess(argv, 3)

    monkeypatch.setattr(airflow_db, "migrate", lambda _: False)
    monkeypatch.setattr(subprocess, "run", airflow)
    assert cli.app(["airflow", *arguments.split()], result_action="return_value") == 3
    assert called == [[sys.executable, "-m", "airflow", *arguments.split()]]


def test_a_port_that_is_none_is_not_said_to_be_taken(bentley, tmp_path):
    (tmp_path / "BTCUSDT-1h.csv").write_text("1600002000000,1,1,1,1,1,1600005599999,1,1,1,1,0\n")
    done = bentley("replay-exchange", "--data", str(tmp_path), "--port", "99999")
    assert done.returncode == 2
    assert "99999 is no port" in done.stderr


def test_an_airbyte_server_without_its_credentials_is_a_wrong_configuration(bentley):
    done = bentley("sync", AIRBYTE_CONNECTION_ID="some-connection")
    assert done.returncode == 2
    assert "AIRBYTE_CLIENT_ID and AIRBYTE_CLIENT_SECRET must be set" in done.stderr


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


def test_what_was_rejected_is_told_with_its_reason(bentley, tmp_path):
    root = tmp_path / "archive"
    start = ms("2024-02-01")
    bad = line(start + 3_600_000, volume="-1", open_time=f"{start + 3_600_000}000")
    put(root, "2024-02-01", line(start) + bad + line(start + 7_200_000).strip() + ",more\n")
    load = ("backfill", "--archive", str(root), "--symbols", "BTCUSDT", "--interval", "1h")
    done = bentley(*load)
    assert done.returncode == 0
    assert "1 written, 2 rejected" in done.stdout
    assert "  rejected: BTCUSDT 1h 2024-02-01 01:00: volume -1.00000000 is neg" in done.stdout
    assert "bentley data rejected" in done.stdout
    told = bentley("data", "rejected")
    assert told.returncode == 0
    assert "BTCUSDT 1h 2024-02-01 02:00 (ingest, batch 1)\n  the line has more" in told.stdout
    assert "2 rejected rows (origin exchange)" in told.stdout
    assert "1 above" in bentley("data", "rejected", "--limit", "1").stdout
    assert bentley("data", "rejected", "--symbols", "ETHUSDT").stdout.startswith("0 rejected rows")
    assert "2 rejected rows" in bentley("data", "rejected", "--symbols", "btcusdt").stdout
    assert bentley("data", "rejected", "--interval", "1d").stdout.startswith("0 rejected rows")
    found = json.loads(bentley("data", "rejected", "--batch", "1", "--json").stdout)
    assert found["count"] == 2
    assert found["rows"][0]["content"]["volume"] == "-1"
    for wrong in (("--limit", "0"), ("--limit", "9" * 20), ("--batch", "9" * 20)):
        said = bentley("data", "rejected", *wrong)
        assert (said.returncode, wrong[0] in said.stderr) == (2, True)


def test_a_cell_that_steers_a_terminal_is_shown_as_what_it_is(bentley, tmp_path):
    root = tmp_path / "archive"
    bad = line(ms("2024-02-01"), volume="\x1b[2J" + "7" * 300)
    put(root, "2024-02-01", bad + line(ms("2024-02-01T01:00")))
    load = ("backfill", "--archive", str(root), "--symbols", "BTCUSDT", "--interval", "1h")
    done = bentley(*load)
    assert "volume \ufffd[2J777" in done.stdout
    told = bentley("data", "rejected")
    assert "\x1b" not in done.stdout + told.stdout
    assert all(len(line) <= 80 for line in told.stdout.splitlines())


def test_a_load_with_a_failure_says_so_in_its_first_line(bentley, tmp_path):
    root = tmp_path / "archive"
    put(root, "2024-01", lines("2024-01-01", "2024-02-01"))
    put(root, "2024-02", lines("2024-02-01", "2024-03-01")).write_bytes(b"PK")
    done = bentley("backfill", "--archive", str(root), "--symbols", "BTCUSDT", "--interval", "1h")
    assert done.returncode == 1
    assert ": committed, but 1 failure\n" in done.stdout


def test_the_output_fits_80_columns(bentley):
    done = bentley("process")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_what_could_not_be_asked_is_unknown_and_no_word_of_it_is_lost(bentley, tmp_path):
    root = tmp_path / "archive"
    put(root, "2024-01", lines("2024-01-01", "2024-02-01"))
    bentley("backfill", "--archive", str(root), "--symbols", "BTCUSDT", "--interval", "1h")
    away = {"BENTLEY_EXCHANGE_URL": f"http://127.0.0.1:9/{'long' * 30}"}
    status = bentley("data", "status", **away)
    assert "\nfrom binance-archives: BTCUSDT 1h\n" in status.stdout
    done = bentley("data", "verify", **away)
    assert done.returncode == 1
    assert [said.split()[0] for said in done.stdout.splitlines()[:3]] == ["held", "held", "unknown"]
    assert "long" * 30 in "".join(done.stdout.split())
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    found = json.loads(bentley("data", "verify", "--json", **away).stdout)
    assert found["held"] is None
