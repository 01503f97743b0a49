"""A real Airflow is started, used through its API, and ended without a trace."""

from __future__ import annotations

import stat
import subprocess
import time

import httpx
import psutil
import pytest

from bentley.domain.errors import FatalError, RetriableError
from bentley.services import airflow, airflow_db, ports, trees
from bentley.services.airflow_api import AirflowClient
from bentley.services.processes import ProcessGroup
from support import free_port

pytestmark = pytest.mark.timeout(240)


def wait_for(condition, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def own_processes(running):
    return trees.descendants(c.process for c in running.group._children.values())


def readable(running):
    """Its processes without those that ran tasks, which Airflow hides from their own user."""
    return [one for one in own_processes(running) if not trees.is_unreadable(one)]


def test_every_part_is_healthy(running):
    assert running.client.health() == dict.fromkeys(airflow.HEALTHY_PARTS, "healthy")


def test_admin_admin_and_nobody_else_may_sign_in(running):
    address = f"http://127.0.0.1:{running.port}"
    with httpx.Client(base_url=address, trust_env=False) as http:
        good = http.post("/auth/token", json={"username": "admin", "password": "admin"})
        assert good.status_code == 201
        assert http.get("/api/v2/dags").status_code == 401
        page = http.get("/")
        assert (page.status_code, "<title>Airflow</title>" in page.text) == (200, True)
    with AirflowClient(address, password="wrong") as client, pytest.raises(FatalError, match="401"):
        client.dags()


def test_a_run_succeeds_and_its_logs_are_read_at_every_stage(running):
    client = running.client
    dags = client.wait_for_dag(["probe", "consumer"], alive=running.group.check)
    assert dags["probe"].is_paused
    assert client.import_errors() == []
    assert not client.unpause("consumer").is_paused
    assert not client.unpause("probe").is_paused

    run = client.trigger("probe", {"asked": "by a test"}, run_id="one", note="n" * 2000)
    assert (run.run_id, run.conf) == ("one", {"asked": "by a test"})
    assert len(run.note) == 1000
    with pytest.raises(FatalError, match="409"):
        client.trigger("probe", run_id="one")

    def states():
        running.group.check()
        return {task.task_id: task.state for task in client.task_instances("probe", "one")}

    wait_for(lambda: states()["wait"] == "deferred")
    assert "Pausing task as DEFERRED" in client.logs("probe", "one", "wait")
    wait_for(lambda: client.run("probe", "one").finished)
    assert client.run("probe", "one").state == "success"
    log = client.logs("probe", "one", "echo")
    assert "a print says hello" in log
    assert "a logger says hello" in log
    log = client.logs("probe", "one", "wait")
    assert "Trigger fired event" in log
    assert "an operator says it waited" in log
    assert client.xcom("probe", "one", "echo") == str(running.home)
    assert client.set_note("probe", "one", "seen").note == "seen"


def test_an_asset_event_starts_its_consumer(running):
    (run,) = wait_for(lambda: [r for r in running.client.runs("consumer") if r.finished])
    assert (run.state, run.run_type) == ("success", "asset_triggered")
    (event,) = running.client.asset_events(name="mysql://mansa_bot/hello")
    assert (event.source_dag_id, event.source_run_id) == ("probe", "one")
    assert [made.run_id for made in event.created_dagruns] == [run.run_id]
    assert running.client.asset_events(name="mysql://mansa_bot/hell") == []


def test_what_is_not_there_is_fatal(running):
    with pytest.raises(FatalError, match=r"GET /api/v2/dags/nothing gave 404: .*nothing"):
        running.client.dag("nothing")
    with pytest.raises(RetriableError, match="nothing"):
        running.client.wait_for_dag(["nothing"], timeout=0.5)


def test_a_token_that_ran_out_is_fetched_anew(running):
    running.client._token = "ran.out.long-ago"
    assert running.client.dag("probe").dag_id == "probe"


def test_commands_run_in_the_same_environment(running):
    result = subprocess.run(
        airflow.command("dags", "list", "-o", "plain"),
        env=running.env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "probe" in result.stdout


def test_it_listens_on_loopback_alone_and_not_on_the_log_ports(running):
    listening = {
        connection.laddr
        for process in readable(running)
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", running.port)}


def test_secrets_are_private_and_in_no_process_list(running):
    folder = running.home / "airflow"
    secrets = [
        line.split(" = ")[1]
        for line in (folder / "airflow.cfg").read_text().splitlines()
        if " = " in line
    ]
    assert len(secrets) == 3
    for name in ("airflow.cfg", "passwords.json"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    for process in readable(running):
        environ = process.environ()
        assert environ[trees.RUN_ID] == running.group.run_id
        seen = " ".join([*process.cmdline(), *environ.values()])
        assert not any(secret in seen for secret in secrets)


def memory(process: psutil.Process) -> int:
    """Bytes, shared ones by their share where that may be seen."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)


def test_memory_stays_in_its_bound(running):
    assert sum(memory(process) for process in own_processes(running)) < 1.5e9


def test_another_home_runs_beside_it(running, root, tmp_path, migrated):
    home, port = migrated(tmp_path / "home"), free_port()
    with ProcessGroup(home=home, logs=home / "logs") as group:
        env = airflow.environment(home=home, root=root, port=port)
        for name, argv in airflow.components():
            group.start(name, argv, env=env)
        airflow.wait_healthy(port, alive=group.check)
        with AirflowClient(f"http://127.0.0.1:{port}") as client:
            assert client.wait_for_dag(["probe"])["probe"].is_paused
            assert client.runs() == []
    assert ports.is_free(port)
    running.group.check()
    assert running.client.health()["scheduler"] == "healthy"


def test_it_ends_within_seconds_and_leaves_nothing(running):
    processes = own_processes(running)
    start = time.monotonic()
    running.group.end()
    assert time.monotonic() - start < 20
    assert trees.living(processes) == set()
    assert trees.marked(trees.RUN_HOME, str(running.home)) == {}
    assert ports.is_free(running.port)
    with pytest.raises(RetriableError, match="out of reach"):
        running.client.health()
    assert airflow_db.migrate(running.env) is False
