"""Named locks: one holder among processes, free as soon as the holder is gone."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing

import pytest

from bentley.domain.errors import RetriableError
from bentley.warehouse import database
from bentley.warehouse.warehouse import Warehouse

HOLD = textwrap.dedent("""
    import json, sys, time
    from bentley import settings
    from bentley.warehouse.warehouse import Warehouse
    with Warehouse.open(settings.load(**json.loads(sys.argv[1]))) as warehouse:
        with warehouse.lock(sys.argv[2], wait_seconds=float(sys.argv[3])) as held:
            print(held, flush=True)
            sys.stdin.read()
    print("left", flush=True)
""")


@pytest.fixture
def given(opened):
    found = {"home": str(opened.home)}
    if opened.warehouse_url is not None:
        found["warehouse_url"] = opened.warehouse_url.get_secret_value()
    return json.dumps(found)


@pytest.fixture
def holder(given):
    """Start a process that wants a lock; it holds it until its standard input closes."""
    started = []

    def start(name, wait=0.0):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, given, name, str(wait)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            pipe.close()


def can_take(warehouse, name, wait=0.0):
    with warehouse.lock(name, wait_seconds=wait) as held:
        return held


def test_one_process_at_a_time(warehouse, holder):
    process, held = holder("ingest")
    assert held == "True"
    assert not can_take(warehouse, "ingest")
    assert can_take(warehouse, "process")
    assert holder("ingest")[1] == "False"
    assert process.communicate(timeout=20)[0] == "left\n"
    assert can_take(warehouse, "ingest")


def test_a_killed_holder_frees_it(warehouse, holder):
    process, _ = holder("ingest")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert can_take(warehouse, "ingest", wait=5.0)


def test_a_stopped_holder_keeps_it(warehouse, holder):
    process, _ = holder("ingest")
    process.send_signal(signal.SIGSTOP)
    try:
        assert not can_take(warehouse, "ingest", wait=0.3)
    finally:
        process.send_signal(signal.SIGCONT)


def test_who_waits_gets_it(warehouse, holder):
    first, _ = holder("ingest")
    start = time.monotonic()
    assert not can_take(warehouse, "ingest", wait=1.0)
    assert time.monotonic() - start >= 0.9
    first.stdin.close()
    assert can_take(warehouse, "ingest", wait=10.0)


def test_alone_says_who_is_in_the_way(warehouse, holder):
    holder("ingest")
    with (
        pytest.raises(RetriableError, match="another ingest has been running"),
        warehouse.alone("ingest", wait_seconds=0.1),
    ):
        pytest.fail("two at once")


def test_a_lock_is_freed_after_an_error_within(warehouse):
    with pytest.raises(ZeroDivisionError), warehouse.alone("ingest", wait_seconds=0):
        raise ZeroDivisionError
    assert can_take(warehouse, "ingest")


def test_locks_of_two_databases_are_two(opened, warehouse, settings, request, tmp_path):
    if opened.warehouse_url is None:
        other = settings(home=tmp_path / "other")
    else:
        other = settings(warehouse_url=request.getfixturevalue("mariadb").database())
    with (
        Warehouse.open(other) as elsewhere,
        warehouse.lock("ingest", wait_seconds=0) as here,
        elsewhere.lock("ingest", wait_seconds=0) as there,
    ):
        assert (here, there) == (True, True)


def test_a_lock_lost_with_its_connection_does_not_hide_the_work_done(warehouse, request):
    """A server that restarts drops its locks; what was committed under them stands."""
    if warehouse.engine.dialect.name == "sqlite":
        pytest.skip("a file lock isn't lost while its process lives")
    server = request.getfixturevalue("mariadb")
    with warehouse.lock("ingest", wait_seconds=0) as held:
        assert held
        with server.admin() as admin, admin.cursor() as cursor:
            cursor.execute("SHOW PROCESSLIST")
            for row in cursor.fetchall():
                if row[1] == "bentley":
                    cursor.execute(f"KILL {row[0]}")
    assert can_take(warehouse, "ingest")


def test_a_new_file_is_opened_while_another_process_writes_its_first_page(tmp_path):
    """SQLite itself refuses the switch to a write-ahead log at once, whatever its timeout."""
    path = tmp_path / "new.db"
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    end = threading.Timer(0.5, writer.rollback)
    end.start()
    try:
        engine = database.connect(f"sqlite:///{path}")
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        engine.dispose()
    finally:
        end.join()
        writer.close()


def test_an_interrupt_in_a_statement_frees_the_lock_of_its_transaction(opened):
    """Whoever handles it writes next, while the traceback still keeps the statement."""
    if opened.warehouse_url is not None:
        pytest.skip("SQLite alone has one writer")
    slow = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000000) "
    slow += "SELECT COUNT(*) FROM n"

    def interrupt(*_):
        raise KeyboardInterrupt

    def work(warehouse):
        with warehouse.writing() as connection:
            connection.exec_driver_sql("INSERT INTO meta (name, value) VALUES ('a', 'b')")
            connection.exec_driver_sql(slow)

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        with Warehouse.open(opened) as warehouse:
            timer.start()
            with pytest.raises(KeyboardInterrupt) as caught:
                work(warehouse)
            other = sqlite3.connect(warehouse.engine.url.database, timeout=1, isolation_level=None)
            with closing(other):
                other.execute("BEGIN IMMEDIATE")
                assert not other.execute("SELECT 1 FROM meta WHERE name = 'a'").fetchall()
            assert caught.value.__traceback__ is not None
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
