"""The database goes away for ten seconds, or its disk is full: an error, and nothing lost."""

import contextlib
import resource
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pymysql
import pytest

from bentley.domain.errors import RetriableError
from bentley.stages import process as process_stage
from bentley.stages import track as track_stage
from bentley.stages.ingest import sync
from bentley.stages.process import process
from bentley.stages.track import track
from bentley.warehouse import ledger
from bentley.warehouse.ledger import INGEST, PROCESS, TRACK
from bentley.warehouse.warehouse import Warehouse
from e2e.faults.conftest import SCRIPT, failed, finished, runs_of
from unit.stages.chain_support import batches, digest, ingest_unchecked, series

AWAY_SECONDS = 10


def look(place):
    with Warehouse.open(place.settings) as warehouse:
        return digest(warehouse)


def prepared(place, seed=3, count=300):
    with Warehouse.open(place.settings) as warehouse:
        ingest_unchecked(warehouse, series(count, seed=seed))
    return place


@pytest.fixture
def server(mariadb):
    """The server, which is up again whatever a test did to it."""
    yield mariadb
    if mariadb.process is None:
        mariadb.start()


def go_away(server, seconds=AWAY_SECONDS):
    server.stop(hard=True)
    time.sleep(seconds)
    server.start()


def test_gone_in_the_middle_of_each_stage(place, server, mlflow_uri):
    """One outage for three commands, each in the midst of its work on a database of its own."""
    clean, cut = {}, {}
    for stage in (INGEST, PROCESS, TRACK):
        for those, name in ((clean, "clean"), (cut, "cut")):
            those[stage] = place(f"{name}-{stage}", mariadb=True, tracking_uri=mlflow_uri)
            if stage != INGEST:
                prepared(those[stage])
            if stage == TRACK:
                process(those[stage].settings)
    sync(clean[INGEST].settings)
    process(clean[PROCESS].settings)

    with server.admin() as holds, holds.cursor() as cursor, contextlib.ExitStack() as stack:
        look_into = {
            stage: stack.enter_context(Warehouse.open(one.settings)) for stage, one in cut.items()
        }
        names = {stage: one.engine.url.database for stage, one in look_into.items()}
        commands = {TRACK: cut[TRACK].start("track")}
        (logging,) = until(partial(open_batches, look_into[TRACK], TRACK), commands[TRACK])
        cursor.execute("BEGIN")  # the stage can make its MLflow run, but not write down its id
        cursor.execute(f"SELECT run_id FROM {names[TRACK]}.mlflow_runs FOR UPDATE")
        assert cursor.fetchall() == ((None,),)
        claim = f"{look_into[TRACK].name}:{logging.parents[0]}"
        until(lambda: runs_of(mlflow_uri, claim), commands[TRACK])
        with server.admin() as also_holds, also_holds.cursor() as lock:
            tables = (f"{names[INGEST]}.binance_ohlcv", f"{names[PROCESS]}.knime_landing")
            lock.execute(f"LOCK TABLES {tables[0]} WRITE, {tables[1]} WRITE")
            for stage, command in ((INGEST, "sync"), (PROCESS, "process")):
                commands[stage] = cut[stage].start(command)
                until(partial(held_up, cursor, names[stage]), commands[stage])
            go_away(server)
        for stage, command in commands.items():
            done = finished(command)
            assert done.returncode == 1, (stage, done.stderr)
            assert "the database did not answer" in done.stderr
            assert "Traceback" not in done.stderr
            assert len(open_batches(look_into[stage], stage)) == 1, "the outage missed the work"

    for stage, command in {INGEST: "sync", PROCESS: "process", TRACK: "track"}.items():
        again = cut[stage].run(command)
        assert again.returncode == 0, again.stderr
        assert look(cut[stage]) == look(clean[stage]), stage
        with Warehouse.open(cut[stage].settings) as warehouse:
            left, done = batches(warehouse, stage)
        assert (left.status, done.status) == ("failed", "committed")
    (run,) = runs_of(mlflow_uri, claim)
    assert run.info.status == "FINISHED"


def until(true, command):
    """Wait for something that comes true while a command is at work."""
    while not (found := true()):
        assert command.poll() is None, command.communicate()
        time.sleep(0.02)
    return found


def open_batches(warehouse, stage):
    with warehouse.reading() as connection:
        return ledger.running(connection, stage)


def held_up(cursor, database):
    """Whether a statement waits for one of the database's tables."""
    cursor.execute(
        "SELECT 1 FROM information_schema.processlist "
        "WHERE db = %s AND state = 'Waiting for table metadata lock'",
        [database],
    )
    return cursor.fetchall()


def test_gone_before_a_command_starts(place, server, mlflow_uri):
    cut = prepared(place("cut", mariadb=True, tracking_uri=mlflow_uri))
    server.stop(hard=True)
    for stage in ("sync", "process", "track", "verify"):
        done = cut.run(stage, "--json")
        assert "the database did not answer" in failed(done)
        assert "Traceback" not in done.stderr
    server.start()
    assert cut.run("process").returncode == 0


@pytest.mark.parametrize("when", ["after computing", "within the fold"])
def test_gone_in_the_middle_of_processing(place, server, monkeypatch, when):
    clean, cut = (prepared(place(name, mariadb=True)) for name in ("clean", "cut"))
    process(clean.settings)
    if when == "after computing":
        compute = process_stage._compute

        def interrupted(*given):
            compute(*given)
            go_away(server, 1)

        monkeypatch.setattr(process_stage, "_compute", interrupted)
    else:
        consume = ledger.consume

        def interrupted(*given, **more):
            consume(*given, **more)
            go_away(server, 1)

        monkeypatch.setattr(process_stage.ledger, "consume", interrupted)
    with contextlib.suppress(RetriableError):
        process(cut.settings)
    monkeypatch.undo()
    process(cut.settings)
    assert look(cut) == look(clean)
    with Warehouse.open(cut.settings) as warehouse:
        news = [batch for batch in batches(warehouse, PROCESS) if batch.rows_news]
        assert [batch.status for batch in news] == ["committed"]
        assert ledger.RUNNING not in {batch.status for batch in batches(warehouse, PROCESS)}


def test_gone_after_the_mlflow_run_was_made(place, server, mlflow_uri, monkeypatch):
    cut = prepared(place("cut", mariadb=True, tracking_uri=mlflow_uri))
    process(cut.settings)
    log = track_stage.Tracker.log
    made = []

    def interrupted(self, *given, **more):
        run = log(self, *given, **more)
        made.append(run.run_id)
        go_away(server, 1)
        return run

    with monkeypatch.context() as patched:
        patched.setattr(track_stage.Tracker, "log", interrupted)
        with contextlib.suppress(RetriableError):
            track(cut.settings)
    track(cut.settings)
    with Warehouse.open(cut.settings) as warehouse:
        done = [batch for batch in batches(warehouse, TRACK) if batch.status == "committed"]
    assert [batch.details["run_id"] for batch in done] == made


def test_a_restart_drops_the_locks_and_a_second_sync_beside_the_first_loses_nothing(
    place, exchange, server
):
    """The first goes on without its lock; the second takes it for dead and closes its batch."""
    clean, shared = place("clean", mariadb=True), place("shared", mariadb=True)
    sync(clean.settings)
    exchange.faults([{"kind": "slow", "path": "/api/v3/klines", "delay": 1.0, "every": 1}])
    first = shared.start("sync")
    with Warehouse.open(shared.settings) as warehouse:
        while first.poll() is None:
            with warehouse.reading() as connection:
                if ledger.running(connection, INGEST):
                    break
            time.sleep(0.02)
    server.stop(hard=True)
    server.start()
    second = shared.run("sync")
    assert second.returncode == 0, second.stderr
    assert finished(first).returncode in {0, 1}
    process(shared.settings)
    process(clean.settings)
    assert shared.run("sync").returncode == 0
    process(shared.settings)
    assert look(shared) == look(clean)


FULL = textwrap.dedent("""
    import sys
    import sqlalchemy as sa
    from sqlalchemy.pool import Pool

    room = int(sys.argv.pop(1))

    @sa.event.listens_for(Pool, "connect")
    def full(connection, _record):
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + room}")

    sys.argv[0] = "bentley"
    from bentley.cli import main
    main()
""")


@pytest.mark.parametrize(("stage", "pages"), [("sync", 0), ("sync", 60), ("process", 12)])
def test_a_full_disk_is_said_and_nothing_is_lost(place, stage, pages):
    """SQLite's own limit of pages gives the very error of a disk that is full."""
    clean, full = place("clean"), place("full")
    for one in (clean, full):
        Warehouse.open(one.settings).close()
        if stage == "process":
            prepared(one)
    before = look(full)
    done = full.run(stage, "--json", command=(sys.executable, "-c", FULL, str(pages)))
    assert "disk is full" in failed(done)
    assert "Traceback" not in done.stderr
    if stage == "process":
        assert look(full) == {**before, "landing": look(full)["landing"]}
    for one in (clean, full):
        assert one.run(stage).returncode == 0
    assert look(full) == look(clean)


def test_a_file_that_may_not_grow_is_said_and_nothing_is_lost(place):
    """A limit of the kernel's on the size of files: the write itself fails."""
    clean, full = place("clean"), place("full")
    for one in (clean, full):
        Warehouse.open(one.settings).close()
    done = full.run(
        "sync", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
    )
    assert done.returncode == 1, done.stderr
    assert "is it full" in done.stderr or "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    for one in (clean, full):
        assert one.run("sync").returncode == 0
    assert look(full) == look(clean)


def test_a_ledger_that_may_not_grow_ends_in_one_run(place, mlflow_uri):
    """Tracking itself writes little: a few pages of its log, and not one more."""
    full = prepared(place("full", tracking_uri=mlflow_uri))
    process(full.settings)
    before = look(full)
    done = full.run(
        "track", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (38_000, 38_000))
    )
    assert done.returncode == 1, done.stderr
    assert "is it full" in done.stderr or "disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    with Warehouse.open(full.settings) as warehouse:
        (batch,) = batches(warehouse, PROCESS)
        assert ledger.COMMITTED not in {one.status for one in batches(warehouse, TRACK)}
        claim = f"{warehouse.name}:{batch.id}"
    begun = [run.info.run_id for run in runs_of(mlflow_uri, claim)]
    assert full.run("track").returncode == 0
    assert look(full) == before
    (run,) = runs_of(mlflow_uri, claim)
    assert run.info.status == "FINISHED"
    assert begun in ([], [run.info.run_id])


def grown_to(megabytes):
    """Options of a MariaDB whose data may grow so far and no further."""
    limit = f"--innodb-data-file-path=ibdata1:12M:autoextend:max:{megabytes}M"
    return "--innodb-file-per-table=0", limit


@pytest.fixture
def small_server(mariadb):
    """A MariaDB whose data may not grow beyond 24 MB."""
    folder = Path(tempfile.mkdtemp(prefix="bms"))
    small = type(mariadb)(folder)
    try:
        small.install()
        small.start(*grown_to(24))
        yield small
    finally:
        small.stop()
        shutil.rmtree(folder, ignore_errors=True)


def fill_up(cursor, size):
    while True:
        cursor.execute("INSERT INTO filler.rest VALUES (REPEAT('x', %s))", [size])


def test_a_full_server_is_said_and_nothing_is_lost(place, small_server):
    full, clean = {}, {}
    for stage in ("sync", "process"):
        full[stage] = replace(place(f"full-{stage}"), warehouse_url=small_server.database())
        clean[stage] = place(f"clean-{stage}", mariadb=True)
    for one in (full["process"], clean["process"]):
        prepared(one, count=3000)
    Warehouse.open(full["sync"].settings).close()
    before = {stage: look(one) for stage, one in full.items()}
    with small_server.admin() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE filler")
        cursor.execute("CREATE TABLE filler.rest (filling LONGTEXT)")
        for size in (200_000, 10_000):
            with pytest.raises(pymysql.OperationalError, match="is full"):
                fill_up(cursor, size)
        for stage, one in full.items():
            done = one.run(stage, "--json")
            assert "disk is full" in failed(done)
            assert "Traceback" not in done.stderr
            assert look(one) == before[stage]
    small_server.stop()
    small_server.start(*grown_to(64))  # some space is made: to drop a table takes space, too
    for stage in ("sync", "process"):
        for one in (full[stage], clean[stage]):
            done = one.run(stage)
            assert done.returncode == 0, done.stderr
        assert look(full[stage]) == look(clean[stage]), stage


def test_a_small_disk_of_its_own_fills_up(place):
    """A real file system without room, where this user may mount one for himself."""
    full = place("full")
    full.home.mkdir()
    wrap = [
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
        f"mount -t tmpfs -o size=600k tmpfs '{full.home}' && exec \"$@\"",
        "sh",
    ]
    if shutil.which("unshare") is None or subprocess.run([*wrap, "true"], check=False).returncode:
        pytest.skip("this user may not mount a file system of his own")
    done = full.run("sync", command=(*wrap, str(SCRIPT)))
    assert done.returncode == 1, done.stderr
    assert "disk is full" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_secret_in_any_message_of_tracking(place, mlflow_uri):
    """The helper that runs a command looks for the secrets in all that it says."""
    wrong = mlflow_uri.replace("http://", "http://someone:tr4cking-pw@")
    one = prepared(place("one", tracking_uri=wrong, mariadb=True))
    process(one.settings)
    done = one.run("track")
    assert done.returncode == 0, done.stderr
    away = prepared(place("away", tracking_uri="http://someone:tr4cking-pw@127.0.0.1:9"))
    process(away.settings)
    for stage in ("track", "verify"):
        done = away.run(stage)
        assert done.returncode == 1
        assert "127.0.0.1:9" in done.stderr or stage == "verify"
    with Warehouse.open(one.settings) as warehouse:
        for batch in [*batches(warehouse, TRACK), *batches(warehouse, PROCESS)]:
            assert "tr4cking-pw" not in repr(batch)
            assert "pw-7" not in repr(batch)
