"""How far a source has been read: saved only with the rows that it covers."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from bentley.warehouse.schema import source_states


def load(connection: Connection, source: str, name: str) -> Any:
    """Read one state; None where none was saved."""
    c = source_states.c
    found = connection.scalar(sa.select(c.state).where(c.source == source, c.name == name))
    return None if found is None else json.loads(found)


def under(connection: Connection, source: str, prefix: str) -> dict[str, Any]:
    """Read all states of a source whose names begin with `prefix`, by name."""
    c = source_states.c
    named = sa.select(c.name, c.state).where(
        c.source == source, c.name.startswith(prefix, autoescape=True)
    )
    return {row.name: json.loads(row.state) for row in connection.execute(named)}


def remove(connection: Connection, source: str, name: str) -> None:
    """Remove one state, if it is there."""
    c = source_states.c
    connection.execute(source_states.delete().where(c.source == source, c.name == name))


def save(connection: Connection, source: str, name: str, state: Any, *, batch_id: int) -> None:
    """Replace one state."""
    c = source_states.c
    values = {"state": json.dumps(state, sort_keys=True), "batch_id": batch_id}
    updated = connection.execute(
        source_states.update().where(c.source == source, c.name == name).values(**values)
    )
    if not updated.rowcount:
        connection.execute(source_states.insert().values(source=source, name=name, **values))
