"""What `bentley doctor` sees of the tools: which are real, which embedded, and whether they answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import metadata

import httpx

from bentley.airbyte.server import AirbyteServer
from bentley.domain.addresses import without_password
from bentley.domain.clock import iso
from bentley.domain.errors import BentleyError
from bentley.services.findings import Finding
from bentley.settings import Settings
from bentley.sources import catalog, exchange
from bentley.stages.layout import CONNECTOR, WORKFLOW
from bentley.stages.track import tracking_uri
from bentley.warehouse import database

_SKEW_SECONDS = 60.0
_SECONDS = 5.0
_CONNECTOR_FILES = ("manifest.yaml", "components.py", "metadata.yaml")


def exchanges(settings: Settings, live: Settings) -> tuple[int | None, list[Finding]]:
    """Ask the exchange for its clock, and the replay of a run that is up for its own.

    Returns the exchange's time in UTC milliseconds, None where it doesn't answer.
    """
    now, found = _exchange(settings)
    if not live.replayed:
        return now, found
    try:
        replayed = iso(exchange.server_time(live.exchange_url, attempts=1))
    except BentleyError as error:
        remedy = "stop the run and start it again"
        return now, [*found, Finding("exchange", "replay", "problem", str(error), remedy)]
    detail = f"the run that is up uses {live.origin} at {live.exchange_url}, clock {replayed}"
    return now, [*found, Finding("exchange", "replay", "embedded", detail)]


def _exchange(settings: Settings) -> tuple[int | None, list[Finding]]:
    where = without_password(settings.exchange_url)
    asked = time.time()
    try:
        now = exchange.server_time(settings.exchange_url, attempts=1)
    except BentleyError as error:
        reason = str(error)
        if "exchange_url" in settings.model_fields_set:
            remedy = "check BENTLEY_EXCHANGE_URL, or unset it to use the public exchange"
            return None, [Finding("exchange", "address", "problem", reason, remedy)]
        remedy = "without it, bentley run uses generated bars, and bentley sync fails"
        return None, [Finding("exchange", "address", "warning", reason, remedy)]
    answered = time.time()
    detail = f"{where} answers in {(answered - asked) * 1000:.0f} ms"
    address = Finding("exchange", "address", "ok", detail)
    return now, [address, _clock(now, (asked + answered) / 2 - now / 1000)]


def _clock(now: int, ahead: float) -> Finding:
    detail = f"{iso(now // 1000 * 1000)}, {_duration(abs(ahead))} "
    detail += "behind this machine's" if ahead > 0 else "ahead of this machine's"
    if abs(ahead) <= _SKEW_SECONDS:
        return Finding("exchange", "clock", "ok", detail)
    remedy = "set this machine's clock, unless this is a replay: hourly runs go by it"
    return Finding("exchange", "clock", "warning", detail, remedy)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"


def airbyte(settings: Settings) -> Iterator[Finding]:
    """Ask the Airbyte server where one is named, else check the connector's folder."""
    if settings.airbyte_connection_id is not None:
        yield _airbyte_server(settings)
        return
    missing = [name for name in _CONNECTOR_FILES if not (CONNECTOR / name).is_file()]
    if missing:
        detail = f"{CONNECTOR} lacks {', '.join(missing)}"
        yield Finding(
            "airbyte", "connector", "problem", detail, "restore it: git checkout connectors"
        )
        return
    try:
        kit = f"airbyte-cdk {metadata.version('airbyte-cdk')}"
    except metadata.PackageNotFoundError:
        yield Finding("airbyte", "connector", "problem", "airbyte-cdk is missing", "run make setup")
        return
    yield Finding("airbyte", "connector", "embedded", f"{CONNECTOR} is run by {kit}")


def _airbyte_server(settings: Settings) -> Finding:
    try:
        with AirbyteServer.of(settings) as server:
            server.check()
    except BentleyError as error:
        return Finding("airbyte", "server", "problem", str(error))
    detail = (
        f"{without_password(settings.airbyte_api_url)} knows the connection "
        f"{settings.airbyte_connection_id}; its table is {settings.airbyte_table}"
    )
    return Finding("airbyte", "server", "ok", detail)


def knime(settings: Settings) -> Iterator[Finding]:
    """Check KNIME's launcher where one is named, else the embedded engine against the workflow."""
    # polars and the nodes: a third of a second that the other commands needn't spend
    from bentley.knime import engine, launcher, workflow  # noqa: PLC0415

    if settings.knime_executable is not None:
        try:
            found = launcher.discover_launcher(settings.knime_executable)
            launcher.require_server_database(_jdbc(settings))
        except BentleyError as error:
            yield Finding("knime", "launcher", "problem", str(error))
        else:
            own = "KNIME_" if settings.knime_warehouse_url is not None else ""
            detail = f"{found} (found, not started), by the user of BENTLEY_{own}WAREHOUSE_URL"
            yield Finding("knime", "launcher", "ok", detail)
        return
    try:
        ohlcv = workflow.load(WORKFLOW)
        lacks = engine.check(ohlcv)
    except BentleyError as error:
        remedy = "restore it: git checkout workflows"
        yield Finding("knime", "workflow", "problem", str(error), remedy)
        return
    if lacks:
        detail = f"{WORKFLOW.name}: {'; '.join(map(str, lacks))}"
        remedy = "restore it: git checkout workflows"
        yield Finding("knime", "workflow", "problem", detail, remedy)
        return
    detail = f"the embedded engine runs all {len(ohlcv.nodes)} nodes of {WORKFLOW.name}"
    yield Finding("knime", "engine", "embedded", detail)


def _jdbc(settings: Settings) -> str:
    """Name the kind of KNIME's database as JDBC does; that is all that is asked of it here."""
    given = settings.knime_warehouse_url
    address = settings.database_url if given is None else given.get_secret_value()
    return f"jdbc:{database.parse(address).get_backend_name()}:"


def mlflow(settings: Settings) -> Iterator[Finding]:
    """Ask MLflow's server whether it is up; our own is only while a run is."""
    own = settings.mlflow_tracking_uri is None
    uri = tracking_uri(settings)
    where = without_password(uri)
    if not uri.startswith(("http://", "https://")):
        detail = f"MLFLOW_TRACKING_URI is {where}"
        remedy = "name an MLflow server, like http://127.0.0.1:5000, or unset it"
        yield Finding("mlflow", "server", "problem", detail, remedy)
        return
    try:
        with httpx.Client(trust_env=not own, timeout=_SECONDS) as client:
            up = client.get(f"{uri.rstrip('/')}/health").is_success
    except (httpx.HTTPError, httpx.InvalidURL):
        up = False
    if own:
        detail = f"our own, {'up' if up else 'not up'} at {where}"
        yield Finding("mlflow", "server", "embedded", detail)
    elif up:
        yield Finding("mlflow", "server", "ok", f"{where} answers")
    else:
        remedy = "start it, or correct MLFLOW_TRACKING_URI, or unset it to use our own"
        yield Finding("mlflow", "server", "problem", f"{where} does not answer", remedy)


def stocks(settings: Settings) -> Iterator[Finding]:
    """Say which sources of stocks can be asked; none of them is, for each request counts."""
    if not settings.tickers:
        remedy = "name some in BENTLEY_TICKERS or in universe.yaml, where stocks are wanted"
        yield Finding("stocks", "tickers", "ok", "none: their DAGs wait, paused", remedy)
        return
    yield Finding("stocks", "tickers", "ok", ", ".join(settings.tickers))
    for name in settings.sources:
        reason = catalog.named(name).missing(settings)
        said = "can be asked" if reason is None else f"is skipped: {reason}"
        yield Finding("stocks", name, "ok" if reason is None else "warning", said)
