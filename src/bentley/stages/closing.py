"""How the batch of a stage is closed: on what its table holds, or as one that wrote nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy.engine import Connection

from bentley.domain.errors import FatalError, described
from bentley.warehouse import ledger
from bentley.warehouse.ledger import Batch
from bentley.warehouse.warehouse import Warehouse

DEAD = "the process ended before its work was done"


class Counted(NamedTuple):
    """What the table holds of a batch: rows, those that its consumers must know of, and the last."""

    rows: int
    news: int
    watermark: int | None
    checksum: str | None


def counted(
    warehouse: Warehouse,
    batch_id: int,
    count: Callable[[Connection, Batch], Counted],
    *,
    what: str,
    details: Mapping[str, Any] | None = None,
    error: str | None = None,
    then: Callable[[Connection], None] | None = None,
) -> Batch:
    """Count the batch's rows back by `count` and close it on what is found; `what` names them.

    `then` is done in the transaction that commits it, and not for a batch that failed. In bulk that has been done piece by piece, after each one's commit.

    This is done before the transaction that closes the batch, whose lock all other stages wait
    for; nobody else writes the rows, for the caller holds the stage's lock, and a commit still on
    its way is waited for. Raises FatalError for rows that are not there.
    """
    with warehouse.writing() as connection:
        ledger.await_commit(connection, batch_id)
    with warehouse.snapshot() as connection:
        batch = ledger.get(connection, batch_id)
        assert batch is not None  # noqa: S101 - the caller has just begun it
        found = count(connection, batch)
    lost = None
    if (found.rows, found.news) != (batch.rows_written, batch.rows_news):
        lost = (
            f"batch {batch_id} wrote {batch.rows_written} {what}, {batch.rows_news} of them "
            f"closed, but {found.rows} and {found.news} are in the table"
        )
    with warehouse.writing() as connection:
        ledger.close(
            connection,
            batch_id,
            checksum=found.checksum,
            watermark=found.watermark,
            details=details or {},
            error=error or lost,
        )
        if then is not None and not (error or lost):
            then(connection)
    if lost and not error:
        raise FatalError(lost)
    with warehouse.reading() as connection:
        closed = ledger.get(connection, batch_id)
    assert closed is not None  # noqa: S101
    return closed


def without_rows(warehouse: Warehouse, batch_id: int, error: BaseException | str) -> None:
    """Close a batch that failed and whose stage writes all or nothing."""
    said = error if isinstance(error, str) else described(error)
    with warehouse.writing() as connection:
        ledger.close(connection, batch_id, checksum=None, error=said)
