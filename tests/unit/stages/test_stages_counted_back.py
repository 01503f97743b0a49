"""A batch is closed on what its table holds, and a verification sees one state of all tables."""

import pytest
import sqlalchemy as sa

from bentley.domain.errors import ConfigurationError, FatalError
from bentley.sources import exchange
from bentley.stages import ingest, intake, table_checks, verify
from bentley.stages.process import process
from bentley.warehouse import bulk, ledger
from bentley.warehouse.ledger import COMMITTED, FAILED, INGEST, PROCESS
from bentley.warehouse.processed import Span
from bentley.warehouse.schema import binance_ohlcv, knime_processed
from unit.stages.chain_support import (
    HOUR,
    LATER,
    START,
    add_rows,
    bar,
    batches,
    ingest_batch,
    series,
)


def test_bars_that_are_not_there_any_more_fail_the_batch(warehouse):
    with warehouse.writing() as connection:
        batch_id = ledger.begin(connection, INGEST, engine="test")
    add_rows(warehouse, batch_id, series(50))
    with warehouse.writing() as connection:
        lost = binance_ohlcv.c.open_time < START + 10 * HOUR
        connection.execute(binance_ohlcv.delete().where(lost))
    with pytest.raises(FatalError, match="wrote 50 bars, 50 of them closed, but 40 and 40"):
        intake.close(warehouse, batch_id)
    assert [batch.status for batch in batches(warehouse, INGEST)] == [FAILED]


def test_a_bar_that_a_batch_writes_twice_is_one_bar(warehouse):
    with warehouse.writing() as connection:
        batch_id = ledger.begin(connection, INGEST, engine="test")
    forming = START + 3 * HOUR + 1  # the last of the four has not closed
    add_rows(warehouse, batch_id, series(4), now=forming)
    add_rows(warehouse, batch_id, [bar(3, close="101.00000000")])
    add_rows(warehouse, batch_id, [bar(2, close="102.00000000")])
    intake.close(warehouse, batch_id)
    (batch,) = batches(warehouse, INGEST)
    assert (batch.status, batch.rows_written, batch.rows_news) == (COMMITTED, 4, 4)


def test_a_verification_sees_one_state_while_another_run_lands(opened, warehouse, monkeypatch):
    """The daily master beside the hourly sync: neither may see half of the other."""
    ingest_batch(warehouse, series(30))
    process(opened)
    landed = []
    real = verify.gaps.of_series

    def meanwhile(connection, symbol, interval):
        if not landed:  # the bars of this series are counted, its gaps are still to be read
            landed.append(symbol)
            ingest_batch(warehouse, series(5, first=40))
            process(opened)
        return real(connection, symbol, interval)

    monkeypatch.setattr(verify.gaps, "of_series", meanwhile)
    monkeypatch.setattr(verify.exchange, "server_time", lambda _: START + 30 * HOUR)
    monkeypatch.setattr(verify.exchange, "status", lambda *_: "UNKNOWN")
    monkeypatch.setattr(verify, "_logged", lambda *_: (verify.Check("mlflow", True, ""), []))
    found = verify.verify(opened)
    assert landed
    held = {check.name: check.held for check in found.checks}
    held.pop("every batch is logged")  # nothing logs here
    assert all(held.values()), [check for check in found.checks if not check.held]
    assert [one.rows for one in found.series if one.rows] == [30]


def test_a_start_ahead_of_the_clock_is_refused_and_marks_nothing(opened, warehouse, monkeypatch):
    monkeypatch.setattr(exchange, "server_time", lambda _: START)
    with pytest.raises(ConfigurationError, match="lies ahead of the exchange's clock"):
        ingest.sync(opened.model_copy(update={"since": START + HOUR}))
    with warehouse.reading() as connection:
        assert connection.scalar(sa.text("SELECT COUNT(*) FROM source_states")) == 0


def test_what_cannot_even_start_is_in_the_ledger(opened, warehouse, monkeypatch):
    ingest_batch(warehouse, series(5))

    def broken(*_):
        msg = "KNIME_EXECUTABLE names nothing"
        raise ConfigurationError(msg)

    monkeypatch.setattr("bentley.stages.engines.choose", broken)
    with pytest.raises(ConfigurationError):
        process(opened)
    (batch,) = batches(warehouse, PROCESS)
    assert batch.status == FAILED
    assert "KNIME_EXECUTABLE names nothing" in (batch.error or "")


def test_selected_bars_are_processed_again(opened, warehouse):
    ingest_batch(warehouse, series(30))
    process(opened)
    assert process(opened).batch_id is None
    again = process(opened.model_copy(update={"since": START + 20 * HOUR}), again=True)
    assert again.rows_written == 10


def test_a_verification_pages_through_a_series(opened, warehouse, monkeypatch):
    ingest_batch(warehouse, series(60))
    process(opened)
    monkeypatch.setattr(table_checks, "_PAGE", 7)
    wanted = [Span("BTCUSDT", "1h", 0, LATER)]
    with warehouse.snapshot() as connection:
        whole = table_checks.checksums(connection, wanted)
        monkeypatch.setattr(table_checks, "_PAGE", 1000)
        assert table_checks.checksums(connection, wanted) == whole
    assert whole.held
    with warehouse.writing() as connection:
        c = knime_processed.c
        connection.execute(
            knime_processed.update().where(c.open_time == START + 50 * HOUR).values(close="1.5")
        )
    with warehouse.snapshot() as connection:
        assert not table_checks.checksums(connection, wanted).held


def test_a_page_of_a_join_is_of_the_join_still(opened, warehouse):
    ingest_batch(warehouse, series(60))
    process(opened)
    raw, done = binance_ohlcv.c, knime_processed.c
    both = binance_ohlcv.join(knime_processed, raw.open_time == done.open_time)
    query = sa.select(raw.open_time, done.close).select_from(both).where(raw.symbol == "BTCUSDT")
    with warehouse.reading() as connection:
        pages = list(bulk.pages(connection, query, raw.open_time, size=7))
    assert [page.height for page in pages] == [7] * 8 + [4]
