"""What `bentley doctor` sees of the databases, read in a way that can't change a file of theirs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.pool import NullPool

from bentley.domain.clock import iso
from bentley.domain.errors import BentleyError, ConfigurationError
from bentley.services import airflow_db
from bentley.services.findings import Finding, State
from bentley.settings import EXCHANGE_ORIGIN, Settings
from bentley.warehouse import database, ledger, migrate
from bentley.warehouse.ledger import PROCESS, TRACK
from bentley.warehouse.schema import binance_ohlcv, meta, quarantine

_REPLAY = "replay"
_MLFLOW_SETTING = "BENTLEY_MLFLOW_DATABASE_URL"
_HOUR_MS = 3_600_000
_CHECKED_BYTES = 256 * 2**20
"""Files up to this size are checked page by page; of larger ones only the tables are read."""


def warehouses(settings: Settings, *, now: int | None) -> Iterator[Finding]:
    """Look at the warehouse and, where there is one, at the replay's beside it.

    `now` is the exchange's clock in UTC milliseconds, None where it can't be asked.
    """
    real = settings.model_copy(update={"origin": EXCHANGE_ORIGIN})
    replay = settings.model_copy(update={"origin": _REPLAY})
    yield from _warehouse(real, "warehouse", now)
    file = _sqlite_file(replay)
    if (file is not None and file.exists()) or (file is None and _exists(replay)):
        yield from _warehouse(replay, _REPLAY, None)


def _warehouse(settings: Settings, name: str, now: int | None) -> Iterator[Finding]:
    good: State = "embedded" if settings.warehouse_url is None else "ok"
    file = _sqlite_file(settings)
    try:
        if file is not None and not file.exists():
            detail = f"SQLite at {file}, which the first command makes"
            yield Finding("warehouse", name, good, detail)
            return
        with _opened(settings) as engine, database.explained():
            yield from _server(engine, name)
            yield _contents(settings, engine, name, good, now)
    except BentleyError as error:
        yield Finding("warehouse", name, "problem", _named(error, file), _remedy(settings))


def _named(error: BentleyError, file: Path | None) -> str:
    """Say which file it is that an error is about."""
    said = str(error)
    return said if file is None or str(file) in said else f"{file}: {said}"


def _remedy(settings: Settings) -> str:
    if settings.warehouse_url is None:
        return "restore the file from a copy, or move it away: the next sync fetches the bars again"
    return "start the server, or correct BENTLEY_WAREHOUSE_URL, or unset it to use SQLite"


def _sqlite_file(settings: Settings) -> Path | None:
    """Return the warehouse's file, None for a server; an address that is none raises later."""
    try:
        url = make_url(settings.database_url)
    except sa.exc.ArgumentError:
        return None
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def _exists(settings: Settings) -> bool:
    """Whether the server has this database; no answer is the first warehouse's finding."""
    try:
        with _opened(settings) as engine, engine.connect():
            return True
    except (BentleyError, sa.exc.DBAPIError):
        return False


@contextmanager
def _opened(settings: Settings) -> Iterator[Engine]:
    file = _sqlite_file(settings)
    engine = database.connect(settings.database_url) if file is None else _unchanging(file)
    try:
        yield engine
    finally:
        engine.dispose()


def _unchanging(file: Path) -> Engine:
    """Open a SQLite file for reading alone.

    Where no writer's log lies beside it, the file is taken as immutable: even a reader would
    otherwise make that log and its index.
    """
    log = file.with_name(f"{file.name}-wal")
    mode = "mode=ro" if log.exists() else "mode=ro&immutable=1"
    address = f"{file.resolve().as_uri()}?{mode}"
    return sa.create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(address, uri=True, timeout=5),
        poolclass=NullPool,
    )


def _server(engine: Engine, name: str) -> Iterator[Finding]:
    if engine.dialect.name == "sqlite":
        file, *_ = _files(engine)
        _quick_check(engine, file)
        return
    with engine.connect() as connection:
        version, loads = connection.exec_driver_sql("SELECT VERSION(), @@local_infile").one()
    where = engine.url.render_as_string(hide_password=True)
    kind = "" if "mariadb" in str(version).lower() else "MySQL "
    yield Finding("warehouse", f"{name} server", "ok", f"{kind}{version} at {where}")
    if not loads:
        yield Finding(
            "warehouse",
            f"{name} load",
            "warning",
            "local_infile is off: bars are written row by row, several times slower",
            "SET GLOBAL local_infile = 1, and in the server's configuration",
        )


def _files(engine: Engine) -> list[Path]:
    with engine.connect() as connection:
        return [Path(row[2]) for row in connection.exec_driver_sql("PRAGMA database_list")]


def _quick_check(engine: Engine, file: Path) -> None:
    if file.stat().st_size > _CHECKED_BYTES:
        return
    with engine.connect() as connection:
        said = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
    if said != "ok":
        msg = f"the database file {file} is broken ({' '.join(str(said).split())})"
        raise ConfigurationError(msg)


def _contents(
    settings: Settings, engine: Engine, name: str, good: State, now: int | None
) -> Finding:
    where = "the server" if engine.dialect.name != "sqlite" else f"SQLite at {_files(engine)[0]}"
    version = migrate.current(engine)
    if version is None:
        return Finding(
            "warehouse", name, good, f"{where}: empty, the first command makes its tables"
        )
    if version > migrate.HEAD:
        detail = f"{where} is at schema {version}, newer than this Bentley's {migrate.HEAD}"
        return Finding("warehouse", name, "problem", detail, "update Bentley")
    if version < migrate.HEAD:
        detail = f"{where} is at schema {version}; this Bentley's is {migrate.HEAD}"
        return Finding("warehouse", name, "warning", detail, "the next command migrates it")
    with engine.connect() as connection:
        origin = connection.scalar(sa.select(meta.c.value).where(meta.c.name == "origin"))
        state = f"schema {version}, origin {origin or 'not yet set'}"
        detail = f"{where}: {state}; {_bars(connection, now)}; {_waiting(connection)}"
    if origin is not None and (origin != EXCHANGE_ORIGIN) != settings.replayed:
        remedy = "set BENTLEY_HOME or BENTLEY_WAREHOUSE_URL to a place of its own"
        return Finding("warehouse", name, "problem", detail, remedy)
    return Finding("warehouse", name, good, detail)


def _bars(connection: Connection, now: int | None) -> str:
    raw = binance_ohlcv.c
    closed = sa.case((raw.is_closed == 1, raw.close_time))
    series = sa.select(raw.symbol, raw.interval).distinct().subquery()
    rows, last = connection.execute(sa.select(sa.func.count(), sa.func.max(closed))).one()
    if not rows:
        return "no bars yet"
    count = connection.scalar(sa.select(sa.func.count()).select_from(series))
    ended = "none closed" if last is None else f"the last closed at {iso(last)}"
    if last is not None and now is not None:
        ended += f", {(now - last) / _HOUR_MS:.1f} h ago by the exchange's clock"
    return f"{rows} bars in {count} series, {ended}"


def _waiting(connection: Connection) -> str:
    waiting = [len(ledger.unconsumed(connection, stage)) for stage in (PROCESS, TRACK)]
    refused = connection.scalar(sa.select(sa.func.count()).select_from(quarantine))
    return (
        f"{waiting[0]} batches wait to be processed, {waiting[1]} to be logged; "
        f"{refused} rows in quarantine"
    )


def airflow_databases(settings: Settings) -> Iterator[Finding]:
    """Look at Airflow's metadata: one database for the real exchange, one for replays."""
    homes = {"metadata": settings.home, "replay metadata": settings.home / _REPLAY}
    files = {name: home / "airflow" / "airflow.db" for name, home in homes.items()}
    there = {name: file for name, file in files.items() if file.exists()}
    if not there:
        detail = f"{files['metadata']}, which bentley run makes (SQLite, LocalExecutor)"
        yield Finding("airflow", "metadata", "embedded", detail)
    for name, file in there.items():
        yield airflow_database(name, file)


def airflow_database(name: str, file: Path) -> Finding:
    """Look at one of Airflow's database files, which is there."""
    try:
        head, known = airflow_db.installed_revisions()
        revision = _revision(file)
    except BentleyError as error:
        remedy = "move the file away: it holds Airflow's run history, no market data"
        return Finding("airflow", name, "problem", str(error), remedy)
    if revision is not None and revision not in known:
        detail = f"{file} was made by another Airflow (schema {revision})"
        remedy = "install that version again, or move the file away: it holds no market data"
        return Finding("airflow", name, "problem", detail, remedy)
    if revision != head:
        detail = f"{file} is at schema {revision or 'none'}, not {head}"
        return Finding("airflow", name, "warning", detail, "the next bentley run migrates it")
    return Finding("airflow", name, "embedded", f"{file}: SQLite, LocalExecutor, schema {head}")


def mlflow_database(settings: Settings) -> Iterator[Finding]:
    """Look at the database of our own MLflow server."""
    if settings.mlflow_tracking_uri is not None:
        return
    if settings.mlflow_database_url is not None:
        yield _mlflow_server(settings.mlflow_database_url.get_secret_value())
        return
    file = settings.home / "mlflow" / "mlflow.db"
    if not file.exists():
        yield Finding("mlflow", "database", "embedded", f"{file}, which bentley run makes")
        return
    try:
        revision, runs = _revision(file), _mlflow_runs(_unchanging(file))
    except BentleyError as error:
        remedy = "move the file away: what it held is logged again only for new batches"
        yield Finding("mlflow", "database", "problem", str(error), remedy)
    else:
        detail = f"{file}: schema {revision or 'none'}, {runs} runs"
        yield Finding("mlflow", "database", "embedded", detail)


def _mlflow_server(address: str) -> Finding:
    remedy = "write it as mysql+pymysql://user:password@127.0.0.1:3307/mlflow"
    try:
        url = make_url(address)
        if url.get_backend_name() == "sqlite":
            detail = f"SQLite at {url.database} (not looked into)"
            return Finding("mlflow", "database", "ok", detail)
        engine = sa.create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": 10})
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError):
        detail = f"{_MLFLOW_SETTING} is not a database address"
        return Finding("mlflow", "database", "problem", detail, remedy)
    try:
        runs = _mlflow_runs(engine)
    except BentleyError as error:
        said = str(error).replace("BENTLEY_WAREHOUSE_URL", _MLFLOW_SETTING)
        remedy = f"start the server, or correct {_MLFLOW_SETTING}, or unset it to use SQLite"
        return Finding("mlflow", "database", "problem", said, remedy)
    where = url.render_as_string(hide_password=True)
    return Finding("mlflow", "database", "ok", f"{where}: {runs} runs")


def _revision(file: Path) -> str | None:
    engine = _unchanging(file)
    try:
        with database.explained():
            _quick_check(engine, file)
            return migrate.current(engine)
    except BentleyError as error:
        said = _named(error, file)  # what to do about it stands with the finding
        raise ConfigurationError(said.removesuffix(f": {database.BROKEN_REMEDY}")) from error


def _mlflow_runs(engine: Engine) -> int:
    with database.explained(), engine.connect() as connection:
        if not sa.inspect(connection).has_table("runs"):
            return 0
        count = "SELECT COUNT(*) FROM runs WHERE lifecycle_stage = 'active'"
        return int(connection.exec_driver_sql(count).scalar_one())
