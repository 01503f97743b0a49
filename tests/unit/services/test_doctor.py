from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest
from rich.console import Console

from bentley import settings as bentley_settings
from bentley.domain.errors import RetriableError
from bentley.services import doctor, doctor_data, doctor_machine, doctor_tools, homes, trees
from bentley.services.findings import Finding, healthy, tools
from bentley.warehouse.migrate import HEAD
from bentley.warehouse.schema import binance_ohlcv
from bentley.warehouse.warehouse import Warehouse
from contract.airbyte.airbyte_server import CLIENT, CONNECTION, SECRET, AirbyteStandIn
from support import free_port

NOW = 1_800_000_000_000
SERVER_TIME = doctor_tools.exchange.server_time
LISTEN = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def exchange_answers(monkeypatch):
    monkeypatch.setattr(doctor_tools.exchange, "server_time", lambda *_, **__: NOW)
    monkeypatch.setattr(doctor_tools.time, "time", lambda: NOW / 1000)


def load(home: Path, **more):
    ports = {"airflow_port": free_port(), "mlflow_port": free_port()}
    return bentley_settings.load(**({"home": home} | ports | more))


def of(findings, area: str, name: str) -> Finding:
    found = [one for one in findings if (one.area, one.name) == (area, name)]
    assert len(found) == 1, [(one.area, one.name) for one in findings]
    return found[0]


def everything(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file and folder with its time of change and its content."""
    return {
        str(path): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in folder.rglob("*")
    }


def a_bar(**more):
    amounts = dict.fromkeys(
        ("open", "high", "low", "close", "volume", "quote_volume"), "1.00000000"
    ) | dict.fromkeys(("taker_buy_base_volume", "taker_buy_quote_volume"), "0.50000000")
    return {
        "symbol": "BTCUSDT",
        "interval": "1h",
        "open_time": NOW - 7_200_000,
        "close_time": NOW - 3_600_001,
        "trades": 1,
        "is_closed": 1,
        "source": "test",
        "batch_id": 1,
        "updated_at": 0,
        **amounts,
        **more,
    }


def test_a_fresh_home_is_healthy_embedded_and_stays_unmade(tmp_path):
    home = tmp_path / "home"
    found = doctor.examine(load(home))
    assert healthy(found), [one for one in found if one.state == "problem"]
    assert tools(found)["embedded"] == ["warehouse", "airbyte", "knime", "airflow", "mlflow"]
    assert tools(found)["real"] == ["exchange"]
    assert not home.exists()


def test_nothing_is_altered_not_even_beside_a_database(tmp_path):
    settings = load(tmp_path)
    with Warehouse.open(settings) as warehouse, warehouse.writing() as connection:
        connection.execute(binance_ohlcv.insert(), [a_bar()])
    for name in ("airflow/airflow.db", "replay/airflow/airflow.db", "mlflow/mlflow.db"):
        (tmp_path / name).parent.mkdir(parents=True)
        with closing(sqlite3.connect(tmp_path / name)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("CREATE TABLE alembic_version (version_num TEXT)")
            database.commit()
    before = everything(tmp_path)
    doctor.examine(settings)
    assert everything(tmp_path) == before


def test_a_warehouse_in_use_is_read_with_what_its_log_holds(tmp_path):
    settings = load(tmp_path)
    with Warehouse.open(settings) as warehouse:
        with warehouse.writing() as connection:
            connection.execute(
                binance_ohlcv.insert(),
                [a_bar(), a_bar(open_time=NOW, close_time=NOW + 1, is_closed=0)],
            )
        assert (tmp_path / "mansa_bot.db-wal").stat().st_size > 0
        found = of(doctor_data.warehouses(settings, now=NOW), "warehouse", "warehouse")
    assert found.state == "embedded"
    assert f"schema {HEAD}, origin exchange" in found.detail
    assert "2 bars in 1 series" in found.detail
    assert "2027-01-15T06:59:59.999Z, 1.0 h ago by the exchange's clock" in found.detail


def test_an_empty_an_older_and_a_newer_database_are_told_apart(tmp_path):
    settings = load(tmp_path)
    file = tmp_path / "mansa_bot.db"
    seen = []
    for version in (None, "0000", "9999"):
        with closing(sqlite3.connect(file)) as database:
            database.execute("DROP TABLE IF EXISTS alembic_version")
            if version is not None:
                database.execute("CREATE TABLE alembic_version (version_num TEXT)")
                database.execute("INSERT INTO alembic_version VALUES (?)", [version])
            database.commit()
        seen += list(doctor_data.warehouses(settings, now=None))
    assert [one.state for one in seen] == ["embedded", "warning", "problem"]
    assert "migrates" in seen[1].remedy
    assert "newer" in seen[2].detail


def test_a_warehouse_of_another_origin_is_a_problem(tmp_path):
    home, replayed = tmp_path / "home", tmp_path / "replayed"
    Warehouse.open(load(replayed, origin="replay:x")).close()
    found = of(doctor_data.warehouses(load(replayed), now=None), "warehouse", "replay")
    assert found.state == "embedded"
    home.mkdir()
    (replayed / "replay" / "mansa_bot.db").rename(home / "mansa_bot.db")
    found = of(doctor_data.warehouses(load(home), now=None), "warehouse", "warehouse")
    assert found.state == "problem"
    assert "replay:x" in found.detail


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("mansa_bot.db", "warehouse"),
        ("airflow/airflow.db", "airflow"),
        ("mlflow/mlflow.db", "mlflow"),
    ],
)
@pytest.mark.parametrize("damage", ["header", "cut", "middle"])
def test_a_broken_file_is_a_problem_with_its_name_and_a_remedy(tmp_path, name, area, damage):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("CREATE TABLE rows (content TEXT)")
        database.executemany("INSERT INTO rows VALUES (?)", [["x" * 2000]] * 50)
        database.commit()
    content = file.read_bytes()
    damaged = {
        "header": b"no database" + content,
        "cut": content[:20_000],
        "middle": content[:20_480] + b"\xff" * 4096 + content[24_576:],
    }
    file.write_bytes(damaged[damage])
    broken = [one for one in doctor.examine(load(tmp_path)) if one.state == "problem"]
    assert [one.area for one in broken] == [area]
    assert str(file) in broken[0].detail
    assert "move" in broken[0].remedy


def test_a_foreign_airflow_database_is_a_problem_and_an_older_one_is_migrated(tmp_path):
    head, known = doctor_data.airflow_db.installed_revisions()
    states = []
    for revision in ("ffffffffffff", min(known - {head}), head):
        home = tmp_path / revision
        (home / "airflow").mkdir(parents=True)
        with closing(sqlite3.connect(home / "airflow" / "airflow.db")) as database:
            database.execute("CREATE TABLE alembic_version (version_num TEXT)")
            database.execute("INSERT INTO alembic_version VALUES (?)", [revision])
            database.commit()
        states += [one.state for one in doctor_data.airflow_databases(load(home))]
    assert states == ["problem", "warning", "embedded"]


def test_a_server_is_real_and_its_password_is_nowhere(tmp_path, mariadb):
    settings = load(tmp_path, warehouse_url=mariadb.database())
    empty = doctor.examine(settings)
    Warehouse.open(settings).close()
    found = doctor.examine(settings)
    assert "empty" in of(empty, "warehouse", "warehouse").detail
    assert of(found, "warehouse", "warehouse").state == "ok"
    assert "MariaDB" in of(found, "warehouse", "warehouse server").detail
    assert "warehouse" in tools(found)["real"]
    assert "pw-7" not in json.dumps(doctor.to_dict(found))


def test_a_server_that_is_away_or_refuses_is_a_problem_without_its_password(tmp_path, mariadb):
    away = f"mysql+pymysql://bentley:s3cret@127.0.0.1:{free_port()}/mansa_bot"
    refusing = mariadb.database().replace("pw-7", "s3cret")
    for address in (away, refusing):
        found = doctor.examine(load(tmp_path, warehouse_url=address))
        one = of(found, "warehouse", "warehouse")
        assert one.state == "problem"
        assert "BENTLEY_WAREHOUSE_URL" in one.remedy
        assert tools(found)["unusable"] == ["warehouse"]
        assert "s3cret" not in json.dumps(doctor.to_dict(found))


@pytest.mark.parametrize("address", ["not an address", "oracle://x:s3cret@y/z"])
def test_an_address_that_is_none_is_a_problem(tmp_path, address):
    found = doctor.examine(load(tmp_path, warehouse_url=address))
    assert of(found, "warehouse", "warehouse").state == "problem"
    assert "s3cret" not in json.dumps(doctor.to_dict(found))


def test_settings_say_where_they_come_from_and_hide_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("BENTLEY_SYMBOLS", "BTCUSDT,ETHUSDT")
    monkeypatch.setenv("BENTLEY_SYMBOL", "BTCUSDT")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@127.0.0.1:1")
    monkeypatch.setenv(trees.RUN_HOME, "x")
    Path(".env").write_text("BENTLEY_WAREHOUSE_URL=sqlite:///s3cret.db\nBENTLEY_SYMBOLS=X\n")
    found = list(doctor_machine.settings(load(tmp_path)))
    said = {(one.name, one.detail) for one in found}
    assert ("environment", "BENTLEY_SYMBOLS=BTCUSDT,ETHUSDT") in said
    assert ("environment", "MLFLOW_TRACKING_URI=http://127.0.0.1:1") in said
    assert (".env", "BENTLEY_WAREHOUSE_URL=(set, not shown)") in said
    assert ("command line", f"BENTLEY_HOME={tmp_path}") in said
    assert "BENTLEY_INTERVALS=1h" in of(found, "settings", "default").detail
    assert "BENTLEY_SYMBOLS" not in of(found, "settings", "default").detail
    assert "KNIME_EXECUTABLE" in of(found, "settings", "not set").detail
    unknown = of(found, "settings", "unknown")
    assert unknown.state == "warning"
    assert unknown.detail.startswith("BENTLEY_SYMBOL:")
    assert "s3cret" not in json.dumps(doctor.to_dict(found))


def test_a_port_is_free_ours_or_somebody_elses(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as listener:
        port = int(listener.stdout.readline())
        settings = load(tmp_path, airflow_port=port)
        other = of(doctor_machine.ports(settings, None), "ports", "airflow")
        session = {listener.pid: psutil.Process(listener.pid).create_time()}
        holder = homes.Holder(1, session)
        ours = of(doctor_machine.ports(settings, holder), "ports", "airflow")
        free = of(doctor_machine.ports(settings, None), "ports", "mlflow")
        listener.communicate()
    assert other.state == "problem"
    assert f"(pid {listener.pid})" in other.detail
    assert "BENTLEY_AIRFLOW_PORT" in other.remedy
    assert (ours.state, free.state) == ("ok", "ok")
    assert "our own run's" in ours.detail
    both = load(tmp_path, airflow_port=free_port())
    both = both.model_copy(update={"mlflow_port": both.airflow_port})
    assert of(doctor_machine.ports(both, None), "ports", "mlflow").state == "problem"
    elsewhere = load(tmp_path, mlflow_tracking_uri="http://127.0.0.1:1")
    assert [one.name for one in doctor_machine.ports(elsewhere, None)] == ["airflow"]


def test_a_run_is_found_by_what_it_wrote_and_a_dead_or_reused_pid_is_none(tmp_path):
    settings = load(tmp_path)
    note = tmp_path / ".supervisor"
    assert homes.holder(settings.home) is None
    note.write_text(json.dumps({"pid": os.getpid(), "sessions": {"7": 1.5}}))
    held = homes.holder(settings.home)
    assert held == homes.Holder(os.getpid(), {7: 1.5})
    found = list(doctor_machine.home(settings, held))
    assert f"pid {os.getpid()}" in of(found, "home", "run").detail
    os.utime(note, (1, 1))  # written long before this process began: the pid is used again
    assert homes.holder(settings.home) is None
    for text in ("", "[]", "no json", '{"pid": "x"}', '{"pid": 4000000}'):
        note.write_text(text)
        assert homes.holder(settings.home) is None


def test_processes_that_a_killed_run_left_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_machine.trees, "marked", lambda *_: {psutil.Process(): {"x": "y"}})
    left = of(doctor_machine.home(load(tmp_path), None), "home", "run")
    assert left.state == "warning"
    assert str(os.getpid()) in left.detail


def test_a_full_disk_and_a_home_that_cannot_be_written_are_problems(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    found = list(doctor_machine.home(load(tmp_path / "file" / "home"), None))
    assert of(found, "home", "folder").state == "problem"
    for free, state in ((10**8, "problem"), (10**9, "warning"), (10**10, "ok")):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(doctor_machine.shutil, "disk_usage", lambda _, usage=usage: usage)
        found = list(doctor_machine.home(load(tmp_path), None))
        assert of(found, "home", "disk").state == state


def test_packages_are_compared_with_the_pins_that_apply_here(tmp_path, monkeypatch):
    lock = tmp_path / "requirements.lock"
    monkeypatch.setattr(doctor_machine, "LOCK", lock)
    version = doctor_machine.metadata.version("polars")

    def verdict(text: str) -> Finding:
        lock.write_text(text)
        return of(doctor_machine.python(), "versions", "lock")

    good = f"polars=={version} \\\n    --hash=sha256:00\n    # via x==1\n"
    assert verdict(good).state == "ok"
    assert verdict(good + "nosuch==1 ; sys_platform == 'nowhere' \\\n").state == "ok"
    other = verdict(good + "Rich==0.1 \\\n")
    assert (other.state, other.remedy) == ("warning", "run make clean setup")
    assert other.detail.startswith("Rich is ")
    assert other.detail.endswith(", not 0.1")
    missing = verdict(good + "nosuch==1\n")
    assert (missing.state, missing.detail) == ("problem", "missing: nosuch")
    lock.unlink()
    assert of(doctor_machine.python(), "versions", "lock").state == "warning"


def test_an_old_python_is_a_problem(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    assert of(doctor_machine.python(), "versions", "python").state == "problem"


def test_an_exchange_out_of_reach_matters_only_where_it_was_named(tmp_path, monkeypatch):
    def refuse(url, **_):
        msg = f"the exchange at {url} can't be reached"
        raise RetriableError(msg)

    monkeypatch.setattr(doctor_tools.exchange, "server_time", refuse)
    settings = load(tmp_path)
    now, [found] = doctor_tools.exchanges(settings, settings)
    assert (now, found.state) == (None, "warning")
    monkeypatch.setattr(doctor_tools.exchange, "server_time", SERVER_TIME)
    named = load(tmp_path, exchange_url="http://me:s3cret@127.0.0.1:1")
    _, [found] = doctor_tools.exchanges(named, named)
    assert found.state == "problem"
    assert "s3cret" not in found.detail


@pytest.mark.parametrize(
    ("ahead", "said", "state"),
    [
        (0.5, "0.5 s behind", "ok"),
        (100, "100.0 s behind", "warning"),
        (-7_200, "2 hours ahead of", "warning"),
        (864_000, "10 days behind", "warning"),
    ],
)
def test_a_clock_that_is_off_is_a_warning(tmp_path, monkeypatch, ahead, said, state):
    monkeypatch.setattr(doctor_tools.time, "time", lambda: NOW / 1000 + ahead)
    settings = load(tmp_path)
    _, found = doctor_tools.exchanges(settings, settings)
    clock = of(found, "exchange", "clock")
    assert clock.state == state
    assert said in clock.detail
    assert tools(found)["real"] == ["exchange"]


def test_the_replay_of_a_run_that_is_up_is_embedded(tmp_path):
    settings = load(tmp_path)
    (tmp_path / ".supervisor").write_text(json.dumps({"pid": os.getpid()}))
    (tmp_path / "run.json").write_text(
        json.dumps({"origin": "replay:x", "exchange_url": "http://127.0.0.1:1"})
    )
    found = of(doctor.examine(settings), "exchange", "replay")
    assert found.state == "embedded"
    assert "replay:x" in found.detail
    (tmp_path / ".supervisor").unlink()
    assert not [one for one in doctor.examine(settings) if one.name == "replay"]


def test_an_airbyte_server_is_asked(tmp_path):
    with AirbyteStandIn() as stand_in:
        given = load(
            tmp_path,
            airbyte_connection_id=CONNECTION,
            airbyte_api_url=stand_in.url,
            airbyte_client_id=CLIENT,
            airbyte_client_secret=SECRET,
        )
        server = of(doctor_tools.airbyte(given), "airbyte", "server")
        assert (server.state, CONNECTION in server.detail) == ("ok", True)
        assert tools([server])["real"] == ["airbyte"]
        wrong = given.model_copy(update={"airbyte_client_secret": None})
        server = of(doctor_tools.airbyte(wrong), "airbyte", "server")
        assert (server.state, "AIRBYTE_CLIENT_SECRET" in server.detail) == ("problem", True)


def test_a_connector_without_its_manifest_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_tools, "CONNECTOR", tmp_path)
    found = of(doctor_tools.airbyte(load(tmp_path)), "airbyte", "connector")
    assert (found.state, "manifest.yaml" in found.detail) == ("problem", True)


def test_knime_needs_a_launcher_and_a_server(tmp_path):
    launcher = tmp_path / "knime"
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)
    server = "mysql+pymysql://u:s3cret@127.0.0.1:1/mansa_bot"
    wrong = of(doctor_tools.knime(load(tmp_path, knime_executable=launcher)), "knime", "launcher")
    assert wrong.state == "problem"
    assert "BENTLEY_WAREHOUSE_URL" in wrong.detail
    none = load(tmp_path, knime_executable=tmp_path / "nothing", warehouse_url=server)
    assert of(doctor_tools.knime(none), "knime", "launcher").state == "problem"
    right = load(tmp_path, knime_executable=launcher, warehouse_url=server)
    found = of(doctor_tools.knime(right), "knime", "launcher")
    assert (found.state, str(launcher) in found.detail) == ("ok", True)
    assert "s3cret" not in found.detail


def test_a_workflow_that_the_engine_cannot_run_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor_tools, "WORKFLOW", tmp_path / "no.knwf")
    assert of(doctor_tools.knime(load(tmp_path)), "knime", "workflow").state == "problem"


def test_sources_of_stocks_and_what_they_lack(tmp_path):
    (none,) = doctor_tools.stocks(bentley_settings.load(home=tmp_path))
    assert (none.state, none.detail) == ("ok", "none: their DAGs wait, paused")
    given = bentley_settings.load(home=tmp_path, tickers="AAPL SPY", tiingo_api_key="k-7")
    found = {one.name: (one.state, one.detail) for one in doctor_tools.stocks(given)}
    assert found["tickers"] == ("ok", "AAPL, SPY")
    assert found["tiingo"] == ("ok", "can be asked")
    assert found["polygon"] == ("warning", "is skipped: POLYGON_API_KEY is not set")
    assert found["yahoo"] == ("ok", "can be asked")


def test_an_mlflow_server_answers_or_is_a_problem(tmp_path, monkeypatch):
    def answered(uri: str, status: int | None) -> Finding:
        def handle(request: httpx.Request) -> httpx.Response:
            if status is None:
                raise httpx.ConnectError(uri, request=request)
            return httpx.Response(status if request.url.path == "/health" else 404)

        client = httpx.Client
        monkeypatch.setattr(
            doctor_tools.httpx,
            "Client",
            lambda **_: client(transport=httpx.MockTransport(handle)),
        )
        try:
            return of(
                doctor_tools.mlflow(load(tmp_path, mlflow_tracking_uri=uri)), "mlflow", "server"
            )
        finally:
            monkeypatch.setattr(doctor_tools.httpx, "Client", client)

    uri = "http://me:s3cret@127.0.0.1:5000"
    assert answered(uri, 200).state == "ok"
    assert answered(uri, 500).state == "problem"
    gone = answered(uri, None)
    assert gone.state == "problem"
    assert "s3cret" not in gone.detail
    assert answered("file:/tmp/mlruns", 200).state == "problem"


def test_the_database_of_our_own_mlflow_server_is_looked_at(tmp_path, mariadb):
    def seen(address: str) -> Finding:
        settings = load(tmp_path, mlflow_database_url=address)
        return of(doctor_data.mlflow_database(settings), "mlflow", "database")

    address = mariadb.database()
    assert (seen(address).state, "0 runs" in seen(address).detail) == ("ok", True)
    wrong = address.replace("pw-7", "s3cret")
    for given in (wrong, "not an address", "nosuch://u:s3cret@h/d"):
        one = seen(given)
        assert one.state == "problem", given
        assert "BENTLEY_WAREHOUSE_URL" not in one.detail + one.remedy
        assert "s3cret" not in one.detail + one.remedy
    assert "pw-7" not in seen(address).detail


def test_the_table_fits_80_columns_and_repeats_every_word(tmp_path):
    findings = [
        *doctor.examine(load(tmp_path / "a-folder-with-a-long-name" / "and-another-one")),
        Finding("home", "disk", "problem", "x " * 100, "do [this]"),
    ]
    screen = Console(width=80, file=io.StringIO(), highlight=False)
    screen.print(doctor.table(findings))
    text = screen.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "-> do [this]" in text
    assert "embedded: warehouse, airbyte, knime, airflow, mlflow" in text
    assert text.rstrip().endswith("1 problem")
    plain = "".join(text.split())
    for one in findings:
        assert one.area in plain


def test_the_document_counts_and_lists():
    findings = [
        Finding("a", "b", "ok", "c"),
        Finding("exchange", "d", "warning", "e", "f"),
        Finding("g", "h", "problem", "i", "j"),
    ]
    document = doctor.to_dict(findings)
    assert (document["healthy"], document["problems"], document["warnings"]) == (False, 1, 1)
    assert document["unusable"] == ["exchange"]
    assert document["findings"][1]["remedy"] == "f"
    assert json.loads(json.dumps(document)) == document
