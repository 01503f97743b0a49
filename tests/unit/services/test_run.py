"""What a run checks before it starts anything, and what it bears while it is up."""

from __future__ import annotations

import json
import os
import socket
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from bentley.domain.errors import BentleyError, ConfigurationError, FatalError, RetriableError
from bentley.services import doctor_machine, run, run_summary
from bentley.services.processes import ProcessGroup
from bentley.services.run import Services, running_settings, services
from bentley.warehouse.warehouse import Warehouse


@pytest.fixture
def given(settings):
    def make(**more):
        with socket.socket() as one, socket.socket() as two:
            for probe in (one, two):
                probe.bind(("127.0.0.1", 0))
            ports = [probe.getsockname()[1] for probe in (one, two)]
        return settings(**{"airflow_port": ports[0], "mlflow_port": ports[1]} | more)

    return make


@pytest.fixture
def started(monkeypatch):
    """The names of the processes that would have been started."""
    names = []
    monkeypatch.setattr(ProcessGroup, "start", lambda _, name, *__, **___: names.append(name))
    return names


def refused(settings) -> str:
    with pytest.raises(BentleyError) as caught, services(settings, say=lambda _: None):
        pass
    return str(caught.value)


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("mansa_bot.db", "restore it from a copy or move it away"),
        ("airflow/airflow.db", "move the file away: it holds Airflow's run history"),
        ("mlflow/mlflow.db", "move the file away"),
    ],
)
def test_a_broken_database_is_named_before_anything_starts(given, started, file, said):
    settings = given()
    path = settings.home / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no database" * 500)
    error = refused(settings)
    assert str(path) in error
    assert said in error
    assert started == []


def test_a_server_out_of_reach_is_named_before_anything_starts(given, started):
    settings = given(warehouse_url="mysql+pymysql://u:secret@127.0.0.1:9/mansa_bot")
    error = refused(settings)
    assert "127.0.0.1:9" in error
    assert "secret" not in error
    assert started == []


def test_a_missing_package_is_named_before_anything_starts(given, started, tmp_path, monkeypatch):
    lock = tmp_path / "requirements.lock"
    lock.write_text("no-such-package==1.0 \\\n")
    monkeypatch.setattr(doctor_machine, "LOCK", lock)
    error = refused(given())
    assert "missing: no-such-package: run make clean setup" in error
    assert started == []


def test_a_refused_run_leaves_the_warehouse_of_the_run_that_is_up(given):
    up = given(origin="replay:up@1")
    Warehouse.open(up).close()
    before = sorted(path.name for path in up.data_home.iterdir())
    with ProcessGroup(home=up.home, logs=up.home / "logs"):
        assert "already running" in refused(given(origin="replay:other@2"))
    assert sorted(path.name for path in up.data_home.iterdir()) == before
    Warehouse.open(up).close()  # still of its origin


def test_a_record_counts_only_while_its_run_is_alive(settings):
    ours = settings()
    ours.home.mkdir()
    (ours.home / "run.json").write_text(
        json.dumps({"origin": "replay:x", "exchange_url": "http://h"})
    )
    assert running_settings(ours) == ours  # left by a run that was killed
    (ours.home / ".supervisor").write_text(json.dumps({"pid": os.getpid()}))
    assert running_settings(ours).origin == "replay:x"


@pytest.fixture
def up(given, monkeypatch):
    """Services whose Airflow answers what a test says."""
    found = Services(given(), SimpleNamespace(check=lambda: None))
    client = SimpleNamespace()

    @contextmanager
    def opened():
        yield client

    monkeypatch.setattr(run.time, "sleep", lambda _: None)
    monkeypatch.setattr(found, "client", opened)
    return found, client


def answering(*answers):
    left = list(answers)

    def answer(*_, **__):
        found = left.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    return answer


def test_passing_errors_do_not_end_a_run(up, monkeypatch):
    found, client = up
    busy, done = RetriableError("503"), SimpleNamespace(finished=True)
    client.run = answering(busy, busy, SimpleNamespace(finished=False), busy, done)
    monkeypatch.setattr(run, "follow", answering(RetriableError("database"), "chain 1", "chain 2"))
    assert [progress.chain for progress in found.follow("run")] == ["chain 1", "chain 2"]


def test_nothing_but_passing_errors_ends_it_after_a_while(up, monkeypatch):
    found, client = up
    clock = iter(range(0, 1000, 50))
    monkeypatch.setattr(run.time, "monotonic", lambda: next(clock))
    client.run = answering(*(RetriableError(f"503 no {i}") for i in range(9)))
    with pytest.raises(RetriableError, match="503 no 2"):
        list(found.follow("run"))


def test_a_service_that_died_ends_it_at_once(up):
    found, client = up
    client.run = answering(RetriableError("out of reach"))
    found.group.check = answering(None, FatalError("airflow-scheduler ended"))
    with pytest.raises(FatalError, match="airflow-scheduler"):
        list(found.follow("run"))


def test_the_reason_is_read_from_the_last_try(up):
    found, client = up
    failed = SimpleNamespace(task_id="follow", state="failed", try_number=3)
    client.task_instances = lambda *_: [failed]
    client.xcom = answering(FatalError("404"))
    client.logs = lambda *_, try_number: f'[{{"exc_value": "try {try_number}"}}]'
    with pytest.raises(FatalError, match="failed at follow: try 3"):
        found.verdict("run")


def test_a_report_of_the_master_says_why_it_failed(up, monkeypatch):
    found, client = up
    told = {"held": False, "failed": "knime_cli_workflow is paused", "note": "long"}
    client.xcom = answering(told)
    assert found.verdict("run") == told
    monkeypatch.setattr(run_summary, "follow", lambda *_: SimpleNamespace(done=False))
    monkeypatch.setattr(found, "verdict", lambda _: told)
    summary = run_summary.Summary.of(found, "run")
    assert (summary.held, summary.failure) == (False, "knime_cli_workflow is paused")


def test_the_summary_shows_no_password(settings, monkeypatch):
    monkeypatch.setattr(run_summary, "follow", lambda *_: SimpleNamespace(done=False))
    up = SimpleNamespace(
        settings=settings(mlflow_tracking_uri="http://u:secret@mlflow.example:5000"),
        patiently=lambda ask: ask(),
        verdict=lambda _: {"held": True},
    )
    summary = run_summary.Summary.of(up, "run")
    assert summary.held
    assert summary.addresses["mlflow"] == "http://mlflow.example:5000"


def test_a_wrong_address_is_a_configuration_error(given):
    settings = given(warehouse_url="oracle://u:secret@h/x")
    with pytest.raises(ConfigurationError), services(settings, say=lambda _: None):
        pass


def test_the_dags_of_stocks_run_where_they_are_configured(given):
    def configured(**more):
        settings = given(**more)
        group = ProcessGroup(home=settings.home, logs=settings.home / "logs")
        return Services(settings, group).configured()

    assert configured() == []
    assert configured(tickers="AAPL") == ["stock_ingestion_pipeline"]
    both = ["stock_ingestion_pipeline", "tiingo_data_pull"]
    assert configured(tickers="AAPL", tiingo_api_key="k") == both
    assert configured(tickers="AAPL", tiingo_api_key="k", origin="replay:x@1") == []
