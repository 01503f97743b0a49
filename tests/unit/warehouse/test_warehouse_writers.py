"""Several processes write at once, on both databases, and none of them fails."""

import json
import resource
import ssl
import subprocess
import sys
import textwrap
from contextlib import suppress

import pymysql
import pytest
import sqlalchemy as sa

from bentley.warehouse import database, states
from bentley.warehouse.ledger import INGEST, PROCESS
from bentley.warehouse.schema import binance_ohlcv, quarantine
from bentley.warehouse.schema import gaps as gaps_table
from bentley.warehouse.warehouse import Warehouse
from unit.stages.chain_support import batches, consumed, rows_of

WRITERS = 4
ROUNDS = 12

WRITE = textwrap.dedent("""
    import json, sys
    from bentley import settings
    from bentley.warehouse import ledger, states
    from bentley.warehouse.warehouse import Warehouse
    sys.path.insert(0, sys.argv[4])
    from unit.stages.chain_support import add_rows, bar
    number, shared = int(sys.argv[2]), sys.argv[3] == "shared"
    symbol = "SHARED" if shared else f"W{number}"
    print("ready", flush=True)
    sys.stdin.readline()
    with Warehouse.open(settings.load(**json.loads(sys.argv[1]))) as warehouse:
        for turn in range(ROUNDS):
            with warehouse.writing() as connection:
                batch = ledger.begin(connection, "ingest", engine="test", pipeline_runs=["run"])
            first = 0 if shared else turn * 5
            rows = [bar(first + 2 * at, f"{number + 1}.{turn:08d}", symbol=symbol, low="0.1")
                    for at in range(20)]
            bad = bar(number * 1000 + turn, symbol=symbol, volume="-1.0")
            add_rows(warehouse, batch, [*rows, bad])
            with warehouse.writing() as connection:
                states.save(connection, "source", symbol, {"at": turn}, batch_id=batch)
                ledger.close(connection, batch, checksum="c")
            with warehouse.reading() as connection:
                mine = [one.id for one in ledger.unconsumed(connection, "process")
                        if one.id == batch]
            with warehouse.writing() as connection:
                ledger.consume(connection, "process", mine, by=batch)
    print("done", flush=True)
""").replace("ROUNDS", str(ROUNDS))


def durable(connection):
    """How SQLite's commits are made: 2 is FULL, 1 NORMAL; and from how long a log it is copied."""
    names = ("synchronous", "wal_autocheckpoint")
    return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]


def test_a_commit_on_the_way_waits_for_no_disk_and_the_next_does_again(warehouse):
    lite = warehouse.engine.dialect.name == "sqlite"
    for error in (None, RuntimeError("broken off")):
        with suppress(RuntimeError), warehouse.writing(flushed=False) as connection:
            states.save(connection, "source", str(error), {}, batch_id=1)
            assert not lite or durable(connection) == [1, 16_000]
            if error is not None:
                raise error
    with warehouse.writing() as connection:
        assert not lite or durable(connection) == [2, 1_000]
        assert list(states.under(connection, "source", "")) == ["None"]


def test_an_interrupt_within_a_statement_is_no_other_error(warehouse):
    def interrupted(_cursor, statement, *_):
        if "7" in statement:
            raise KeyboardInterrupt

    sa.event.listen(warehouse.engine, "do_execute", interrupted)
    with pytest.raises(KeyboardInterrupt), warehouse.writing(flushed=False) as connection:
        connection.exec_driver_sql("SELECT 7")
    with warehouse.writing() as connection:
        assert connection.dialect.name != "sqlite" or durable(connection) == [2, 1_000]


def test_what_was_committed_comes_to_its_place_beside_a_writer(opened, warehouse):
    with warehouse.writing(flushed=False) as connection:
        states.save(connection, "source", "a", {"text": "x" * 500_000}, batch_id=1)
    with warehouse.writing() as connection:
        states.save(connection, "source", "b", {}, batch_id=1)
        pages = warehouse.settle()
        if opened.warehouse_url is None:
            assert pages > 100
            assert (opened.home / "mansa_bot.db").stat().st_size > 500_000
    with warehouse.reading() as connection:
        assert list(states.under(connection, "source", "")) == ["a", "b"]


def test_a_full_disk_is_the_error_of_a_commit_and_not_of_what_settles(settings):
    with Warehouse.open(settings()) as warehouse:
        with warehouse.writing(flushed=False) as connection:
            states.save(connection, "source", "a", {"text": "x" * 500_000}, batch_id=1)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
        try:
            assert warehouse.settle() == 0
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert warehouse.settle() > 0


def test_a_server_is_connected_to_as_its_driver_does(mariadb, settings):
    """But for the authorities, which it reads and does not ask."""
    with Warehouse.open(settings(warehouse_url=mariadb.database())) as warehouse:
        raw = warehouse.engine.raw_connection()
        ours = raw.driver_connection.ctx
        raw.close()
    theirs = pymysql.connections.Connection(defer_connect=True).ctx
    assert (ours.verify_mode, ours.check_hostname) == (theirs.verify_mode, theirs.check_hostname)
    assert (ours.options, ours.minimum_version) == (theirs.options, theirs.minimum_version)
    assert ours.get_ca_certs() == []
    asked = {"defer_connect": True, "ssl_verify_cert": True}
    assert database._client()(**asked).ctx.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize("mode", ["own", "shared"])
def test_writers_at_once(opened, warehouse, request, mode):
    """Each with a series of its own, as stages are; and all on one, which nothing forbids."""
    given = {"home": str(opened.home)}
    if opened.warehouse_url is not None:
        given["warehouse_url"] = opened.warehouse_url.get_secret_value()
    tests = str(request.config.rootpath / "tests")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, json.dumps(given), str(number), mode, tests],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(WRITERS)
    ]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * WRITERS
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=200) for process in processes]
    assert [errors[-2000:] for _, errors in ends] == [""] * WRITERS
    assert [out for out, _ in ends] == ["done\n"] * WRITERS
    made = batches(warehouse, INGEST)
    assert len(made) == WRITERS * ROUNDS
    assert {batch.status for batch in made} == {"committed"}
    assert len(consumed(warehouse, PROCESS)) == WRITERS * ROUNDS
    assert len(rows_of(warehouse, quarantine, "fingerprint")) == WRITERS * ROUNDS
    bars_stored = len(rows_of(warehouse, binance_ohlcv, "symbol"))
    with warehouse.reading() as connection:
        missing = connection.scalar(sa.select(sa.func.sum(gaps_table.c.bars)))
    if mode == "own":  # two combs of every other bar, shifted by 5 each round
        assert bars_stored == WRITERS * len(
            {r * 5 + 2 * k for r in range(ROUNDS) for k in range(20)}
        )
    else:
        assert (bars_stored, missing) == (20, 19)
