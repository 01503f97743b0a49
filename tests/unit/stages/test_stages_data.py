"""What is stored, by day and by source, and whether it still is what it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from bentley.domain.errors import ConfigurationError
from bentley.services.exchange.generated import GeneratedMarket
from bentley.services.exchange.server import ExchangeServer
from bentley.stages import data_audit, data_status
from bentley.tracking import calendar_picture
from bentley.warehouse.schema import binance_ohlcv
from unit.stages.chain_support import HOUR, START, bar, ingest_batch, series

DAY = 24 * HOUR
CHECKSUMS = "checksums recomputed are the ledger's"
GAPS = "every gap on the grid is recorded"
SAMPLE = "sampled bars are the exchange's"


@pytest.fixture(scope="module")
def exchange():
    market = GeneratedMarket(5, ["BTCUSDT", "ETHUSDT"])
    with ExchangeServer(market, now=START + 400 * HOUR) as server:
        yield server


@pytest.fixture
def configured(opened, exchange):
    return opened.model_copy(update={"exchange_url": exchange.url, "symbols": ("BTCUSDT",)})


@pytest.fixture
def drawn(monkeypatch):
    """The shares by day that were drawn."""
    seen = {}
    real = calendar_picture.calendar

    def calendar(days, *, origin):
        seen.update({label: dict(shares) for label, shares in days.items()})
        return real(days, origin=origin)

    monkeypatch.setattr(calendar_picture, "calendar", calendar)
    return seen


def served(exchange, symbol, count):
    names = list(bar(0))[2:]
    rows = exchange.exchange.market.klines(
        symbol, "1h", START, START + count * HOUR, count, exchange.now
    )
    return [
        {"symbol": symbol, "interval": "1h"} | dict(zip(names, map(str, row), strict=False))
        for row in rows
    ]


def test_the_status_of_every_series(configured, warehouse, exchange, drawn):
    ingest_batch(warehouse, [*series(10), *series(60, first=14)])
    ingest_batch(warehouse, series(3, symbol="ETHUSDT"))
    found = data_status.status(configured)
    one, other = found.series
    assert (one["symbol"], one["rows"], one["gaps"], one["missing_bars"]) == ("BTCUSDT", 70, 1, 4)
    assert one["sources"] == {"test": 70}
    assert one["freshness_hours"] == pytest.approx(400 - 74, abs=0.01)
    assert (other["symbol"], other["rows"]) == ("ETHUSDT", 3)
    assert found.exchange_time == exchange.now
    first = START // DAY  # it begins at noon, and the gap lies over midnight
    assert START % DAY == 12 * HOUR
    shares = {first: 10 / 12, first + 1: 22 / 24, first + 2: 1.0, first + 3: 1.0}
    assert drawn["BTCUSDT 1h"] == pytest.approx(shares)
    assert Path(found.picture).read_bytes().startswith(b"\x89PNG")
    selected = data_status.status(configured, every=False)
    assert [one["symbol"] for one in selected.series] == ["BTCUSDT"]


def test_a_status_without_an_exchange_and_of_nothing(configured, warehouse):
    away = configured.model_copy(update={"exchange_url": "http://127.0.0.1:9"})
    found = data_status.status(away)
    assert (found.series, found.exchange_time) == ((), None)
    ingest_batch(warehouse, series(3))
    (one,) = data_status.status(away).series
    assert (one["rows"], one["freshness_hours"], one["behind"]) == (3, None, None)


def test_a_long_interval_has_days_without_a_bar(configured, warehouse, drawn):
    monday = 1_600_041_600_000  # 2020-09-14
    weeks = [
        bar(0, interval="1w", open_time=monday + 7 * DAY * at, close_time=monday + 7 * DAY * at + 9)
        for at in (0, 1, 3)
    ]
    ingest_batch(warehouse, weeks)
    data_status.status(configured)
    assert list(drawn["BTCUSDT 1w"].values()) == [1.0, 1.0, 0.0, 1.0]


def test_what_was_not_touched_holds(configured, warehouse, exchange):
    rows = served(exchange, "BTCUSDT", 300)
    ingest_batch(warehouse, rows[:200])
    ingest_batch(warehouse, rows[200:])
    found = data_audit.audit(configured, seed=1)
    assert found.held, found.checks
    assert found.checks[0].detail == "2 batches as written"
    assert found.checks[2].detail.endswith("bars compared, cell by cell")
    assert int(found.checks[2].detail.split()[0]) > 40
    assert len(found.checks) == 3  # without stocks there is nothing of theirs to check


def test_where_nothing_is_there_is_nothing_that_holds(configured, warehouse, exchange):
    with pytest.raises(ConfigurationError, match=r"nothing is stored in .*: run `bentley sync`"):
        data_audit.audit(configured)
    ingest_batch(warehouse, served(exchange, "BTCUSDT", 100))
    other = configured.model_copy(update={"symbols": ("ETHUSDT",)})
    with pytest.raises(ConfigurationError, match="no bar of the series asked for"):
        data_audit.audit(other, every=False)
    with warehouse.writing() as connection:
        connection.execute(sa.delete(binance_ohlcv))
    found = data_audit.audit(configured)  # but what was there and is gone is told
    assert found.checks[0].detail == "100 of the 100 bars of batch 1 are gone"


def test_every_way_to_tamper_is_seen(configured, warehouse, exchange):
    rows = served(exchange, "BTCUSDT", 100)
    ingest_batch(warehouse, rows)
    c = binance_ohlcv.c

    def checks(**more):
        found = data_audit.audit(configured.model_copy(update=more), seed=1)
        return {check.name: check for check in found.checks}

    corrected = dict(rows[10], trades="999999")
    ingest_batch(warehouse, [corrected])
    found = checks()
    assert found[CHECKSUMS].held
    assert found[CHECKSUMS].detail.endswith("1 with bars that later batches have replaced")
    assert "trades is 999999 here" in found[SAMPLE].detail
    with warehouse.writing() as connection:
        connection.execute(binance_ohlcv.update().where(c.batch_id == 2).values(volume="1.5"))
    found = checks()
    assert "batch 2 has" in found[CHECKSUMS].detail
    assert not found[CHECKSUMS].held
    assert not found[SAMPLE].held
    with warehouse.writing() as connection:
        gone = c.open_time.between(START + 50 * HOUR, START + 52 * HOUR)
        connection.execute(sa.delete(binance_ohlcv).where(gone))
    found = checks()
    assert "3 of the 100 bars of batch 1 are gone" in found[CHECKSUMS].detail
    assert "the gap of 3 bars" in found[GAPS].detail


def test_an_exchange_out_of_reach_leaves_open_what_it_would_say(configured, warehouse, exchange):
    ingest_batch(warehouse, served(exchange, "BTCUSDT", 100))
    away = configured.model_copy(update={"exchange_url": "http://127.0.0.1:9"})
    found = data_audit.audit(away)
    assert [check.held for check in found.checks] == [True, True, None]
    assert found.to_dict()["held"] is None
    assert found.checks[2].detail.startswith("not compared: ")
    assert "can't be reached" in found.checks[2].detail
    with warehouse.writing() as connection:
        connection.execute(binance_ohlcv.update().values(volume="1.5"))
    assert data_audit.audit(away).held is False


def test_an_exchange_that_goes_away_leaves_named_what_it_was_not_asked_for(
    configured, warehouse, exchange
):
    rows = served(exchange, "BTCUSDT", 30)
    others = [f"X{at}USDT" for at in range(9)]
    ingest_batch(warehouse, [*rows, *(row | {"symbol": one} for row in rows for one in others)])
    exchange.faults([{"kind": "418", "path": "/api/v3/klines"}])
    try:
        check = data_audit.audit(configured).checks[2]
    finally:
        exchange.clear_faults()
    assert check.held is None
    assert check.detail.startswith("not compared: BTCUSDT 1h: ")
    assert "; X0USDT 1h; X1USDT 1h; X2USDT 1h; X3USDT 1h; 5 more; 0 bars" in check.detail


def test_what_is_no_exchange_fails_the_check(configured, warehouse, exchange):
    ingest_batch(warehouse, served(exchange, "BTCUSDT", 30))
    wrong = configured.model_copy(update={"exchange_url": f"{exchange.url}/elsewhere"})
    assert data_audit.audit(wrong).checks[2].held is False


def test_a_symbol_that_the_exchange_does_not_know_leaves_the_others_compared(
    configured, warehouse, exchange
):
    rows = served(exchange, "BTCUSDT", 100)
    ingest_batch(warehouse, [*rows, *(row | {"symbol": "AGONEUSDT"} for row in rows)])
    check = data_audit.audit(configured).checks[2]
    assert check.held is None
    assert check.detail.startswith("not compared: AGONEUSDT 1h: ")
    assert int(check.detail.rpartition("; ")[2].split()[0]) > 40


def test_a_picture_of_years_shows_the_lowest_share():
    days = dict.fromkeys(range(10000, 14000), 1.0)
    days[12_345] = 0.5
    picture = calendar_picture.calendar({"BTCUSDT 1m": days}, origin="exchange")
    whole = calendar_picture.calendar(
        {"BTCUSDT 1m": dict.fromkeys(range(10_000, 14_000), 1.0)}, origin="exchange"
    )
    assert picture != whole
    assert calendar_picture.calendar({}, origin="exchange").startswith(b"\x89PNG")
