import io
import struct
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from bentley.domain.errors import ConfigurationError
from bentley.tracking import pictures
from bentley.tracking.chain_picture import duration
from bentley.tracking.pictures import chain, freshness_rejects, price_volume

HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR
NAMES = {"symbol": "BTCUSDT", "interval": "1h", "origin": "replay"}
ORANGE = (0xE6, 0x9F, 0x00)
VERMILLION = (0xD5, 0x5E, 0x00)
BLUE = (0x00, 0x72, 0xB2)


def bars(count, *, skip=()):
    index = np.array([n for n in range(count) if n not in skip])
    close = 100 + np.sin(index / 10)
    return pl.DataFrame(
        {
            "open_time": START + index * HOUR,
            "open": close - 0.1,
            "high": close + 0.5,
            "low": close - 0.5,
            "close": close,
            "volume": 10 + index % 7,
        },
        schema_overrides={"volume": pl.Float64},
    )


def pixels(png):
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (1200, 700)
    return (imread(io.BytesIO(png))[:, :, :3] * 255).round().astype(int)


def count(png, colour, tolerance=12):
    return int((np.abs(pixels(png) - colour).max(axis=2) <= tolerance).sum())


@pytest.mark.parametrize("number", [0, 1, 2, 100, 151, 3000, 6000])
def test_any_number_of_bars_is_drawn(number):
    assert (
        count(price_volume(bars(number), [], **NAMES), BLUE, 90) > (0 if number == 0 else 300) - 1
    )


@pytest.mark.parametrize("number", [120, 1000, 6000])
def test_a_gap_is_shaded_where_it_lies(number):
    gone = range(number // 2, number // 2 + number // 10)
    gap = (START + gone[0] * HOUR, START + (gone[-1] + 1) * HOUR)
    frame = bars(number, skip=gone)
    without, shaded = price_volume(frame, [], **NAMES), price_volume(frame, [gap], **NAMES)
    assert count(without, ORANGE) == 0
    assert count(shaded, ORANGE) > 500
    tint = np.abs(pixels(shaded)[300:340] - [247, 225, 177]).max(axis=2) < 12
    columns = np.flatnonzero(tint.mean(axis=0) > 0.5)
    assert 600 < columns.mean() < 720  # it begins in the middle of an axis from 90 to 1176


def test_an_hour_missing_in_a_long_history_is_still_seen():
    gap = (START + 3000 * HOUR, START + 3001 * HOUR)
    assert count(price_volume(bars(6000, skip=[3000]), [gap], **NAMES), ORANGE, 40) > 300


def test_gaps_without_bars_are_drawn():
    png = price_volume(bars(0), [(START, START + 24 * HOUR)], **NAMES)
    assert count(png, ORANGE) > 500


def test_pictures_follow_the_data_and_repeat_exactly():
    frame = bars(300)
    higher = frame.with_columns(
        pl.col("close") + pl.when(pl.col("open_time") == START).then(9).otherwise(0)
    )
    assert price_volume(frame, [], **NAMES) == price_volume(frame.reverse(), [], **NAMES)
    assert price_volume(frame, [], **NAMES) != price_volume(higher, [], **NAMES)
    assert price_volume(frame, [], **NAMES) != price_volume(frame, [], **{**NAMES, "origin": "x"})


def test_candles_that_fall_have_a_colour_of_their_own():
    falling = bars(50).with_columns(open=pl.col("close") + 0.3)
    assert count(price_volume(falling, [], **NAMES), VERMILLION) > 1000
    assert count(price_volume(bars(50), [], **NAMES), VERMILLION) == 0


def test_an_unknown_interval_is_refused():
    with pytest.raises(ConfigurationError, match="7h"):
        price_volume(bars(3), [], symbol="X", interval="7h", origin="replay")


@given(st.integers(5001, 9000), st.integers(1, 5000), st.integers(1, 2000))
def test_joined_bars_keep_extremes_sums_and_gaps(number, first_gone, length):
    frame = bars(number).filter(~pl.int_range(pl.len()).is_between(first_gone, first_gone + length))
    joined, factor = pictures.bucketed(frame, HOUR)
    if frame.height <= pictures.MAX_BARS:
        assert joined.equals(frame)
        assert factor == 1
        return
    assert joined.height <= pictures.BUCKETS
    assert joined["high"].max() == frame["high"].max()
    assert joined["low"].min() == frame["low"].min()
    assert joined["volume"].sum() == pytest.approx(frame["volume"].sum())
    assert joined["open"][0] == frame["open"][0]
    assert joined["close"][-1] == frame["close"][-1]
    assert joined["open_time"].is_sorted()
    if length >= 2 * factor and first_gone + length < number - 1:
        assert joined["open_time"].diff().max() > factor * HOUR


def history(number):
    return pl.DataFrame(
        {
            "ended_ms": [START + n * HOUR for n in range(number)],
            "freshness_hours": [None if n == 1 else n % 3 + 0.5 for n in range(number)],
            "rows_rejected": [n % 2 for n in range(number)],
            "rows_written": [4 * n for n in range(number)],
        },
        schema={
            "ended_ms": pl.Int64,
            "freshness_hours": pl.Float64,
            "rows_rejected": pl.Int64,
            "rows_written": pl.Int64,
        },
    )


@pytest.mark.parametrize("number", [0, 1, 2, 50, 2000])
def test_any_number_of_batches_is_drawn(number):
    png = freshness_rejects(history(number))
    assert (count(png, BLUE) > 0) == (number > 0)


def test_rejects_and_the_bound_are_seen():
    clean = history(30).with_columns(rows_rejected=pl.lit(0))
    assert (
        count(freshness_rejects(history(30)), VERMILLION)
        > count(freshness_rejects(clean), VERMILLION) + 500
    )
    assert freshness_rejects(clean, bound_hours=3.0) != freshness_rejects(clean)


def test_a_figure_that_a_batch_lacks_does_not_break_the_line():
    plain = history(40).with_columns(freshness_hours=2.0, rows_written=pl.lit(0))
    known = pl.int_range(pl.len()) % 39 == 0
    ends = plain.with_columns(freshness_hours=pl.when(known).then("freshness_hours"))
    first = plain.with_columns(freshness_hours=pl.when(pl.int_range(pl.len()) == 0).then(2.0))
    line = count(freshness_rejects(ends), BLUE, 90) - count(freshness_rejects(first), BLUE, 90)
    assert line > 1000  # pixels, from one end of the axis to the other
    unwritten = plain.with_columns(rows_written=pl.when(known).then(0))
    assert count(freshness_rejects(unwritten), BLUE) < count(freshness_rejects(plain), BLUE)


STAGES = [
    ("airbyte_sync_dag", "success", 2880, 12.0),
    ("knime_cli_workflow", "success", 2875, 3.2),
    ("mlflow_logging_dag", "running", None, None),
]


def test_a_failed_stage_and_a_failed_check_stand_out():
    failed = [*STAGES, ("bentley_master_orchestration", "failed", None, 1.0)]
    held = [*STAGES, ("bentley_master_orchestration", "success", None, 1.0)]
    assert count(chain(failed), VERMILLION) > count(chain(held), VERMILLION) + 1000
    assert count(chain(held, [("a", True, "")]), VERMILLION) == 0
    assert count(chain(held, [("a", False, "why")]), VERMILLION) > 0


def test_long_texts_stay_inside_their_place():
    long = "every_word_of_this_$name$_" * 20
    stages = [(long, "success", 10**15, 10.0**6)] * 4
    checks = [(long, number % 2 == 0, long) for number in range(60)]
    image = pixels(chain(stages, checks, title=long, subtitle=long))
    assert (image[:, :30] == 255).all()
    assert (image[:, 1170:] == 255).all()
    between = image[140:200, 300:322]
    assert (between == 255).all()


def test_a_picture_of_nothing_says_so():
    assert chain([]) != chain(STAGES)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (12.4, "12 s"), (59.6, "1 min 0 s"), (7500, "2 h 5 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_no_global_state_of_pyplot_is_touched():
    script = (
        "import sys, bentley.tracking.pictures as p, polars as pl\n"
        "p.chain([('a', 'success', 1, 1.0)])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'mlflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
