"""Bring a database to the current schema, at the cost of one query where it is there already."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from bentley.domain.errors import ConfigurationError, RetriableError
from bentley.warehouse.database import exclusive, writing

HEAD = "0002"
"""The newest step in `migrations/versions`; a test holds the two together."""

_WAIT_SECONDS = 120


def upgrade(engine: Engine) -> None:
    """Run the steps that this database lacks, one process at a time.

    Raises ConfigurationError when a newer Bentley wrote the database.
    """
    if current(engine) == HEAD:
        return
    with exclusive(engine, "migrate", wait_seconds=_WAIT_SECONDS) as held:
        if not held:
            msg = "another process has been migrating the database for two minutes; try again"
            raise RetriableError(msg)
        version = current(engine)
        if version is not None and version > HEAD:
            msg = (
                f"the database is at schema {version}, newer than this Bentley's {HEAD}: "
                "update Bentley"
            )
            raise ConfigurationError(msg)
        if version != HEAD:
            _run(engine)


def current(engine: Engine) -> str | None:
    """The schema step of this database, None for an empty one."""
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.execute(
            sa.text("SELECT version_num FROM alembic_version")
        ).scalar()
        return found


def _run(engine: Engine) -> None:
    # Half a second to import, and needed once in a database's life.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
