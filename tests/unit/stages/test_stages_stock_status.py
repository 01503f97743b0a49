"""What is said of the stocks that are stored: coverage, checks, and the master's report."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from archive_support import ms
from bentley.sources import catalog
from bentley.stages import (
    data_audit,
    data_status,
    orchestrate,
    stock_consensus,
    stock_pull,
    stock_status,
)
from bentley.warehouse.ledger import RUNNING, STOCKS
from bentley.warehouse.schema import batches, stock_gaps, stock_prices
from bentley.warehouse.schema import stock_consensus as decided
from bentley.warehouse.warehouse import Warehouse
from stock_support import row

CONSENSUS = "the consensus follows from the prices"
CHECKSUMS = "checksums of stocks are the ledger's"
GAPS = "every missing session is recorded"
SAMPLE = "sampled prices are their sources'"


@pytest.fixture
def stocked(market, settings, database_url, monkeypatch):
    """AAPL of two sources with a hole, and settings that lead to them."""
    monkeypatch.setattr(stock_pull, "clock", lambda: ms("2024-01-11T00:00:00"))
    market.histories["AAPL"] = [
        row("2024-01-02"),
        row("2024-01-03"),
        row("2024-01-05", "101"),
        row("2024-01-08"),
    ]
    given = settings(
        warehouse_url=database_url,
        exchange_url="http://127.0.0.1:9",
        since="2024-01-01",
        tickers="AAPL MSFT",
        max_failed_share=1,
        **market.settings(),
    )
    for name in ("tiingo", "yahoo"):
        stock_pull.pull(given, catalog.named(name))
    stock_consensus.decide(given)
    return given


def test_the_status_of_stocks(stocked):
    found = data_status.status(stocked)
    (one,) = found.stocks
    assert one.pop("behind") > 400
    assert one == {
        "ticker": "AAPL",
        "rows": 4,
        "first": "2024-01-02",
        "last": "2024-01-08",
        "missing": 1,
        "flags": {"ok": 4},
        "sources": {"tiingo": 4, "yahoo": 4},
    }
    with Warehouse.open(stocked) as warehouse, warehouse.reading() as connection:
        days = stock_status.by_day(connection, "AAPL")
    first = ms("2024-01-02") // 86_400_000
    assert days == {first: 1, first + 1: 1, first + 2: 0, first + 3: 1, first + 6: 1}


def checks(given):
    return {one.name: one for one in data_audit.audit(given, seed=1).checks}


def test_what_was_not_touched_holds(stocked):
    found = checks(stocked)
    for name in (CONSENSUS, CHECKSUMS, GAPS, SAMPLE):
        assert found[name].held, found[name]
    assert found[SAMPLE].detail == "8 sessions compared, cell by cell"
    assert found[CHECKSUMS].detail == "2 batches as written"


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        (stock_prices.update().where(stock_prices.c.source == "yahoo").values(close=7), CHECKSUMS),
        (stock_prices.update().where(stock_prices.c.source == "tiingo").values(close=7), SAMPLE),
        (decided.update().values(close=7), CONSENSUS),
        (decided.delete().where(decided.c.session == sa.literal_column("'2024-01-05'")), GAPS),
        (stock_gaps.delete(), GAPS),
    ],
)
def test_every_way_to_tamper_is_seen(stocked, change, fails):
    with Warehouse.open(stocked) as warehouse, warehouse.writing() as connection:
        connection.execute(change)
    assert not checks(stocked)[fails].held


def gone(table, *where):
    return table.delete().where(*where)


def late(table):
    """The last two of the four sessions."""
    return table.c.session > sa.literal_column("'2024-01-04'")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            [gone(table, late(table)) for table in (stock_prices, decided)],
            "2 of the 4 prices of batch 1 are gone; 2 of the 4 prices of batch 2 are gone",
        ),
        (
            # That a later batch has the same sessions of another source makes up for none.
            [gone(stock_prices, late(stock_prices), stock_prices.c.source == "tiingo")],
            "2 of the 4 prices of batch 1 are gone",
        ),
        (
            [gone(stock_prices), gone(decided), gone(stock_gaps)],
            "4 of the 4 prices of batch 1 are gone; 4 of the 4 prices of batch 2 are gone",
        ),
        ([gone(stock_prices)], "4 of the 4 prices of batch 1 are gone; 4 of the 4"),
    ],
    ids=["the last of all", "the last of one source", "everything", "all prices"],
)
def test_prices_that_are_gone_are_seen(stocked, changes, said):
    with Warehouse.open(stocked) as warehouse, warehouse.writing() as connection:
        for change in changes:
            connection.execute(change)
    found = checks(stocked)[CHECKSUMS]
    assert not found.held
    assert found.detail.startswith(said)


def test_a_consensus_that_is_gone_as_a_whole_is_seen(stocked):
    with Warehouse.open(stocked) as warehouse, warehouse.writing() as connection:
        connection.execute(gone(decided))
        connection.execute(gone(stock_gaps))
    found = checks(stocked)
    assert found[CHECKSUMS].held
    assert not found[CONSENSUS].held
    assert found[SAMPLE].held  # prices are compared without one, too


def test_what_a_pull_at_work_has_stored_is_not_decided_yet(stocked):
    with Warehouse.open(stocked) as warehouse, warehouse.writing() as connection:
        connection.execute(gone(decided))
        connection.execute(gone(stock_gaps))
        of = batches.c.stage == STOCKS
        connection.execute(batches.update().where(of).values(status=RUNNING))
    assert {one.held for one in checks(stocked).values()} == {True}


def test_prices_that_a_later_batch_has_replaced_are_not_gone(stocked, market):
    market.histories["AAPL"][1] = row("2024-01-03", "100.5")
    stock_pull.pull(stocked, catalog.named("tiingo"), again=True)
    found = checks(stocked)[CHECKSUMS]
    assert found.held
    assert found.detail == "2 batches as written, 1 with prices that later batches have replaced"
    with Warehouse.open(stocked) as warehouse, warehouse.writing() as connection:
        last = stock_prices.c.session == sa.literal_column("'2024-01-08'")
        connection.execute(gone(stock_prices, stock_prices.c.batch_id == 1, last))
    found = checks(stocked)[CHECKSUMS]
    assert not found.held
    assert found.detail == "1 of the 4 prices of batch 1 are gone"


def test_a_source_that_can_not_be_asked_leaves_the_check_open_and_others_asked(stocked, market):
    said = {"detail": "Invalid token."}
    market.say("tiingo", 403, said, Content_Type="application/json")
    check = checks(stocked)[SAMPLE]
    assert check.held is None
    assert "its key is refused" in check.detail
    assert check.detail.endswith("; 4 sessions compared, cell by cell")


def test_a_source_whose_key_is_gone_leaves_the_check_open(stocked):
    check = checks(stocked.model_copy(update={"tiingo_api_key": None}))[SAMPLE]
    assert check.held is None
    assert "TIINGO_API_KEY" in check.detail


def test_the_master_tells_how_fresh_they_are(stocked):
    shares = orchestrate._shares(stocked, ms("2024-01-11T00:00:00"))
    assert stock_status.brief(shares) == (
        "AAPL to 2024-01-08, 2 sessions behind, MSFT has no price yet"
    )
    table = "\n".join(stock_status.table(shares))
    assert "| AAPL | 4 | 2024-01-02 | 2024-01-08 | 2 | 1 |" in table
    assert "| MSFT | 0 | - | - | - | - |" in table
    assert orchestrate._shares(stocked.model_copy(update={"tickers": ()}), 0) == []
    assert orchestrate._shares(stocked.model_copy(update={"origin": "replay"}), 0) == []
