"""What a batch is measured by: the grid it should fill, and the exchange's clock of its own time."""

import subprocess
import weakref
from types import SimpleNamespace

import pytest

from bentley.stages import measure, run_content
from bentley.stages.process import process
from bentley.warehouse import ledger
from bentley.warehouse.ledger import Range
from unit.stages.chain_support import HOUR, START, bar, ingest_batch, series

MILLISECOND = 1 / HOUR


def at(hours):
    return START + hours * HOUR


@pytest.fixture
def processed(opened, warehouse):
    """Ingest and process rows at a clock, in hours after START; return what `measured` takes."""

    def go(rows, now):
        ingest_batch(warehouse, rows, now=at(now))
        return process(opened).batch_id

    return go


@pytest.fixture
def measured(warehouse):
    """Measure the one series of a batch."""

    def go(batch_id):
        with warehouse.reading() as connection:
            batch = ledger.get(connection, batch_id)
            parents = [ledger.get(connection, parent) for parent in batch.parents]
        now = measure.clock(parents, None)
        (one,) = [measure.series(warehouse, one, now, drawn=False)[0] for one in batch.ranges]
        return one

    return go


def test_a_batch_that_waited_is_measured_as_of_its_own_time(processed, measured):
    first = processed(series(50), 50)
    second = processed(series(24, first=50, seed=2), 74)
    for batch_id, count in ((first, 50), (second, 24)):
        one = measured(batch_id)
        assert one.freshness_hours == pytest.approx(MILLISECOND)
        assert (one.expected, one.present) == (count, count)


def test_an_outage_before_the_first_bar_counts(processed, measured):
    processed(series(50), 50)
    one = measured(processed([bar(66)], 67))
    assert (one.expected, one.present, measure.quality([one])) == (17, 1, 1 / 17)
    assert [(gap.first_open, gap.bars) for gap in one.gaps] == [(at(50), 16)]


def test_a_series_that_lags_lacks_the_bars_up_to_the_exchanges_clock(processed, measured):
    processed(series(50), 50)
    one = measured(processed([bar(50)], 99.5))
    assert (one.expected, one.present, measure.quality([one])) == (49, 1, 1 / 49)
    assert one.gaps == []
    assert one.freshness_hours == pytest.approx(48.5)


def test_a_gap_that_was_found_after_the_batchs_time_is_cut_there(processed, measured):
    first = processed(series(50), 60)
    processed([bar(70)], 71)
    one = measured(first)
    assert (one.expected, one.present) == (60, 50)
    assert [(gap.first_open, gap.bars) for gap in one.gaps] == [(at(50), 10)]


def test_without_a_clock_the_grid_is_the_batchs_own(warehouse, processed):
    processed([*series(10), *series(10, first=12)], 200)
    piece = Range("BTCUSDT", "1h", at(0), at(21), 20)
    one, _, _ = measure.series(warehouse, piece, None, drawn=False)
    assert (one.expected, one.present, one.freshness_hours) == (22, 20, None)


def ingested(exchange_time, **details):
    return SimpleNamespace(exchange_time=exchange_time, details=details)


@pytest.mark.parametrize(
    ("parents", "until", "expected"),
    [
        ([], 5, None),
        ([ingested(None), ingested(0)], 5, None),
        ([ingested(100)], None, 100),
        ([ingested(100)], 70, 70),  # it died before it could note where it was to end
        ([ingested(100, until=None)], 70, 100),
        ([ingested(100, until=70)], None, 70),
        ([ingested(100, until=170)], None, 100),
        ([ingested(100, until=70), ingested(90, until=None)], None, 90),
    ],
)
def test_the_clock_is_the_exchanges_or_the_end_that_was_asked_for(parents, until, expected):
    assert measure.clock(parents, until) == expected


def test_one_series_at_a_time_is_in_memory_and_only_what_is_used(opened, warehouse, monkeypatch):
    rows = [row for name in ("AUSDT", "BUSDT", "CUSDT") for row in series(30, symbol=name)]
    ingest_batch(warehouse, rows, now=at(30))
    batch_id = process(opened).batch_id
    with warehouse.reading() as connection:
        batch = ledger.get(connection, batch_id)
    held, asked = [], []
    read = measure.frames.read

    def watched(*args, **given):
        assert [one for one in held if one() is not None] == []
        frame = read(*args, **given)
        held.append(weakref.ref(frame))
        asked.append(given["columns"])
        return frame

    monkeypatch.setattr(measure.frames, "read", watched)
    monkeypatch.setattr(run_content, "_PICTURED", 2)
    record = run_content.build(opened, warehouse, batch, own=batch, claim="c", links={})
    assert len(asked[0]) == 7
    assert asked[1:] == [asked[0], ("close", "log_return")]
    assert {"pictures/AUSDT-1h.png", "pictures/BUSDT-1h.png"} < set(record.artifacts)
    assert "pictures/CUSDT-1h.png" not in record.artifacts
    assert "CUSDT-1h.volatility" in record.metrics


def test_the_commit_is_named_whatever_tags_there_are(tmp_path, monkeypatch):
    def git(*arguments):
        account = ["-c", "user.name=w", "-c", "user.email=w@x"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *account, *arguments],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    monkeypatch.setattr(run_content, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert run_content._commit() == "unknown"
    git("init", "-q")
    (tmp_path / "file").write_text("a")
    git("add", "file")
    git("commit", "-qm", "one")
    git("tag", "-am", "annotated", "v1")
    head = git("rev-parse", "HEAD")
    assert len(head) == 40
    assert run_content._commit() == head
    (tmp_path / "file").write_text("b")
    assert run_content._commit() == f"{head}-dirty"
