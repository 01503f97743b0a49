"""What runs the workflow: KNIME itself where it is installed, the embedded engine where not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from pydantic import SecretStr
from sqlalchemy.engine import URL

from bentley.knime import batch, engine, workflow
from bentley.knime.launcher import require_server_database
from bentley.settings import Settings
from bentley.stages.layout import WORKFLOW
from bentley.warehouse import database
from bentley.warehouse.warehouse import Warehouse

_MYSQL_PORT = 3306


@dataclass(frozen=True)
class WorkflowEngine:
    """One way to run the workflow: `run` takes its variables, for at most `chunk_bars` bars."""

    chunk_bars: int
    run: Callable[[Mapping[str, str]], None]


def name(settings: Settings) -> str:
    """Name the engine that the settings ask for."""
    return "bentley-knime" if settings.knime_executable is None else "knime"


def choose(settings: Settings, warehouse: Warehouse) -> WorkflowEngine:
    """Choose by KNIME_EXECUTABLE; ConfigurationError where KNIME can't reach the warehouse."""
    if settings.knime_executable is None:
        return _embedded(warehouse)
    return _knime(settings, settings.knime_executable, warehouse)


def _embedded(warehouse: Warehouse) -> WorkflowEngine:
    ohlcv = workflow.load(WORKFLOW)
    address = _jdbc(warehouse.engine.url.set(username=None, password=None))

    def run(variables: Mapping[str, str]) -> None:
        engine.run(
            ohlcv, {**variables, "jdbc_url": address}, open_database=lambda _: warehouse.engine
        )

    return WorkflowEngine(50_000, run)


def _knime(settings: Settings, executable: Path, warehouse: Warehouse) -> WorkflowEngine:
    given = settings.knime_warehouse_url
    url = warehouse.engine.url if given is None else database.parse(given.get_secret_value())
    address = _jdbc(url)
    require_server_database(address)

    def run(variables: Mapping[str, str]) -> None:
        batch.run_batch(
            executable,
            WORKFLOW,
            variables,
            workspace_parent=settings.data_home / "knime",
            timeout_s=settings.stage_timeout_minutes * 60,
            credentials={"jdbc_url": SecretStr(address)},
        )

    # A start of KNIME costs tens of seconds, so that one run takes more bars at once.
    return WorkflowEngine(1_000_000, run)


def _jdbc(url: URL) -> str:
    """Write an address as JDBC has it, with user and password where there are any."""
    if url.get_backend_name() == "sqlite":
        return f"jdbc:sqlite:{url.database}"
    login = {"user": url.username, "password": url.password}
    given = {name: value for name, value in login.items() if value}
    # A space as %20: not every driver reads a plus as one.
    arguments = urlencode(given, quote_via=quote, safe="")
    place = f"jdbc:mysql://{url.host}:{url.port or _MYSQL_PORT}/{url.database}"
    return f"{place}?{arguments}" if arguments else place
