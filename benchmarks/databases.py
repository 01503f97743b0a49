"""The databases that the comparisons of writing and reading run on, one by one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mariadb
from harness import Context
from services import free_port

from bentley.settings import load
from bentley.warehouse.warehouse import Warehouse


@dataclass(frozen=True)
class Database:
    """A kind of database: `warehouse` opens a new and empty one of it."""

    name: str
    context: Context
    server: mariadb.Server | None = None

    @contextmanager
    def warehouse(self) -> Iterator[Warehouse]:
        """Open a migrated warehouse without a row in it."""
        url = None if self.server is None else self.server.database()
        settings = load(home=self.context.fresh("warehouse"), warehouse_url=url)
        with Warehouse.open(settings) as found:
            yield found


@contextmanager
def kinds(context: Context) -> Iterator[list[Database]]:
    """Start what is here, and say what is not."""
    sqlite = Database("SQLite", context)
    if not mariadb.installed():
        context.say(mariadb.MISSING)
        yield [sqlite]
        return
    context.say("starting a MariaDB server")
    with mariadb.server(free_port()) as server:
        yield [sqlite, Database("MariaDB", context, server)]
