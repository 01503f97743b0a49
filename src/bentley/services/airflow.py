"""A private Airflow on this machine: its settings, its processes, and when they are ready.

Airflow itself is never imported: its processes get everything through their environment and a
file of secrets that only this user can read, so that no process list shows one.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import httpx

from bentley.domain.errors import RetriableError

USERNAME = "admin"
PASSWORD = "admin"  # noqa: S105  the public contract: a laptop's instance, on loopback only
HEALTHY_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")

_PARALLELISM = 4  # 1.1 GB in all; Airflow's own 32 takes 5.6 GB
_HEARTBEAT_TIMEOUT = 30
_POLL_SECONDS = 0.2
_BUILD_SECONDS = 60.0
_NO_LOG_SERVER = "1"
_COMPONENTS = (
    # every process here shares one file system, so nobody needs the log servers on 8793 and
    # 8794, where a second home would clash
    ("airflow-api-server", ("api-server", "--workers", "1", "--worker-timeout", "30")),
    ("airflow-scheduler", ("scheduler", "--skip-serve-logs")),
    ("airflow-dag-processor", ("dag-processor",)),
    ("airflow-triggerer", ("triggerer", "--skip-serve-logs")),
)


def environment(
    *, home: Path, root: Path, port: int, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the whole environment of Airflow's processes, and of `bentley airflow`.

    `home` is Bentley's (Airflow's lies in `home/airflow` and is made ready here), `root` holds
    `dags/` and `plugins/`, `port` is the API server's on loopback. Of the caller's environment
    everything is kept but AIRFLOW__ settings, which belong to another instance; `extra` is
    applied last.
    """
    airflow_home = home.resolve() / "airflow"
    _write_secrets(airflow_home)
    ours = inherited()
    return {
        **ours,
        **_addresses(airflow_home, root.resolve(), port),
        **_LATENCY,
        **_QUIET,
        "NO_PROXY": _without_proxy(ours),
        "no_proxy": _without_proxy(ours),
        **(extra or {}),
    }


def inherited() -> dict[str, str]:
    """Return the caller's environment without what belongs to another Airflow or slows Python."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AIRFLOW__") and name not in _UNWANTED
    }


_UNWANTED = frozenset(
    {
        "AIRFLOW_CONFIG",
        # without bytecode each process spends 3 s more on imports
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONWARNINGS",
    }
)

_LATENCY = {
    # five times as often, it takes a third of a core at rest, and the first chain is no faster
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    # a killed task is seen after half a minute, not five, and a lost queue entry likewise
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(_HEARTBEAT_TIMEOUT),
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
    "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "5",
    # A task's supervisor may miss its end until the next heartbeat, and holds its slot so long;
    # beating more often must not mean dying of a shorter outage of the API.
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "15",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
}

_QUIET = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    # INFO reaches the tasks' own logs; Airflow's own talk in the console logs is kept down
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
    "AIRFLOW__LOGGING__NAMESPACE_LEVELS": (
        "airflow=WARNING airflow.task=INFO airflow.providers=INFO airflow.triggers=INFO "
        "http.access=WARNING supervisor=WARNING"
    ),
    "AIRFLOW__LOGGING__UVICORN_LOGGING_LEVEL": "WARNING",
    # Logs are read from disk; on the default ports another Airflow's server might answer.
    "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": _NO_LOG_SERVER,
    "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": _NO_LOG_SERVER,
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    "AIRFLOW__METRICS__STATSD_ON": "False",
    "SCARF_ANALYTICS": "False",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
}


def _addresses(airflow_home: Path, root: Path, port: int) -> dict[str, str]:
    return {
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(root / "plugins"),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(_PARALLELISM),
        # the default asks the DNS, which takes seconds on a laptop without one
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__CORE__AUTH_MANAGER": (
            "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USERNAME}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(_passwords(airflow_home)),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url(airflow_home / "airflow.db"),
        # `migrate` has seen to it before anything starts
        "AIRFLOW__DATABASE__CHECK_MIGRATIONS": "False",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(airflow_home / "logs"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://localhost:{port}",
        "AIRFLOW__API__EXPOSE_CONFIG": "non-sensitive-only",
        "AIRFLOW__API__INSTANCE_NAME": "Bentley Budget Bot",
    }


def database_url(file: Path) -> str:
    """Return SQLAlchemy's address of Airflow's own SQLite file; writers wait 30 s for each other."""
    return f"sqlite:///{file}?timeout=30"


def components() -> list[tuple[str, list[str]]]:
    """Name and arguments of each of Airflow's processes; start them all at once."""
    return [(name, command(*arguments)) for name, arguments in _COMPONENTS]


def command(*arguments: str) -> list[str]:
    """Return the argument list of one Airflow command, run by this very Python."""
    return [sys.executable, "-m", "airflow", *arguments]


def wait_healthy(
    port: int,
    *,
    alive: Callable[[], None],
    timeout: float = 180.0,
    progress: Callable[[dict[str, str]], None] = lambda _: None,
) -> dict[str, str]:
    """Wait until the database, scheduler, triggerer and parser are healthy and tasks can start.

    `alive` is called at every look and raises where a process has died (ProcessGroup.check), so
    that nobody waits for the dead. `progress` gets the status by part whenever it changes. A
    heartbeat from before the call is "stale": it may be of a run that was killed a moment ago.
    Raises RetriableError after `timeout` seconds, naming what is not healthy.
    """
    since, deadline = datetime.now(UTC), time.monotonic() + timeout
    status: dict[str, str] = {}
    with httpx.Client(trust_env=False, timeout=5.0) as client:
        while True:
            alive()
            now = _health(client, port, since)
            if now != status:
                status = now
                progress(status)
            healthy = all(status.get(part) == "healthy" for part in HEALTHY_PARTS)
            if healthy and _serves_tasks(client, port):
                return status
            if time.monotonic() > deadline:
                raise RetriableError(_unhealthy(status, port, timeout))
            time.sleep(_POLL_SECONDS)


def _health(client: httpx.Client, port: int, since: datetime) -> dict[str, str]:
    try:
        answer = client.get(f"http://127.0.0.1:{port}/api/v2/monitor/health")
        answer.raise_for_status()
        parts = answer.json()
    except (httpx.HTTPError, json.JSONDecodeError):
        return {}
    return {part: _status(parts.get(part) or {}, part, since) for part in HEALTHY_PARTS}


def _serves_tasks(client: httpx.Client, port: int) -> bool:
    """Whether the tasks' own API answers; it is built at its first call, which takes seconds.

    Left to the first task, that call can outlast the 5 s that Airflow grants it.
    """
    try:
        answer = client.get(f"http://127.0.0.1:{port}/execution/health", timeout=_BUILD_SECONDS)
    except httpx.HTTPError:
        return False
    return answer.is_success


def _status(answer: Mapping[str, str | None], part: str, since: datetime) -> str:
    beat = answer.get(f"latest_{part}_heartbeat")
    if beat is not None and datetime.fromisoformat(beat) < since:
        return "stale"
    return str(answer.get("status"))


def _unhealthy(status: Mapping[str, str], port: int, timeout: float) -> str:
    if not status:
        return f"Airflow's API on port {port} gave no answer within {timeout:.0f} s; see its log"
    parts = [f"{part} is {status.get(part)}" for part in HEALTHY_PARTS]
    return f"Airflow was not healthy within {timeout:.0f} s: {', '.join(parts)}; see their logs"


def _without_proxy(env: Mapping[str, str]) -> str:
    """Loopback never goes through a proxy: Airflow's tasks talk to its API over HTTP."""
    named = env.get("NO_PROXY") or env.get("no_proxy") or ""
    return ",".join(dict.fromkeys([*filter(None, named.split(",")), "127.0.0.1", "localhost"]))


def _passwords(airflow_home: Path) -> Path:
    return airflow_home / "passwords.json"


def _write_secrets(airflow_home: Path) -> None:
    """Write what Airflow would else invent: the login, and keys that outlive a restart."""
    airflow_home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_private(_passwords(airflow_home), json.dumps({USERNAME: PASSWORD}) + "\n")
    configuration = airflow_home / "airflow.cfg"
    if not configuration.exists():
        fernet_key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        _write_private(
            configuration,
            "# Keys alone; every other setting comes from Bentley's environment.\n"
            f"[core]\nfernet_key = {fernet_key}\n\n"
            f"[api]\nsecret_key = {secrets.token_urlsafe(48)}\n\n"
            f"[api_auth]\njwt_secret = {secrets.token_urlsafe(96)}\n",
        )


def _write_private(path: Path, text: str) -> None:
    """Write whole or not at all, readable by this user alone from the first byte."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
