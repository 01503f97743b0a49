"""One way to reach a database: its engine, its write transactions, its locks, its errors.

SQLite writers begin IMMEDIATE: a deferred transaction that reads and then writes fails with
"database is locked" under several processes, whatever the timeout.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import sqlite3
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from bentley.domain.errors import (
    BentleyError,
    ConfigurationError,
    FatalError,
    RetriableError,
)

_log = structlog.get_logger(__name__)

_BUSY_SECONDS = 60
_SILENT_SECONDS = 900
_WRITE = "bentley_write"

_DURABLE: dict[str, str | int] = {"synchronous": "FULL", "wal_autocheckpoint": 1_000}
"""SQLite's log is flushed by every commit, and copied into the file from 4 MB on."""

BULK_LOG_PAGES = 16_000
"""In bulk it is copied from 64 MB on: no commit waits for it before."""

# Numbers of the MySQL and MariaDB servers and of the client library.
MYSQL_PASSING = frozenset(
    {1040, 1053, 1158, 1159, 1160, 1161, 1205, 1213, 2002, 2003, 2006, 2013, 2055}
)
"""Too many connections, a lock that didn't come, a deadlock, a server that is away."""

_MYSQL_DENIED = {1044, 1045, 1698}
_MYSQL_NO_DATABASE = 1049
MYSQL_FULL = frozenset({1021, 1114, 3, 28})
"""A table or a disk without room."""


BROKEN_REMEDY = "restore it from a copy or move it away"

_SQLITE: tuple[tuple[tuple[str, ...], type[BentleyError], str], ...] = (
    (("locked", "busy"), RetriableError, "the database is busy: {}"),
    (("full",), FatalError, "the disk is full ({}): free some space, then run it again"),
    (("disk I/O",), FatalError, "the disk failed ({}): is it full, over its quota or broken?"),
    (
        ("not a database", "malformed"),
        ConfigurationError,
        "the database file is broken ({}): " + BROKEN_REMEDY,
    ),
    (
        ("unable to open", "readonly"),
        ConfigurationError,
        "{}: check that the folder exists and may be written to",
    ),
)
"""What SQLite's messages mean, by words in them."""


def connect(address: str) -> Engine:
    """Make an engine for a SQLite, MySQL or MariaDB address; nothing is opened yet.

    Raises ConfigurationError for an address that can't be one, without repeating its password.
    """
    url = parse(address)
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    engine = sa.create_engine(
        url.update_query_dict({"charset": "utf8mb4"}),
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        pool_recycle=1800,
        connect_args={
            "local_infile": True,
            "connect_timeout": 10,
            # our own times are numbers; a TIMESTAMP that others wrote is read in UTC
            "init_command": "SET time_zone = '+00:00'",
            # a server that went silent must not hold a thread for ever
            "read_timeout": _SILENT_SECONDS,
            "write_timeout": _SILENT_SECONDS,
        },
    )
    sa.event.listen(engine, "do_connect", lambda _, __, args, given: _client()(*args, **given))
    return engine


@cache
def _client() -> type[Any]:
    """The driver's connection, which reads no certificates where none is checked.

    Without options of TLS the driver encrypts where the server can, and checks nothing; yet it
    reads every authority of the machine for each connection, which takes 50 ms.
    """
    from pymysql.connections import Connection as Driver  # noqa: PLC0415 - SQLite needs it not

    class Client(Driver):
        def _create_ssl_ctx(self, sslp: dict[str, Any]) -> ssl.SSLContext:
            if sslp:
                made: ssl.SSLContext = super()._create_ssl_ctx(sslp)  # type: ignore[misc]
                return made
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context

    return Client


def parse(address: str) -> URL:
    """Check a warehouse address; ConfigurationError names what to write instead."""
    remedy = "write it as mysql+pymysql://user:password@127.0.0.1:3307/mansa_bot"
    try:
        url = make_url(address)
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError):
        msg = f"BENTLEY_WAREHOUSE_URL is not a database address; {remedy}"
        raise ConfigurationError(msg) from None
    if url.drivername in {"mysql", "mariadb"}:
        url = url.set(drivername=f"{url.drivername}+pymysql")
    if url.drivername not in {"sqlite", "sqlite+pysqlite", "mysql+pymysql", "mariadb+pymysql"}:
        msg = f"BENTLEY_WAREHOUSE_URL speaks of {url.drivername!r}; {remedy}, or leave it unset"
        raise ConfigurationError(msg)
    if not url.database:
        msg = f"BENTLEY_WAREHOUSE_URL names no database; {remedy}"
        raise ConfigurationError(msg)
    return url


def create(url: URL) -> None:
    """Create the database of a MySQL or MariaDB address where it is missing."""
    server = sa.create_engine(url.set(database=""), connect_args={"connect_timeout": 10})
    name = server.dialect.identifier_preparer.quote_identifier(url.database or "")
    with server.connect() as connection:
        known = connection.execute(
            sa.text("SELECT 1 FROM information_schema.schemata WHERE schema_name = :name"),
            {"name": url.database},
        ).first()
        if known is None:
            connection.exec_driver_sql(f"CREATE DATABASE IF NOT EXISTS {name}")
    server.dispose()


def _sqlite(url: URL) -> Engine:
    # A bulk statement takes half a megabyte, and each piece of a batch has its own.
    given = {"timeout": _BUSY_SECONDS, "cached_statements": 20}
    engine = sa.create_engine(url, connect_args=given)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None  # the driver leaves transactions to the events below
        _enter_wal(connection)
        _set(connection, cache_size=-16384, **_DURABLE)

    @sa.event.listens_for(engine, "invalidate")
    def _let_go(
        connection: sa.engine.interfaces.DBAPIConnection, _record: object, _error: object
    ) -> None:
        # An interrupt in a statement closes its connection; yet as long as the traceback keeps the
        # statement, SQLite keeps its transaction, for whose lock the rest of the program waits.
        with suppress(sqlite3.Error):
            connection.rollback()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get(_WRITE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _enter_wal(connection: sa.engine.interfaces.DBAPIConnection) -> None:
    """Switch the file to a write-ahead log, whoever else does so at this moment.

    The switch turns a read lock into a write lock, for which SQLite does not wait: of two
    processes that open a new file at once, one is told at once that it is locked.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() >= deadline:
                raise
            time.sleep(0.01)
        else:
            return


@contextmanager
def writing(engine: Engine, *, flushed: bool = True) -> Iterator[Connection]:
    """Open a transaction that writes; committed at the end, rolled back on an error.

    One that is not `flushed` is committed as whole as any, but a machine that loses its power
    before the next flushed one may have gone back to before it: for steps on the way to that one.
    A server goes by its own settings.
    """
    with engine.connect() as connection:
        connection = connection.execution_options(**{_WRITE: True})  # noqa: PLW2901
        with _unflushed(connection) if not flushed else nullcontext(), connection.begin():
            yield connection


@contextmanager
def _unflushed(connection: Connection) -> Iterator[None]:
    """Let SQLite write its log ahead, and neither wait for the disk nor copy it over each time."""
    if connection.dialect.name != "sqlite":
        yield
        return
    file = cast("sqlite3.Connection", connection.connection.driver_connection)
    _set(file, synchronous="NORMAL", wal_autocheckpoint=BULK_LOG_PAGES)
    try:
        yield
    finally:
        if not connection.invalidated:  # an interrupt in a statement has closed it
            try:
                _set(file, **_DURABLE)
            except sqlite3.Error:
                connection.invalidate()  # it must not serve one that is to be flushed


def _set(file: Any, **pragmas: str | int) -> None:
    for name, value in pragmas.items():
        file.execute(f"PRAGMA {name}={value}")


def settle(engine: Engine) -> int:
    """Copy SQLite's log into its file as far as nobody needs it; a server does so by itself.

    A commit would do it in bulk only now and then, and wait for it. Returns the pages that the log
    holds. What fails is left to the next commit, whose error counts.
    """
    if engine.dialect.name != "sqlite":
        return 0
    with engine.connect() as connection:
        file = cast("sqlite3.Connection", connection.connection.driver_connection)
        try:
            _, pages, _ = file.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            _log.warning("the log is not copied yet", error=str(error))
            return 0
    return int(pages)


@contextmanager
def exclusive(engine: Engine, name: str, *, wait_seconds: float) -> Iterator[bool]:
    """Hold the named lock of this database; yield whether it was had in time.

    It is freed when its process ends, however it ends: a file lock beside a SQLite file, a
    named lock of the connection on a server.
    """
    if engine.dialect.name == "sqlite":
        with _file_lock(Path(f"{engine.url.database}.{name}.lock"), wait_seconds) as held:
            yield held
        return
    digest = hashlib.sha256(f"{engine.url.database}.{name}".encode()).hexdigest()[:32]
    label = f"bentley.{digest}"
    with engine.connect() as connection:
        held = connection.execute(
            sa.text("SELECT GET_LOCK(:label, :wait)"), {"label": label, "wait": wait_seconds}
        ).scalar_one()
        try:
            yield held == 1
        finally:
            if held == 1 and not connection.invalidated:
                with suppress(DBAPIError):  # a connection that is lost has freed it already
                    connection.execute(sa.text("SELECT RELEASE_LOCK(:label)"), {"label": label})


@contextmanager
def _file_lock(path: Path, wait_seconds: float) -> Iterator[bool]:
    deadline = time.monotonic() + wait_seconds
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(0.05)
            else:
                yield True
                return


@contextmanager
def explained(where: str = "") -> Iterator[None]:
    """Turn a database's own errors into ours, by what the caller does next.

    `where` names the database, without its password.
    """
    try:
        yield
    except DBAPIError as error:
        raise _explain(error, where) from error


def _explain(error: DBAPIError, where: str = "") -> Exception:
    cause = error.orig
    arguments = () if cause is None else cause.args
    number = arguments[0] if arguments else None
    said = arguments[1] if isinstance(number, int) and len(arguments) > 1 else cause
    text = _first_line(f"{where}: {said}" if where else str(said))
    if isinstance(number, int):
        return _explain_mysql(number, text, lost=error.connection_invalidated)
    for words, kind, message in _SQLITE:
        if any(word in text for word in words):
            return kind(message.format(text))
    return FatalError(f"the database refused: {text}")


def _explain_mysql(number: int, text: str, *, lost: bool) -> Exception:
    if number in _MYSQL_DENIED:
        return ConfigurationError(f"{text}: check the user and password in BENTLEY_WAREHOUSE_URL")
    if number == _MYSQL_NO_DATABASE:
        return ConfigurationError(f"{text}: create it with CREATE DATABASE first")
    if number in MYSQL_FULL:
        return FatalError(f"the database's disk is full ({text}): free some space")
    if lost or number in MYSQL_PASSING:
        return RetriableError(f"the database did not answer: {text}")
    return FatalError(f"the database refused: {text}")


def _first_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)[:500]
