"""JDBC addresses, which KNIME workflows speak, and the SQLAlchemy engines behind them."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

from sqlalchemy import URL, Engine, create_engine

from bentley.domain.errors import ConfigurationError

_SQLITE = "jdbc:sqlite:"
_MYSQL = ("jdbc:mysql:", "jdbc:mariadb:")
_DEFAULT_PORT = 3306
_BUSY_SECONDS = 30


def to_url(jdbc_url: str) -> URL:
    """The SQLAlchemy address of a JDBC address of SQLite, MySQL or MariaDB.

    Raises ConfigurationError for another database, without repeating what may be a secret.
    """
    if jdbc_url.startswith(_SQLITE):
        path = jdbc_url.removeprefix(_SQLITE).split("?", 1)[0]
        return URL.create("sqlite", database=path)
    if jdbc_url.startswith(_MYSQL):
        return _mysql(jdbc_url.removeprefix("jdbc:"))
    kind = ":".join(jdbc_url.split(":", 2)[:2])
    msg = f"a JDBC address must start with jdbc:sqlite:, jdbc:mysql: or jdbc:mariadb:, not {kind!r}"
    raise ConfigurationError(msg)


def _mysql(address: str) -> URL:
    parts = urlsplit(address)
    try:
        port = parts.port or _DEFAULT_PORT
    except ValueError:
        shown = parts.netloc.rpartition("@")[2]
        msg = (
            f"the port in {shown!r} is no number: write it as jdbc:mysql://127.0.0.1:3307/mansa_bot"
        )
        raise ConfigurationError(msg) from None
    query = parse_qs(parts.query)  # decoded already, unlike what stands before the host
    return URL.create(
        "mysql+pymysql",
        username=unquote(parts.username) if parts.username else query.get("user", [None])[0],
        password=unquote(parts.password) if parts.password else query.get("password", [None])[0],
        host=parts.hostname or "localhost",
        port=port,
        database=parts.path.lstrip("/"),
    )


class Connections:
    """The engines of one run: one per address, closed at the end unless the caller's own."""

    def __init__(self, open_database: Callable[[str], Engine] | None = None) -> None:
        self._open_database = open_database
        self._engines: dict[str, Engine] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open_database is None:
            for engine in self._engines.values():
                engine.dispose()

    def open(self, jdbc_url: str) -> Engine:
        """The engine for an address."""
        if jdbc_url not in self._engines:
            opener = self._open_database or _open
            self._engines[jdbc_url] = opener(jdbc_url)
        return self._engines[jdbc_url]


def _open(jdbc_url: str) -> Engine:
    url = to_url(jdbc_url)
    if url.get_backend_name() != "sqlite":
        return create_engine(url)
    return create_engine(url, connect_args={"timeout": _BUSY_SECONDS})
