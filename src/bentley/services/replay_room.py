"""Gives a replay a warehouse with its own bars: those of another origin are set aside, whole.

The bars of an origin that comes back are taken back. The caller holds the home: nothing here may
be moved from under a run that is up.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection

from bentley.domain.errors import ConfigurationError
from bentley.settings import Settings
from bentley.warehouse import database
from bentley.warehouse.warehouse import OriginError, Warehouse

_LONGEST = 64
"""Characters of a MySQL database's name."""


@contextmanager
def replay_room(settings: Settings) -> Iterator[None]:
    """Make the replay's warehouse ready for the origin of the settings, and keep it so.

    A server's is locked meanwhile, since a run in another home can reach it too. Raises what
    opening a warehouse raises, and ConfigurationError where another run is using it.
    """
    url = database.parse(settings.database_url)
    if url.get_backend_name() == "sqlite":
        _make_room_in_file(settings, Path(url.database or ""))
        yield
        return
    with database.explained():
        database.create(url)
    engine = database.connect(settings.database_url)
    try:
        with database.explained(), database.exclusive(engine, "replay", wait_seconds=0) as held:
            if not held:
                msg = (
                    f"another run replays into {url.database} on {url.host}: end it, or name "
                    "another database in BENTLEY_WAREHOUSE_URL"
                )
                raise ConfigurationError(msg)
            _make_room_on_server(settings, engine)
            yield
    finally:
        engine.dispose()


def _make_room_in_file(settings: Settings, path: Path) -> None:
    try:
        Warehouse.open(settings).close()
    except OriginError as error:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path.replace(_file_of(path, error.holds))
        for suffix in ("-wal", "-shm"):  # empty by now
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        former = _file_of(path, error.wanted)
        if former.exists():  # this origin was here before: go on where it stood
            former.replace(path)
        Warehouse.open(settings).close()


def _file_of(path: Path, origin: str) -> Path:
    """Where the bars of an origin wait while another's are in use."""
    return path.with_name(f"{path.stem}.{re.sub(r'[^A-Za-z0-9._-]', '-', origin)}{path.suffix}")


def _make_room_on_server(settings: Settings, engine: sa.Engine) -> None:
    try:
        Warehouse.open(settings).close()
    except OriginError as error:
        aside, former = (_database_of(engine.url, name) for name in (error.holds, error.wanted))
        _make(aside)
        here, there = str(engine.url.database), str(aside.database)
        with database.explained(), engine.connect() as connection:
            moves = [(here, there, table) for table in _tables(connection, here)]
            back = str(former.database)
            moves += [(back, here, table) for table in _tables(connection, back)]
            quoted = engine.dialect.identifier_preparer.quote_identifier
            # one statement: all of it or nothing, and at once however much they hold
            connection.exec_driver_sql(
                "RENAME TABLE "
                + ", ".join(
                    f"{quoted(source)}.{quoted(table)} TO {quoted(target)}.{quoted(table)}"
                    for source, target, table in moves
                )
            )
        Warehouse.open(settings).close()


def _database_of(url: URL, origin: str) -> URL:
    """Name the database in which the bars of an origin wait; the digest at its end is kept."""
    head = f"{url.database}_"
    tail = re.sub(r"[^A-Za-z0-9]", "_", origin)[-(_LONGEST - len(head)) :]
    return url.set(database=head + tail)


def _make(aside: URL) -> None:
    try:
        with database.explained():
            database.create(aside)
    except ConfigurationError as error:
        name = str(aside.database)
        msg = (
            f"the bars of another replay can't be set aside in {name}: let the user have it by "
            f"GRANT ALL ON `{name}`.*, or drop the replay's database to give them up"
        )
        raise ConfigurationError(msg) from error


def _tables(connection: Connection, name: str) -> list[str]:
    query = sa.text(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = :name "
        "AND table_type = 'BASE TABLE' ORDER BY table_name"
    )
    return [str(table) for table in connection.scalars(query, {"name": name})]
