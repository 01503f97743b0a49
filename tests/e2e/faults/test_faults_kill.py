"""kill -9 of a stage's whole tree at random moments, and then a rerun: the same tables."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from archive_support import lines, put
from bentley.stages.backfill import backfill
from bentley.stages.ingest import sync
from bentley.stages.process import process
from bentley.stages.track import track
from bentley.warehouse import ledger
from bentley.warehouse.ledger import INGEST, PROCESS, TRACK
from bentley.warehouse.warehouse import Warehouse
from e2e.faults.conftest import finished, kill_tree, runs_of
from unit.stages.chain_support import batches, consumed, digest, ingest_unchecked, series

KILLS = 20
SEED = int(os.environ.get("KILL_SEED") or random.randrange(10**9))
"""Of the moments: new ones in every session, the same again with KILL_SEED."""


@dataclass(frozen=True)
class Kill:
    """A moment in seconds: after the start of the command, or after its batch has begun."""

    seconds: float
    within_batch: bool


def measured(place, stage, command):
    """Run a command to its end, and draw the moments of the kills from the time that it took.

    A quarter are spread over the whole command, one in each slice of it; the rest over the
    life of its batch, which is shorter than the start of Python.
    """
    start = time.monotonic()
    done = place.run(command)
    duration = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    with Warehouse.open(place.settings) as warehouse:
        work = max(batch.seconds for batch in batches(warehouse, stage))
    sys.stdout.write(f"KILL_SEED={SEED}: {command} took {duration:.2f} s, its work {work:.2f} s\n")
    rng = random.Random(SEED)
    slices = [(at + rng.random()) / KILLS for at in range(KILLS)]
    return [
        Kill(1.1 * part * work, within_batch=True)
        if at % 4
        else Kill(part * duration, within_batch=False)
        for at, part in enumerate(slices)
    ]


def killed(place, stage, command, kill):
    """Run the command and kill its whole tree; return whether its batch was open then."""
    process = place.start(command)
    try:
        with Warehouse.open(place.settings) as warehouse:
            while kill.within_batch and process.poll() is None and not is_open(warehouse, stage):
                time.sleep(0.01)
            deadline = time.monotonic() + kill.seconds
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            kill_tree(process)
            return is_open(warehouse, stage)
    finally:
        kill_tree(process)


def is_open(warehouse, stage):
    with warehouse.reading() as connection:
        return bool(ledger.running(connection, stage))


def each(trial: Callable[[int], object], count: int = KILLS):
    """Every trial, two at a time: they share nothing but the machine."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(trial, range(count)))


def prepared(place):
    """A database with two symbols' bars, gaps and bars that the workflow rejects."""
    rows = [*series(240, seed=3), *series(200, seed=4, symbol="ETHUSDT")]
    del rows[50:53]
    for at in (10, 120, 300):
        rows[at]["high"] = "0.50000000"
    with Warehouse.open(place.settings) as warehouse:
        for at in range(0, len(rows), 110):
            ingest_unchecked(warehouse, rows[at : at + 110])
    return place


def look(place):
    with Warehouse.open(place.settings) as warehouse:
        return digest(warehouse)


def test_sync(place, exchange):
    exchange.faults([{"kind": "slow", "path": "/api/v3/klines", "delay": 0.1, "every": 1}])
    clean = place("clean")
    kills = measured(clean, INGEST, "sync")
    right = look(clean)
    places = [place(f"kill-{at}", mariadb=at % 2 == 1) for at in range(KILLS)]
    for one in places:
        Warehouse.open(one.settings).close()

    def trial(at):
        one = places[at]
        in_work = killed(one, INGEST, "sync", kills[at])
        sync(one.settings)
        assert look(one) == right, at
        with Warehouse.open(one.settings) as warehouse:
            made = batches(warehouse, INGEST)
        assert {batch.status for batch in made} <= {"committed", "failed"}
        assert made[-1].status == "committed"
        return in_work

    caught = each(trial)
    assert sum(caught) >= KILLS // 3, caught  # else the moments miss the work


@pytest.fixture
def archived(tmp_path):
    """Settings and environment of a backfill of 32 days by the minute, an hour of them missing."""
    for label, since, until in (
        ("2023-10", "2023-10-01", "2023-10-31T23:00"),  # its last hour is a gap
        ("2023-11-01", "2023-11-01", "2023-11-02"),
    ):
        put(tmp_path / "archive", label, lines(since, until, interval="1m"), interval="1m")
    given = {"archive": str(tmp_path / "archive"), "symbols": ("BTCUSDT",), "intervals": ("1m",)}
    extra = {
        "BENTLEY_ARCHIVE": given["archive"],
        "BENTLEY_SYMBOLS": "BTCUSDT",
        "BENTLEY_INTERVALS": "1m",
    }
    return given, extra


def test_backfill(place, archived):
    given, extra = archived
    clean = place("clean", extra=extra)
    kills = measured(clean, INGEST, "backfill")[::3]
    right = look(clean)
    places = [place(f"kill-{at}", mariadb=at % 2 == 1, extra=extra) for at in range(len(kills))]
    for one in places:
        Warehouse.open(one.settings).close()

    def trial(at):
        one = places[at]
        in_work = killed(one, INGEST, "backfill", kills[at])
        backfill(one.settings.model_copy(update=given))
        assert look(one) == right, at
        with Warehouse.open(one.settings) as warehouse:
            made = batches(warehouse, INGEST)
        assert {batch.status for batch in made} <= {"committed", "failed"}
        assert sum(batch.rows_news for batch in made) == 32 * 1440 - 60
        return in_work

    caught = each(trial, len(kills))
    assert sum(caught) >= len(kills) // 3, caught


@pytest.mark.parametrize("server", [False, True], ids=["sqlite", "mariadb"])
def test_backfill_that_is_interrupted(place, archived, server):
    """Ctrl-C ends it soon, with what it stored in a batch that is closed."""
    given, extra = archived
    one = place("interrupted", mariadb=server, extra=extra)
    Warehouse.open(one.settings).close()
    ends = set()
    for after in (0.1, 0.25, 0.4, 0.6):
        process = one.start("backfill")
        with Warehouse.open(one.settings) as warehouse:
            while process.poll() is None and not is_open(warehouse, INGEST):
                time.sleep(0.01)
            time.sleep(after)
            process.send_signal(signal.SIGINT)
            done = finished(process, timeout=30)
            told = "the next run goes on from there" in done.stdout + done.stderr
            ends.add((done.returncode, told, batches(warehouse, INGEST)[-1].status))
    assert (130, True, "failed") in ends, ends
    assert {code for code, *_ in ends} <= {0, 130}, ends
    backfill(one.settings.model_copy(update=given))
    with Warehouse.open(one.settings) as warehouse:
        assert sum(batch.rows_news for batch in batches(warehouse, INGEST)) == 32 * 1440 - 60


def test_process(place):
    clean = prepared(place("clean"))
    kills = measured(clean, PROCESS, "process")
    other = prepared(place("other", mariadb=True))
    process(other.settings)
    right = [look(clean), look(other)]  # doubles may differ in the last bits between databases
    places = [prepared(place(f"kill-{at}", mariadb=at % 2 == 1)) for at in range(KILLS)]

    def trial(at):
        one = places[at]
        in_work = killed(one, PROCESS, "process", kills[at])
        process(one.settings)
        assert look(one) == right[at % 2], at
        with Warehouse.open(one.settings) as warehouse:
            made = batches(warehouse, PROCESS)
            assert len(consumed(warehouse, PROCESS)) == 4
        assert [batch.status for batch in made if batch.rows_news] == ["committed"]
        return in_work

    caught = each(trial)
    assert sum(caught) >= KILLS // 3, caught


def test_track(place, mlflow_uri):
    """Exactly one finished MLflow run for the batch, whenever the first attempt died."""
    clean = prepared(place("clean", tracking_uri=mlflow_uri))
    process(clean.settings)
    kills = measured(clean, TRACK, "track")
    places = [
        prepared(place(f"kill-{at}", mariadb=at % 2 == 1, tracking_uri=mlflow_uri))
        for at in range(KILLS)
    ]
    for one in places:
        process(one.settings)

    def trial(at):
        one = places[at]
        before = look(one)
        in_work = killed(one, TRACK, "track", kills[at])
        track(one.settings)
        assert look(one) == before
        with Warehouse.open(one.settings) as warehouse:
            (batch,) = batches(warehouse, PROCESS)
            claim = f"{warehouse.name}:{batch.id}"
            assert list(consumed(warehouse, TRACK)) == [batch.id]
            with warehouse.reading() as connection:
                assert ledger.unconsumed(connection, TRACK) == []
        return claim, batch.rows_written, in_work

    trials = each(trial)
    for claim, written, _ in trials:
        (run,) = runs_of(mlflow_uri, claim)
        assert run.info.status == "FINISHED"
        assert run.data.metrics["rows_written"] == written
    assert sum(caught for *_, caught in trials) >= KILLS // 3


@pytest.mark.parametrize("server", [False, True], ids=["sqlite", "mariadb"])
def test_two_copies_of_each_stage_at_once(place, server, mlflow_uri):
    clean = place("clean", mariadb=server, tracking_uri=mlflow_uri)
    double = place("double", mariadb=server, tracking_uri=mlflow_uri)
    for stage in ("sync", "process", "track"):
        assert clean.run(stage).returncode == 0
        copies = [double.start(stage, "--json") for _ in range(2)]
        for copy in copies:
            done = finished(copy)
            assert done.returncode == 0, done.stderr
        assert look(double) == look(clean), stage
    with Warehouse.open(double.settings) as warehouse:
        assert [batch.rows_news > 0 for batch in batches(warehouse, INGEST)].count(True) == 1
        (batch,) = batches(warehouse, PROCESS)
        assert len(batches(warehouse, TRACK)) == 1
        claim = f"{warehouse.name}:{batch.id}"
    (run,) = runs_of(mlflow_uri, claim)
    assert run.info.status == "FINISHED"
