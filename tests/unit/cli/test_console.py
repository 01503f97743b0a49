"""What the screen shows of a backfill on its way: a bar on a terminal, lines on a plain stream."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from bentley import console
from bentley.console import Screen
from bentley.stages.backfill import Progress
from bentley.stages.report import StageReport

MONTHS = [f"BTCUSDT/1h/2024-0{month}" for month in (1, 2, 3)]
DONE = [Progress(at, 3, at * 1_234_567, name) for at, name in enumerate(MONTHS, 1)]
LINES = [f"{at} of 3 archives, {at * 1_234_567} rows: {name}" for at, name in enumerate(MONTHS, 1)]


@pytest.fixture
def shown():
    """Show a backfill's progress, and return what was written."""

    def show(progress, *, terminal):
        screen = Screen(as_json=False)
        screen.console = Console(force_terminal=terminal, file=io.StringIO(), width=80)
        with screen.loading() as move:
            for one in progress:
                move(one)
        return screen.console.file.getvalue()

    return show


def test_a_plain_stream_has_a_line_at_once_and_one_at_the_end(shown):
    assert shown(DONE[:2], terminal=False).splitlines() == LINES[:1]
    assert shown(DONE, terminal=False).splitlines() == [LINES[0], LINES[2]]


def test_a_plain_stream_has_a_line_every_few_seconds(shown, monkeypatch):
    monkeypatch.setattr(console, "_SECONDS_BETWEEN_LINES", 0.0)
    assert shown(DONE, terminal=False).splitlines() == LINES


def test_a_terminal_has_a_bar_with_all_that_was_read(shown):
    drawn = Text.from_ansi(shown(DONE, terminal=True)).plain  # the last of what was drawn in place
    bar, _, told = drawn.strip().partition(" ")
    assert set(bar) == {"━"}
    assert told == "3/3 archives 3,703,701 rows 0:00:00 BTCUSDT/1h/2024-03"


def test_a_terminal_says_that_archives_are_looked_for(shown):
    drawn = Text.from_ansi(shown([], terminal=True)).plain
    assert drawn.strip().endswith("0/? archives 0 rows  looking for archives")


@pytest.mark.parametrize(
    ("batches", "known", "said"),
    [
        ([1], 0, ["  batch 1: 3 read, 0 written, 0 rejected, 0.0 s", "  archives: 26"]),
        (
            [7, 9],
            4,
            [
                "  batches 7, 9: 3 read, 0 written, 0 rejected, 0.0 s",
                "  archives: 26, 4 with nothing to add",
            ],
        ),
    ],
)
def test_a_backfill_names_its_batches_and_the_archives_that_gave_nothing(
    capsys, batches, known, said
):
    details = {"archives": 26, "known": known, "batches": batches, "written_by": "LOAD DATA"}
    report = StageReport(
        stage="ingest",
        engine="archives",
        origin="exchange",
        batch_id=batches[-1],
        rows_read=3,
        details=details,
    )
    Screen(as_json=False).stage(report)
    assert capsys.readouterr().out.splitlines()[1:3] == said
