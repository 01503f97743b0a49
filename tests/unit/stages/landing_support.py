"""A landing table as Airbyte's MySQL destination makes it, and rows in it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import sqlalchemy as sa

from bentley.domain.bars import FIELDS, INTEGERS
from bentley.warehouse import database
from unit.stages.chain_support import LATER

MINUTE = 60_000


def moment(millis):
    """A time as the destination writes it."""
    return datetime.fromtimestamp(millis / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def make(warehouse, name="klines", *, types=None, names=None, answered=False):
    """Create the table; `types` by our field, in place of the destination's own."""
    server = warehouse.engine.dialect.name != "sqlite"
    types = {name: "BIGINT" if name in INTEGERS else "TEXT" for name in FIELDS} | (types or {})
    quote = warehouse.engine.dialect.identifier_preparer.quote
    columns = [f"{quote((names or {}).get(one, one))} {types[one]}" for one in FIELDS]
    columns += ["answered_at BIGINT"] * answered
    extracted = "TIMESTAMP(6)" if server else "VARCHAR(1024)"
    with warehouse.writing() as connection:
        connection.exec_driver_sql(
            f"CREATE TABLE {name} (_airbyte_raw_id VARCHAR(36) NOT NULL, "
            f"_airbyte_extracted_at {extracted} NOT NULL, _airbyte_meta JSON NOT NULL, "
            f"_airbyte_generation_id BIGINT, {', '.join(columns)})"
        )


def land(warehouse, rows, *, at=LATER + MINUTE, name="klines", names=None, answered=None):
    """Write rows as a job does that extracts them at `at`, one a millisecond, and were answered."""
    table = sa.table(
        name,
        *(sa.column(one) for one in ("_airbyte_raw_id", "_airbyte_extracted_at", "_airbyte_meta")),
        *(sa.column((names or {}).get(one, one)) for one in FIELDS),
        *([] if answered is None else [sa.column("answered_at")]),
    )
    written = [
        {
            "_airbyte_raw_id": str(uuid.uuid4()),
            "_airbyte_extracted_at": moment(at + number),
            "_airbyte_meta": '{"changes":[]}',
            **({} if answered is None else {"answered_at": answered}),
            **{(names or {}).get(field, field): cell for field, cell in row.items()},
        }
        for number, row in enumerate(rows)
    ]
    with database.explained(), database.writing(warehouse.engine) as connection:
        connection.execute(table.insert(), written)
