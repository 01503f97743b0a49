"""What a verification says of freshness, rejects and gaps, and of a part of the bars."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from bentley.domain.clock import iso
from bentley.stages import verify
from bentley.stages.process import process
from bentley.warehouse import quarantine
from bentley.warehouse.schema import knime_processed
from bentley.warehouse.warehouse import Warehouse
from unit.stages.chain_support import HOUR, START, bar, ingest_batch, series

FRESH = "the data is fresh by the exchange's clock"
BALANCE = "rows in equal rows out plus rejects"


@pytest.fixture
def verified(opened, monkeypatch):
    """Verify at a given clock, with an exchange that trades and an MLflow that is not asked."""

    def at(now, *, selected=False, **more):
        monkeypatch.setattr(verify.exchange, "server_time", lambda _: now)
        monkeypatch.setattr(verify.exchange, "status", lambda *_: "TRADING")
        monkeypatch.setattr(verify, "_logged", lambda *_: (verify.Check("mlflow", True, ""), []))
        settings = opened.model_copy(update={"symbols": ("BTCUSDT",)} | more)
        found = verify.verify(settings, selected=selected)
        return found, {check.name: check for check in found.checks}

    return at


def test_freshness_is_of_the_bars_that_had_closed_by_then(verified, warehouse):
    ingest_batch(warehouse, series(100))
    found, checks = verified(START + 101 * HOUR)
    assert checks[FRESH].held
    assert found.series[0].freshness_hours == pytest.approx(1, abs=0.01)
    found, checks = verified(START + 101 * HOUR, until=START + 40 * HOUR)
    assert checks[FRESH].held
    assert found.series[0].freshness_hours == pytest.approx(0, abs=0.01)
    found, checks = verified(START + 101 * HOUR, until=START - HOUR)
    assert not checks[FRESH].held
    assert found.series[0].freshness_hours is None


def test_bars_ahead_of_the_clock_are_no_fresh_data(verified, warehouse):
    ingest_batch(warehouse, series(100))
    _, checks = verified(START + 40 * HOUR)
    assert not checks[FRESH].held
    closed = iso(START + 100 * HOUR - 1)
    assert f"closed at {closed}, ahead of the exchange's clock" in checks[FRESH].detail


def test_a_replay_may_end_earlier_than_the_one_before(settings, monkeypatch):
    replayed = settings(origin="replay:klines@1", symbols="BTCUSDT")
    with Warehouse.open(replayed) as warehouse:
        ingest_batch(warehouse, series(100))
    monkeypatch.setattr(verify.exchange, "server_time", lambda _: START + 40 * HOUR)
    monkeypatch.setattr(verify, "_logged", lambda *_: (verify.Check("mlflow", True, ""), []))
    found = verify.verify(replayed)
    checks = {check.name: check for check in found.checks}
    assert checks[FRESH].held
    assert checks[FRESH].detail == "the oldest series that trades is 0.00 h old"


def test_a_reject_counts_until_a_good_row_has_its_place(verified, warehouse, opened):
    bad = bar(1, high="0.00000001")
    ingest_batch(warehouse, [bar(0), bad, bad | {"trades": "8"}, bar(2)])
    process(opened)
    found, _ = verified(START + 3 * HOUR)
    assert found.series[0].rejected == 1
    ingest_batch(warehouse, [bar(1)])
    process(opened)
    found, checks = verified(START + 3 * HOUR)
    assert found.series[0].rejected == 0
    assert checks[BALANCE].detail == "3 closed bars in = 3 processed + 0 rejected"


def test_what_has_no_time_is_a_standing_reject(warehouse):
    ingest_batch(warehouse, [bar(0), bar(1, open_time="never")])
    with warehouse.reading() as connection:
        assert quarantine.standing(connection, "BTCUSDT", "1h") == 1


def test_every_gap_is_listed(verified, warehouse):
    ingest_batch(warehouse, [*series(3), *series(2, first=10), *series(1, first=13)])
    found, _ = verified(START + 14 * HOUR)
    text = "\n".join(verify.table(found))
    assert f"- {iso(START + 3 * HOUR)} to {iso(START + 9 * HOUR)}: 7 bars" in text
    assert f"- {iso(START + 12 * HOUR)} to {iso(START + 12 * HOUR)}: 1 bar" in text


def test_a_part_of_the_bars_can_be_verified(verified, warehouse, opened):
    ingest_batch(warehouse, series(50))
    process(opened)
    with warehouse.writing() as connection:
        lost = knime_processed.c.open_time == START + 5 * HOUR
        connection.execute(sa.delete(knime_processed).where(lost))
    now = START + 51 * HOUR
    _, checks = verified(now)
    assert not checks[BALANCE].held
    _, checks = verified(now, selected=True, since=START + 6 * HOUR)
    assert checks[BALANCE].detail == "44 closed bars in = 44 processed + 0 rejected"
    _, checks = verified(now, selected=True, since=START + 5 * HOUR, until=START + 7 * HOUR)
    assert checks[BALANCE].detail.startswith("2 closed bars in = 1 processed")
    assert not checks[BALANCE].held
