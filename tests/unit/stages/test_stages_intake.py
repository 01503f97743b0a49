"""What is counted and summed of a batch while it is written is what the table holds."""

from __future__ import annotations

from contextlib import closing

import pytest

from bentley.domain.bars import Sifted, checksum
from bentley.stages.intake import Intake, close
from bentley.warehouse import bars, ledger
from bentley.warehouse.ledger import INGEST
from unit.stages.chain_support import HOUR, START, bar, frame, ingest_batch, series


@pytest.fixture
def intake(warehouse):
    with warehouse.writing() as connection:
        batch_id = ledger.begin(connection, INGEST, engine="test")
    with closing(Intake(warehouse, batch_id, source="test", max_share=1.0, bulk=True)) as intake:
        yield intake


def store(intake, *chunks):
    for rows in chunks:
        sound = frame(rows)
        intake.store(Sifted(sound, sound.clear().with_columns(reason=None)), read=sound.height)


def of_table(warehouse, batch_id):
    with warehouse.reading() as connection:
        batch = ledger.get(connection, batch_id)
        return checksum(bars.of_batch(connection, batch_id, batch.ranges))


def test_in_the_order_of_the_key_it_is_that_of_the_table(warehouse, intake):
    ingest_batch(warehouse, series(20, seed=9)[5:8])  # as they are: not written again
    other = series(5, symbol="ETHUSDT")
    store(intake, series(10, seed=9), series(20, seed=9)[10:], series(3, first=30), other)
    known = intake.counted()
    assert known == (25, 25, START + 32 * HOUR, of_table(warehouse, intake.batch_id))
    closed = close(warehouse, intake.batch_id, known=intake.counted())
    assert (closed.checksum, closed.rows_written) == (known.checksum, 17 + 3 + 5)
    assert closed.watermark == START + 32 * HOUR


@pytest.mark.parametrize(
    "chunks",
    [
        [series(10, first=20), series(10)],
        [series(10, symbol="ETHUSDT"), series(10)],
        [series(3), [bar(2, "7.00000000")]],
        [[*series(3), *series(3, symbol="ETHUSDT")]],
        [series(3)[::-1]],
    ],
    ids=["later first", "other order", "twice", "two series", "backwards"],
)
def test_in_any_other_order_the_table_is_asked(warehouse, intake, chunks):
    store(intake, *chunks)
    assert intake.counted() is None
    closed = close(warehouse, intake.batch_id, known=intake.counted())
    assert closed.checksum == of_table(warehouse, intake.batch_id)
