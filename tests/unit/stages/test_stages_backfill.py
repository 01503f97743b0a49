"""Archives into the table: exact, resumable, beside the sync, and nothing lost."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa
import zstandard

from archive_support import half, line, lines, ms, put, served, sign, spoiled, status
from bentley.domain.bars import FIELDS, KEY, checksum
from bentley.domain.errors import ConfigurationError, DataError, FatalError, RetriableError
from bentley.sources import archive_rows
from bentley.stages import backfill as stage
from bentley.stages import intake, positions
from bentley.stages.backfill import backfill
from bentley.stages.intake import close_dead
from bentley.stages.reading import Mark
from bentley.warehouse import bars, bulk, gaps, ledger
from bentley.warehouse.ledger import COMMITTED, FAILED, INGEST
from bentley.warehouse.schema import binance_ohlcv, quarantine
from unit.stages.chain_support import batches, digest, frame, ingest_batch, series

SERIES = ("BTCUSDT", "1h")


@pytest.fixture
def place(tmp_path):
    """Two whole months and two days of the third."""
    root = tmp_path / "archive"
    put(root, "2023-12", lines("2023-12-01", "2024-01-01"), header=True)
    put(root, "2024-01", lines("2024-01-01", "2024-02-01"))
    put(root, "2024-02-01", lines("2024-02-01", "2024-02-02", micro=True))
    put(root, "2024-02-02", lines("2024-02-02", "2024-02-03", micro=True))
    return root


ALL = (31 + 31 + 2) * 24


@pytest.fixture
def given(opened, place):
    def make(**more):
        wanted = {"archive": str(place), "symbols": ("BTCUSDT",)} | more
        return opened.model_copy(update=wanted)

    return make


def stored(warehouse, *columns):
    c = binance_ohlcv.c
    query = sa.select(*(c[name] for name in columns)).order_by(c.symbol, c.interval, c.open_time)
    with warehouse.reading() as connection:
        return connection.execute(query).all()


def position(warehouse, series=SERIES):
    with warehouse.reading() as connection:
        return positions.load(connection, series)


def missing(warehouse):
    with warehouse.reading() as connection:
        return [(gap.first_open, gap.bars) for gap in gaps.of_series(connection, *SERIES)]


def test_every_bar_is_there_exactly_and_a_second_run_reads_nothing(given, warehouse):
    report = backfill(given())
    assert (report.rows_read, report.rows_written, report.rows_rejected) == (ALL, ALL, 0)
    assert report.failures == ()
    rows = stored(warehouse, "open_time", "close_time", "quote_volume", "is_closed", "source")
    assert [row.open_time for row in rows] == list(
        range(ms("2023-12-01"), ms("2024-02-03"), 3_600_000)
    )
    assert all(row.close_time == row.open_time + 3_599_999 for row in rows)
    assert {row.quote_volume for row in rows} == {Decimal("230976895658.80542100")}
    assert {(row.is_closed, row.source) for row in rows} == {(1, "binance-archives")}
    assert missing(warehouse) == []
    (batch,) = batches(warehouse, INGEST)
    assert (batch.status, batch.engine, batch.rows_news) == (COMMITTED, "archives", ALL)
    assert batch.watermark == ms("2024-02-02T23:00")
    before = digest(warehouse)
    again = backfill(given())
    assert (again.rows_read, again.details["known"], again.details["archives"]) == (0, 4, 4)
    assert digest(warehouse) == before


def cells(warehouse):
    return [tuple(row) for row in stored(warehouse, *FIELDS[2:])]


def told(body):
    """The same cells as an archive's lines have them."""
    width = len(FIELDS[2:])
    return [tuple(map(Decimal, text.split(",")[:width])) for text in body.splitlines()]


def test_the_report_says_which_way_the_bars_took(given, warehouse, monkeypatch):
    """Also of a server that really was sent files, for which these archives are too small."""
    monkeypatch.setattr(bulk, "_LOAD_FROM_ROWS", 1)
    load, sent = bulk._load, []
    monkeypatch.setattr(
        bulk, "_load", lambda *given, **more: sent.append(1) or load(*given, **more)
    )
    report = backfill(given())
    if warehouse.engine.dialect.name == "sqlite":
        assert report.details["written_by"] == "INSERT of many rows a statement"
        assert sent == []
    else:
        assert report.details["written_by"] == "LOAD DATA LOCAL INFILE"
        assert sent
    assert cells(warehouse) == told(lines("2023-12-01", "2024-02-03"))


def test_a_server_that_forbids_load_data_takes_every_bar_all_the_same(
    given, warehouse, place, monkeypatch, request
):
    if warehouse.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no LOAD DATA")
    monkeypatch.setattr(bulk, "_LOAD_FROM_ROWS", 1)
    monkeypatch.setattr(bulk, "_load", lambda *_, **__: pytest.fail("the file was sent"))
    monkeypatch.setattr(archive_rows, "BLOCK_BYTES", 20_000)
    server = request.getfixturevalue("mariadb")
    with server.admin() as admin, admin.cursor() as cursor:
        cursor.execute("SET GLOBAL local_infile = 0")
    try:
        first = backfill(given())
        changed = lines("2024-01-01", "2024-01-31T23:00") + line(ms("2024-01-31T23:00"), trades="8")
        put(place, "2024-01", changed)
        second = backfill(given())
    finally:
        with server.admin() as admin, admin.cursor() as cursor:
            cursor.execute("SET GLOBAL local_infile = 1")
    said = "prepared REPLACE: the server has local_infile off"
    assert [one.details["written_by"] for one in (first, second)] == [said, said]
    assert (first.rows_written, first.failures, second.rows_written) == (ALL, (), 1)
    before, after = lines("2023-12-01", "2024-01-01"), lines("2024-02-01", "2024-02-03")
    assert cells(warehouse) == told(before + changed + after)
    assert missing(warehouse) == []
    assert [one.status for one in batches(warehouse, INGEST)] == [COMMITTED, COMMITTED]


def test_an_archive_that_is_published_anew_is_read_again(given, warehouse, place):
    backfill(given())
    changed = lines("2024-01-01", "2024-01-31T23:00") + line(ms("2024-01-31T23:00"), trades="8")
    put(place, "2024-01", changed)
    report = backfill(given())
    assert (report.rows_read, report.rows_written, report.rows_news) == (31 * 24, 1, 1)
    assert report.details["known"] == 3
    trades = dict(stored(warehouse, "open_time", "trades"))
    assert trades[ms("2024-01-31T23:00")] == 8


def test_the_range_ends_where_it_should_and_a_part_is_read_again_when_more_is_wanted(
    given, warehouse
):
    part = given(since=ms("2023-12-31T05:00"), until=ms("2024-01-02T07:00"))
    assert backfill(part).rows_read == 19 + 24 + 7
    opened = [row.open_time for row in stored(warehouse, "open_time")]
    assert (opened[0], opened[-1]) == (ms("2023-12-31T05:00"), ms("2024-01-02T06:00"))
    assert position(warehouse) == Mark(ms("2023-12-31T05:00"), ms("2024-01-02T06:00"))
    following = given(since=ms("2024-01-02T07:00"), until=ms("2024-01-02T09:00"))
    assert backfill(following).rows_read == 2
    assert position(warehouse) == Mark(ms("2023-12-31T05:00"), ms("2024-01-02T08:00"))
    report = backfill(given())
    assert (report.rows_read, report.rows_written) == (ALL, ALL - 52)
    assert position(warehouse) == Mark(ms("2023-12-01"), ms("2024-02-02T23:00"))


def test_a_month_takes_the_place_of_its_days_and_mends_what_they_lack(given, warehouse, place):
    (place / "data/spot/daily/klines/BTCUSDT/1h/BTCUSDT-1h-2024-02-01.zip").unlink()
    backfill(given())
    assert missing(warehouse) == [(ms("2024-02-01"), 24)]
    put(place, "2024-02", lines("2024-02-01", "2024-03-01"))
    report = backfill(given(), repair=True)
    assert (report.rows_read, report.details["known"]) == (29 * 24, 2)
    assert missing(warehouse) == []
    assert backfill(given(), repair=True).rows_read == 0


def test_what_the_archive_lacks_stays_a_gap(given, warehouse, place):
    early, late = lines("2024-01-01", "2024-01-10"), lines("2024-01-11", "2024-02-01")
    put(place, "2024-01", early + late)
    backfill(given())
    assert missing(warehouse) == [(ms("2024-01-10"), 24)]
    assert backfill(given(), repair=True).rows_read == 0  # it is known that nothing more is there


def test_a_gap_of_the_sync_is_mended(given, warehouse):
    rows = ingest_rows("2024-01-05", "2024-01-07") + ingest_rows("2024-01-08", "2024-01-09")
    ingest_batch(warehouse, rows, now=ms("2024-02-01"))
    assert missing(warehouse) == [(ms("2024-01-07"), 24)]
    report = backfill(given(), repair=True)
    assert (report.rows_read, report.details["known"]) == (31 * 24, 3)
    assert missing(warehouse) == []


def test_what_a_repair_passes_over_counts_as_read_nowhere(given, warehouse):
    """Or the sync would never fetch what lies there."""
    ingest_batch(warehouse, ingest_rows("2024-01-20", "2024-01-25"), now=ms("2024-03-01"))
    before = Mark(ms("2024-01-20"), ms("2024-01-24T23:00"))
    with warehouse.writing() as connection:
        positions.save(connection, SERIES, before, batch_id=1)
    report = backfill(given(), repair=True)
    assert (report.rows_read, report.details["known"]) == (0, 4)
    assert position(warehouse) == before


def ingest_rows(since, until):
    return [
        {"symbol": "BTCUSDT", "interval": "1h"}
        | dict(zip(FIELDS[2:], text.split(","), strict=False))
        for text in lines(since, until).splitlines()
    ]


def test_the_sync_goes_on_where_the_archives_end(given, warehouse):
    """And a position that does not touch them is left alone: a hole lies between."""
    backfill(given(until=ms("2024-01-01")))
    assert position(warehouse) == Mark(ms("2023-12-01"), ms("2023-12-31T23:00"))
    with warehouse.writing() as connection:
        positions.save(connection, SERIES, Mark(ms("2024-02-02"), ms("2024-02-02")), batch_id=1)
    ingest_batch(warehouse, ingest_rows("2024-02-02", "2024-02-02T02:00"), now=ms("2024-03-01"))
    backfill(given(until=ms("2024-02-01")))
    assert position(warehouse) == Mark(ms("2024-02-02"), ms("2024-02-02"))
    backfill(given())
    assert position(warehouse) == Mark(ms("2023-12-01"), ms("2024-02-02T23:00"))


def test_a_missing_month_is_a_hole_that_no_position_spans(given, warehouse, place):
    (place / "data/spot/monthly/klines/BTCUSDT/1h/BTCUSDT-1h-2024-01.zip").unlink()
    backfill(given())
    assert missing(warehouse) == [(ms("2024-01-01"), 31 * 24)]
    assert position(warehouse) == Mark(ms("2023-12-01"), ms("2023-12-31T23:00"))


def test_a_bar_that_ends_after_its_archive_is_forming(given, warehouse, place):
    week = lines(ms("2024-01-01"), ms("2024-02-05"), interval="1w")
    put(place, "2024-01", week, interval="1w")
    report = backfill(given(intervals=("1w",)))
    assert (report.rows_written, report.rows_news) == (5, 4)
    assert [row.is_closed for row in stored(warehouse, "is_closed")] == [1, 1, 1, 1, 0]


@pytest.mark.parametrize("fault", ["checksum", "no checksum", "zip"])
def test_a_broken_archive_is_named_and_the_others_are_loaded(given, warehouse, place, fault):
    file = place / "data/spot/monthly/klines/BTCUSDT/1h/BTCUSDT-1h-2024-01.zip"
    if fault == "no checksum":
        file.with_name(f"{file.name}.CHECKSUM").unlink()
    else:
        file.write_bytes(file.read_bytes()[:-100])
    if fault == "zip":
        sign(file)
    report = backfill(given())
    assert [one["symbol"] for one in report.failures] == ["BTCUSDT"]
    assert file.name in report.failures[0]["message"]
    assert report.rows_written == ALL - 31 * 24
    put(place, "2024-01", lines("2024-01-01", "2024-02-01"))
    assert backfill(given()).rows_written == 31 * 24
    assert missing(warehouse) == []


def test_bad_rows_are_quarantined_and_past_a_share_the_batch_fails(given, warehouse, place):
    good = lines("2024-01-01", "2024-01-31")
    bad = line(ms("2024-01-31"), high="1.0") + line(ms("2024-02-01")) + "1,2\n"
    put(place, "2024-01", good + bad)
    report = backfill(given())
    assert (report.rows_read, report.rows_rejected) == (ALL - 24 + 3, 3)
    with warehouse.reading() as connection:
        reasons = connection.scalars(sa.select(quarantine.c.reason)).all()
    assert min(reasons).startswith("high 1.00000000 lies below")
    assert sorted(reasons)[1:] == [
        "open_time 1 lies outside the archive 2024-01",
        f"open_time {ms('2024-02-01')} (2024-02-01T00:00:00Z) lies outside the archive 2024-01",
    ]
    assert {one["reason"] for one in report.rejects} == {*reasons}
    assert {one["symbol"] for one in report.rejects} == {"BTCUSDT"}
    put(place, "2024-01", "".join(line(at * 3_600_000 + 1) for at in range(474_000, 474_500)))
    with pytest.raises(DataError, match="rows are bad"):
        backfill(given())
    assert [batch.status for batch in batches(warehouse, INGEST)] == [COMMITTED, FAILED]


def test_a_report_names_the_first_rejects_alone(given, place):
    bad = "".join(line(ms("2024-01-31") + at * 3_600_000, high="1.0") for at in range(9))
    put(place, "2024-01", lines("2024-01-01", "2024-01-31") + bad)
    long = line(ms("2024-02-01"), volume="x" * 5_000)
    put(place, "2024-02-01", long)
    report = backfill(given())
    assert report.rows_rejected == 10
    named = [int(one["open_time"]) for one in report.rejects]
    assert named == [ms("2024-01-31") + at * 3_600_000 for at in range(5)]
    put(place, "2024-02-01", long + line(ms("2024-02-01T01:00")))
    (one,) = backfill(given()).rejects  # it is told again, though quarantine has it once
    assert len(one["reason"]) == 300


def test_no_archive_at_all_is_an_error_that_names_the_place(given, place):
    with pytest.raises(ConfigurationError, match=rf"no archive of ETHUSDT 1h lies at {place}"):
        backfill(given(symbols=("ETHUSDT",)))
    report = backfill(given(symbols=("ETHUSDT", "BTCUSDT")))
    assert [one["symbol"] for one in report.failures] == ["ETHUSDT"]
    assert report.rows_written == ALL
    with pytest.raises(ConfigurationError, match="has no data/spot"):
        backfill(given(archive=str(place / "data")))


def test_where_no_archive_can_be_read_it_is_not_said_that_none_is_there(given, place):
    file = next((place / "data/spot/monthly/klines/BTCUSDT/1h").glob("*2023-12.zip.CHECKSUM"))
    file.unlink()
    with pytest.raises(ConfigurationError) as caught:
        backfill(given(until=ms("2024-01-01")))
    assert str(caught.value).startswith(f"{file} is missing: fetch it")
    assert "no archive" not in str(caught.value)


def test_small_batches_give_the_same_tables_and_let_a_sync_in_between(
    given, warehouse, monkeypatch
):
    monkeypatch.setattr(stage, "_BATCH_ROWS", 700)
    entered = threading.Event()

    def other():
        with warehouse.alone(INGEST, wait_seconds=60):
            close_dead(warehouse)
            entered.set()

    waiting = threading.Thread(target=other)
    seen = []

    def progress(done):
        seen.append((done.archives, done.of, done.rows, entered.is_set()))
        if len(seen) == 1:
            waiting.start()

    report = backfill(given(), progress=progress)
    waiting.join()
    assert len(report.details["batches"]) == 3
    assert [one[:3] for one in seen] == [(1, 4, 744), (2, 4, 1488), (3, 4, 1512), (4, 4, ALL)]
    assert seen[-1][3]  # before the end, and not after it
    assert [batch.status for batch in batches(warehouse, INGEST)] == [COMMITTED] * 3
    assert len(stored(warehouse, "open_time")) == ALL


def test_a_run_that_dies_anywhere_goes_on_where_it_was(given, warehouse, monkeypatch):
    """In the middle of an archive, between archives, and before a batch is closed."""
    monkeypatch.setattr("bentley.sources.archive_rows.BLOCK_BYTES", 20_000)
    monkeypatch.setattr(stage, "_FIRST_BYTES", 20_000)
    real, died = bulk.write, []

    class Killed(BaseException):
        pass

    def dying(*given, **more):
        if len(died) < 12 and dying.calls == 3:
            died.append(1)
            dying.calls = 0
            raise Killed
        dying.calls += 1
        real(*given, **more)

    dying.calls = 0
    monkeypatch.setattr(bulk, "write", dying)
    for _ in range(100):
        try:
            backfill(given())
            break
        except Killed:
            continue
    assert died
    assert len(stored(warehouse, "open_time")) == ALL
    assert missing(warehouse) == []
    assert position(warehouse) == Mark(ms("2023-12-01"), ms("2024-02-02T23:00"))
    news = sum(batch.rows_news for batch in batches(warehouse, INGEST))
    assert news == ALL  # each bar was announced once


def test_a_position_moves_with_its_batch_and_not_before(given, warehouse, monkeypatch):
    """So that a sync does not fetch by the page what the next run reads from an archive."""

    def broken_off(done):
        if done.archives == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(stage, "_BATCH_ROWS", 31 * 24)
    with pytest.raises(KeyboardInterrupt):
        backfill(given(), progress=broken_off)
    states = [batch.status for batch in batches(warehouse, INGEST)]
    assert states == [COMMITTED, COMMITTED, FAILED]
    assert batches(warehouse, INGEST)[-1].error == "stopped by Ctrl-C"
    begun = {ALL - 24} if warehouse.engine.dialect.name == "sqlite" else {ALL - 24, ALL}
    assert len(stored(warehouse, "open_time")) in begun  # a server may be at the last already
    assert position(warehouse) == Mark(ms("2023-12-01"), ms("2024-01-31T23:00"))


def test_few_pieces_are_there_at_once_however_slow_the_database_is(given, monkeypatch):
    monkeypatch.setattr(archive_rows, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(stage, "_FIRST_BYTES", 20_000)
    parsed, upsert = archive_rows._piece, bars.upsert
    read, written, most = [], [], []

    def parsing(*given, **more):
        read.append(1)
        return parsed(*given, **more)

    def writing(*given, **more):
        time.sleep(0.2)
        most.append(len(read) - len(written))
        written.append(1)
        return upsert(*given, **more)

    monkeypatch.setattr(archive_rows, "_piece", parsing)
    monkeypatch.setattr(bars, "upsert", writing)
    backfill(given())
    assert len(read) == len(written) > 8
    assert max(most) <= 7


def test_a_server_takes_pieces_at_once_and_commits_them_in_their_order(
    given, warehouse, monkeypatch
):
    """So that what a run that dies has read is what it says, and nothing behind it."""
    if warehouse.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer")
    real, both = bulk.write, threading.Barrier(2, timeout=30)
    alive, began, died = [], [], []

    def dying(connection, table, rows, **more):
        if not died:
            began.append(rows["open_time"].min())
            both.wait()
            if rows["open_time"].min() == ms("2023-12-01"):
                alive.append(len(stored(warehouse, "open_time")))
                time.sleep(0.5)  # the other has its rows by now, and waits
                alive.append(len(stored(warehouse, "open_time")))
                died.append(1)
                raise KeyboardInterrupt
        real(connection, table, rows, **more)

    monkeypatch.setattr(bulk, "write", dying)
    with pytest.raises(KeyboardInterrupt):
        backfill(given())
    assert sorted(began) == [ms("2023-12-01"), ms("2024-01-01")]
    assert alive == [0, 0]
    assert stored(warehouse, "open_time") == []
    assert backfill(given()).rows_written == ALL


def until_waiting(connection, other, count=1, seconds=60):
    """Until transactions of this server wait for locks, the `other` ended, or it takes too long."""
    query = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    end = time.monotonic() + seconds
    while connection.scalar(sa.text(query)) < count:
        if other.done() or time.monotonic() > end:
            return
        time.sleep(0.2)  # asked more often, the server tells again what it told before


@pytest.mark.parametrize("loaded", [True, False], ids=["LOAD DATA", "REPLACE"])
def test_rows_that_a_server_has_still_to_take_back_are_waited_for(
    given, warehouse, monkeypatch, loaded
):
    """Those of a run that died: by them two lanes would come to wait for each other."""
    if warehouse.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer")
    monkeypatch.setattr(bulk, "_LOAD_FROM_ROWS", 100 if loaded else 10_000)
    with warehouse.writing() as connection:
        ledger.begin(connection, INGEST, engine="archives")
    close_dead(warehouse)
    ingest_batch(warehouse, series(1, symbol="ETHUSDT"))  # a sync came in between
    with warehouse.engine.connect() as dead, ThreadPoolExecutor(1) as beside:
        first = dict.fromkeys(binance_ohlcv.c.keys(), 0) | dict(zip(KEY, SERIES, strict=False))
        rows = [first | {"open_time": ms(day)} for day in ("2023-12-01", "2024-01-01")]
        dead.execute(binance_ohlcv.insert(), rows)
        done = beside.submit(backfill, given())
        until_waiting(dead, done)
        until_waiting(dead, done, count=2, seconds=3)  # by then a second lane would be there
        dead.rollback()
        assert done.result().rows_written == ALL
    (made,) = [batch for batch in batches(warehouse, INGEST) if batch.rows_news > 1]
    assert (made.status, made.rows_news) == (COMMITTED, ALL)


def test_a_commit_that_outlives_its_process_is_counted(warehouse):
    """The server has been asked for it, and carries it out when the next run is there already."""
    if warehouse.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has one writer")
    with warehouse.writing() as connection:
        batch_id = ledger.begin(connection, INGEST, engine="archives")
    rows = frame(series(3))
    with warehouse.engine.connect() as dying, ThreadPoolExecutor(1) as beside:
        done = bars.upsert(dying, rows, batch_id=batch_id, source="archives")
        ledger.add(dying, batch_id, read=3, written=3, news=3, ranges=done.ranges)
        closed = beside.submit(close_dead, warehouse)
        until_waiting(dying, closed)
        dying.commit()
        closed.result()
    (batch,) = batches(warehouse, INGEST)
    assert (batch.status, batch.rows_news) == (FAILED, 3)
    assert (batch.checksum, batch.watermark) == (checksum([rows]), rows["open_time"].max())


def test_bars_that_an_archive_repeats_are_written_one_after_the_other(
    given, warehouse, place, monkeypatch
):
    monkeypatch.setattr(archive_rows, "BLOCK_BYTES", 20_000)
    monkeypatch.setattr(stage, "_FIRST_BYTES", 20_000)
    month = lines("2023-12-01", "2024-01-01")
    put(place, "2023-12", month + "".join(reversed(month.splitlines(keepends=True))))
    real, apart = stage._Run._store, []

    def store(run, intake, chunk, turn):
        apart.append((chunk.task.archive.label, chunk.apart))
        return real(run, intake, chunk, turn)

    monkeypatch.setattr(stage._Run, "_store", store)
    report = backfill(given())
    assert {one for label, one in apart if label == "2023-12"} == {True, False}
    assert {one for label, one in apart if label != "2023-12"} == {True}
    assert (report.rows_written, report.rows_rejected) == (ALL, 0)
    assert len(stored(warehouse, "open_time")) == ALL
    (batch,) = batches(warehouse, INGEST)
    assert (batch.status, batch.rows_news) == (COMMITTED, ALL)


@pytest.mark.parametrize("lost", [0, 40])
def test_bars_that_are_gone_after_their_commit_fail_the_batch(given, warehouse, monkeypatch, lost):
    real = bars.count_batch

    def counting(connection, batch_id, ranges):
        c = binance_ohlcv.c
        with warehouse.writing() as other:
            other.execute(binance_ohlcv.delete().where(c.open_time < ms("2023-12-01") + lost))
        return real(connection, batch_id, ranges)

    monkeypatch.setattr(bars, "count_batch", counting)
    if not lost:
        backfill(given())
    else:
        with pytest.raises(FatalError, match=f"wrote {ALL} bars, {ALL} of them closed, but"):
            backfill(given())


def test_bars_out_of_order_are_counted_in_the_end(given, warehouse, place):
    """The sum of a batch is taken in the order of its bars, whatever the order of an archive."""
    body = lines("2023-12-01", "2023-12-15")
    put(place, "2023-12", lines("2023-12-15", "2024-01-01") + body)
    report = backfill(given())
    (batch,) = batches(warehouse, INGEST)
    assert report.rows_written == ALL
    with warehouse.reading() as connection:
        pieces = list(bars.of_batch(connection, batch.id, batch.ranges))
    assert batch.checksum == checksum(pieces)


def test_the_last_bar_of_a_batch_is_the_latest_of_all_series(given, warehouse, place):
    """Whatever the order of the series, and whether the last piece has a closed bar or none."""
    put(place, "2024-03", lines("2024-03-01", "2024-03-02"), symbol="ADAUSDT")
    forming = lines("2023-12-25", "2024-01-01", interval="1w")  # its week ends in January
    put(place, "2023-12", forming, symbol="BTCUSDT", interval="1w")
    report = backfill(given(symbols=("ADAUSDT", "BTCUSDT"), intervals=("1h", "1w")))
    (batch,) = batches(warehouse, INGEST)
    assert report.rows_written == ALL + 24 + 1
    with warehouse.reading() as connection:
        found = bars.count_batch(connection, batch.id, batch.ranges)
    assert (batch.rows_written, batch.rows_news, batch.watermark) == found
    assert batch.watermark == ms("2024-03-01T23:00")


def test_the_log_stays_short_and_no_file_open_however_it_ends(given, opened, place, monkeypatch):
    if opened.warehouse_url is not None:
        pytest.skip("a server has its own log")
    monkeypatch.setattr(intake, "_LOG_PAGES", 50)
    monkeypatch.setattr("bentley.sources.archive_rows.BLOCK_BYTES", 20_000)
    monkeypatch.setattr(stage, "_FIRST_BYTES", 20_000)
    put(place, "2024-03", lines("2024-03-01", "2024-03-05", interval="1m"), interval="1m")
    name, sizes = opened.home / "mansa_bot.db-wal", []
    backfill(given(intervals=("1m",)), progress=lambda _: sizes.append(name.stat().st_size))
    assert len(sizes) > 30
    assert max(sizes) < 60 * 4_096 + 300_000  # the bound, and what came since it was looked at

    def broken(*_, **__):
        raise KeyboardInterrupt

    before = open_files(name.stem)
    monkeypatch.setattr(bulk, "write", broken)
    with pytest.raises(KeyboardInterrupt):
        backfill(given())
    assert open_files(name.stem) == before


def open_files(stem):
    """How often this process has the files of a database open."""
    links = list(Path("/proc/self/fd").iterdir())
    return sum(stem in str(link.readlink()) for link in links if link.is_symlink())


def test_from_a_site_with_its_faults(given, place, monkeypatch):
    monkeypatch.setattr(stage.exchange, "server_time", lambda _: ms("2024-02-03T01:00"))
    with served(place) as site:
        site.faults = [half, spoiled, status(503)]
        report = backfill(given(archive=site.url))
        assert (report.rows_written, report.failures) == (ALL, ())
        assert len(site.archives()) == 4 + 3
        fetched = len(site.archives())
        assert backfill(given(archive=site.url)).rows_read == 0
        assert len(site.archives()) == fetched


def test_a_site_that_goes_away_can_be_tried_again(given, place, monkeypatch):
    monkeypatch.setattr(stage.exchange, "server_time", lambda _: ms("2024-02-03T01:00"))
    with served(place) as site:
        site.faults = [status(429, Retry_After="9")] * 4
        with pytest.raises(RetriableError) as error:
            backfill(given(archive=site.url))
        assert error.value.retry_after == 9
        site.faults = []
        assert backfill(given(archive=site.url)).rows_written == ALL


def test_a_folder_asks_no_network(given, monkeypatch):
    def asked(*_, **__):
        raise AssertionError

    monkeypatch.setattr("bentley.sources.http.ask", asked)
    monkeypatch.setattr("bentley.sources.http.download", asked)
    assert backfill(given()).rows_written == ALL


def test_the_recorded_month_in_microseconds_is_the_recorded_klines(
    opened, warehouse, recorded, tmp_path
):
    for symbol in ("BTCUSDT", "ETHUSDT"):
        body = (recorded / f"binance_vision_microseconds/{symbol}-1h-2025-01.csv").read_text()
        put(tmp_path, "2025-01", body, symbol=symbol)
    settings = opened.model_copy(
        update={"archive": str(tmp_path), "symbols": ("BTCUSDT", "ETHUSDT")}
    )
    backfill(settings)
    names = ("symbol", "open_time", "open", "high", "low", "close", "volume", "close_time")
    names += ("quote_volume", "trades", "taker_buy_base_volume", "taker_buy_quote_volume")
    found = [tuple(map(str, row)) for row in stored(warehouse, *names)]
    wanted = []
    for symbol in ("BTCUSDT", "ETHUSDT"):
        packed = (recorded / f"binance_klines_2025_01/{symbol}-1h.csv.zst").open("rb")
        with packed, zstandard.ZstdDecompressor().stream_reader(packed) as stream:
            frame = pl.read_csv(stream.read(), infer_schema=False)
        wanted += [(symbol, *row[:11]) for row in frame.rows()]
    assert len(wanted) == 2 * 744
    assert found == wanted


def test_recorded_months_of_futures_load_whole(opened, warehouse, recorded, tmp_path):
    """They have a header line and fewer decimals: bulk input, in a warehouse of its own."""
    rows = 0
    for month in ("2023-04", "2023-05"):
        packed = (recorded / f"futures_1m/FILUSDT-1m-{month}.csv.zst").open("rb")
        with packed, zstandard.ZstdDecompressor().stream_reader(packed) as stream:
            body = stream.read().decode()
        rows += body.count("\n") - 1
        put(tmp_path, month, body, symbol="FILUSDT", interval="1m")
    given = opened.model_copy(
        update={
            "archive": str(tmp_path),
            "symbols": ("FILUSDT",),
            "intervals": ("1m",),
            "since": ms("2023-04-01"),
            "until": ms("2023-06-01"),
        }
    )
    done = backfill(given)
    assert (done.rows_written, done.rows_rejected, done.failures) == (rows, 0, ())
    assert rows == (30 + 31) * 24 * 60
    with warehouse.reading() as connection:
        first, last, count = bars.extent(connection, "FILUSDT", "1m")
    assert (first, last, count) == (ms("2023-04-01"), ms("2023-06-01") - 60_000, rows)
