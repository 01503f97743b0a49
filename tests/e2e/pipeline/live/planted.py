"""A password that nobody may read again: planted in the settings, looked for in all that is left."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psutil
import sqlalchemy as sa

CORE = "planted7Qxzv93"
"""The part of it that is written alike in an address, in JSON and in a shell."""

PASSWORD = f"{CORE}/!@"


def plant(mariadb) -> str:
    """Make an empty database for a user of this password; return its address."""
    address = sa.make_url(mariadb.database())
    with mariadb.admin() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE USER IF NOT EXISTS 'live'@'127.0.0.1' IDENTIFIED BY %s", [PASSWORD])
        cursor.execute("GRANT ALL ON *.* TO 'live'@'127.0.0.1'")
    login = f"live:{quote(PASSWORD, safe='')}"
    return f"{address.drivername}://{login}@{address.host}:{address.port}/{address.database}"


def places(text: str, home: Path, address: str) -> list[str]:
    """Every file below `home`, and every column of a database, that holds the text."""
    found = {
        str(file.relative_to(home))
        for file in home.rglob("*")
        if file.is_file() and text.encode() in file.read_bytes()
    }
    # a file shows no cell that lies across two of its pages
    for file in home.rglob("*.db"):
        with closing(sqlite3.connect(file)) as connection:
            found |= {f"{file.name}:{column}" for column in _of_sqlite(connection, text)}
    found |= {f"warehouse:{column}" for column in _of_server(address, text)}
    return sorted(found)


def _of_sqlite(connection: sqlite3.Connection, text: str) -> Iterator[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table'"
    for (table,) in connection.execute(query).fetchall():
        rows = connection.execute(f'SELECT * FROM "{table}"')
        yield from _columns(table, [one[0] for one in rows.description], rows, text)


def _of_server(address: str, text: str) -> Iterator[str]:
    engine = sa.create_engine(address)
    with engine.connect() as connection:
        for table in sa.inspect(connection).get_table_names():
            rows = connection.exec_driver_sql(f"SELECT * FROM `{table}`")
            yield from _columns(table, list(rows.keys()), rows, text)
    engine.dispose()


def _columns(table: str, names: list[str], rows, text: str) -> Iterator[str]:
    for row in rows:
        for name, cell in zip(names, row, strict=True):
            shown = cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell)
            if text in shown:
                yield f"{table}.{name}"


class ProcessList(threading.Thread):
    """Every command line that `ps` could have shown of our processes, looked at twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[str] = set()
        self._ended = threading.Event()

    def run(self) -> None:
        this = psutil.Process()
        while not self._ended.wait(0.5):
            for process in this.children(recursive=True):
                try:
                    self.seen.add(" ".join(process.cmdline()))
                except psutil.Error:
                    continue

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
