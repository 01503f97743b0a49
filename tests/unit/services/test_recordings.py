"""An origin is what was recorded: the same rows, whatever folder holds them and however many follow."""

from __future__ import annotations

import pytest

from bentley.services import recordings
from bentley.services.exchange.recorded import RecordedMarket

OPEN = 1_600_002_000_000
HOUR = 3_600_000


def record(folder, rows, *, symbol="BTCUSDT", close="11.0"):
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"{OPEN + i * HOUR},10.0,12.0,9.0,{close},5.0,{OPEN + (i + 1) * HOUR - 1},55.0,3,2.0,22.0,0"
        for i in range(rows)
    ]
    (folder / f"{symbol}-1h.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def origin(tmp_path):
    def of(folder, *symbols):
        market = RecordedMarket(folder)
        register = tmp_path / "home" / "origins.json"
        return recordings.origin(market, symbols or ("BTCUSDT",), ("1h",), register)

    return of


def test_the_folders_name_is_recognisable_and_a_copy_is_the_same(tmp_path, origin):
    first = origin(record(tmp_path / "a" / "klines", 3))
    assert first.startswith("replay:klines@")
    assert origin(record(tmp_path / "b" / "klines", 3)) == first
    assert origin(record(tmp_path / "a" / "others", 3)).startswith("replay:others@")


def test_appended_rows_go_on_and_a_changed_or_lost_one_does_not(tmp_path, origin):
    folder = tmp_path / "klines"
    first = origin(record(folder, 3))
    assert origin(record(folder, 5)) == first
    assert origin(record(folder, 3)) != first  # two rows that were replayed are gone
    assert origin(record(folder, 5, close="11.5")) != first
    assert origin(record(folder, 6)) == first
    # what was appended counts too: other rows in its place are another recording
    lines = (folder / "BTCUSDT-1h.csv").read_text().splitlines()
    (folder / "BTCUSDT-1h.csv").write_text("\n".join([*lines[:5], lines[5].replace(",3,", ",4,")]))
    assert origin(folder) != first


def test_another_symbol_of_the_recording_goes_on_with_it(tmp_path, origin):
    folder = record(tmp_path / "klines", 3)
    first = origin(folder)
    record(folder, 3, symbol="ETHUSDT")
    assert origin(folder, "ETHUSDT") == first
    assert origin(folder, "BTCUSDT", "ETHUSDT") == first
    other = record(tmp_path / "other" / "klines", 3)
    record(other, 3, symbol="ETHUSDT", close="11.5")
    assert origin(other) != first  # one of its series is not the same, chosen or not


@pytest.mark.parametrize("text", ["", "[]", "{", '{"replay:klines@1": 5}', '{"a": {"b": ["c"]}}'])
def test_a_broken_register_is_begun_anew(tmp_path, origin, text):
    folder = record(tmp_path / "klines", 3)
    first = origin(folder)
    (tmp_path / "home" / "origins.json").write_text(text)
    assert origin(folder) == first
    assert origin(record(folder, 4)) == first
