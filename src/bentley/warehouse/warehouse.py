"""The market database as the stages see it: opened, migrated, and of one origin."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from bentley.domain.errors import ConfigurationError, RetriableError
from bentley.settings import Settings
from bentley.warehouse import database, migrate
from bentley.warehouse.schema import meta


class OriginError(ConfigurationError):
    """A warehouse holds bars of another origin than the one that is to be written."""

    def __init__(self, message: str, *, holds: str, wanted: str) -> None:
        super().__init__(message)
        self.holds = holds
        self.wanted = wanted


class Warehouse:
    """One open database; make it with `Warehouse.open`."""

    def __init__(self, engine: Engine, *, name: str) -> None:
        self.engine = engine
        self.name = name

    @classmethod
    def open(cls, settings: Settings) -> Warehouse:
        """Open the configured database, migrate it, and check where its bars come from.

        Raises ConfigurationError for an address that is none, a broken file, and
        OriginError for one that holds bars of another origin; RetriableError for a server out of reach.
        """
        engine = database.connect(settings.database_url)
        if engine.dialect.name == "sqlite":
            _make_folder(Path(engine.url.database or "").parent)
        elif settings.replayed:
            with database.explained():
                database.create(engine.url)
        try:
            with database.explained(engine.url.render_as_string(hide_password=True)):
                migrate.upgrade(engine)
                name = _identify(engine, settings.origin)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, name=name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()

    @property
    def address(self) -> str:
        """The database's address, without its password."""
        return self.engine.url.render_as_string(hide_password=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that reads."""
        with database.explained(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Open a transaction that reads, and sees one state of the tables however long it takes."""
        with database.explained(), self.engine.connect() as connection:
            if connection.dialect.name != "sqlite":  # where every transaction is one
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self, *, flushed: bool = True) -> Iterator[Connection]:
        """Open a transaction that writes; see `database.writing`."""
        with database.explained(), database.writing(self.engine, flushed=flushed) as connection:
            yield connection

    def settle(self) -> int:
        """Bring what was committed to its place, beside whoever writes; see `database.settle`."""
        with database.explained():
            return database.settle(self.engine)

    @contextmanager
    def lock(self, name: str, *, wait_seconds: float) -> Iterator[bool]:
        """Take the named lock; see `database.exclusive`."""
        with (
            database.explained(),
            database.exclusive(self.engine, name, wait_seconds=wait_seconds) as held,
        ):
            yield held

    @contextmanager
    def alone(self, name: str, *, wait_seconds: float) -> Iterator[None]:
        """Hold the named lock, or raise RetriableError when another process keeps it."""
        with self.lock(name, wait_seconds=wait_seconds) as held:
            if not held:
                msg = f"another {name} has been running for {wait_seconds:g} s; try again later"
                raise RetriableError(msg)
            yield


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder} can't be made ({error.strerror}): set BENTLEY_HOME to another place"
        raise ConfigurationError(msg) from error


def _identify(engine: Engine, origin: str) -> str:
    """Give the database its id and origin at its first use, and hold it to them ever after."""
    with engine.connect() as connection:
        known = _meta(connection)
    if "origin" not in known:
        given = {"origin": origin, "id": uuid.uuid4().hex}
        # On a server two processes may both have found nothing: the first one's word counts.
        with suppress(IntegrityError), database.writing(engine) as connection:
            rows = [{"name": name, "value": value} for name, value in given.items()]
            connection.execute(meta.insert(), rows)
        with engine.connect() as connection:
            known = _meta(connection)
    if known["origin"] != origin:
        where = engine.url.render_as_string(hide_password=True)
        msg = (
            f"{where} holds bars of origin {known['origin']!r} and takes none of {origin!r}: "
            "set BENTLEY_HOME or BENTLEY_WAREHOUSE_URL to a place of their own"
        )
        raise OriginError(msg, holds=known["origin"], wanted=origin)
    return known["id"]


def _meta(connection: Connection) -> dict[str, str]:
    return {row.name: row.value for row in connection.execute(sa.select(meta))}
