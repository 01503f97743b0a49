"""Forming candles: nothing that is served at a time depends on what came after it."""

import tempfile
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentley.services.exchange.recorded import RecordedMarket

HOUR = 3_600_000
START = 1_600_041_600_000
HOURS = 48
STEPS = {"1h": 1, "4h": 4, "1d": 24}
ZERO = "0.00000000"


def hour_row(hour, seed):
    """An hour with numbers that follow from `seed`; some close early."""
    opened = 100 + (hour * 7 + seed * 13) % 50
    closed = 100 + (hour * 11 + seed * 29) % 50
    at = START + hour * HOUR
    early = 20 * 60_000 if (hour + seed) % 9 == 0 else 0
    return [
        at,
        f"{opened}.5",
        f"{max(opened, closed) + 1 + seed % 5}.25",
        f"{min(opened, closed) - 1 - seed % 5}.75",
        f"{closed}.0",
        f"{seed % 17}.00000001",
        at + HOUR - 1 - early,
        f"{hour}.1",
        hour + seed,
        f"{seed % 3}.5",
        f"{seed % 7}.5",
        "0",
    ]


def joined(rows, start, parts):
    """The final row of a longer interval, from its hours."""
    return [
        start,
        rows[0][1],
        str(max(Decimal(row[2]) for row in rows)),
        str(min(Decimal(row[3]) for row in rows)),
        rows[-1][4],
        *(str(sum(Decimal(row[i]) for row in rows)) for i in (5,)),
        start + parts * HOUR - 1,
        str(sum(Decimal(row[7]) for row in rows)),
        sum(row[8] for row in rows),
        str(sum(Decimal(row[9]) for row in rows)),
        str(sum(Decimal(row[10]) for row in rows)),
        "0",
    ]


def recording(hours):
    """Rows by interval over the hours that there were."""
    series = {"1h": hours}
    for name in ("4h", "1d"):
        parts = STEPS[name]
        groups = {}
        for row in hours:
            groups.setdefault((row[0] - START) // (parts * HOUR), []).append(row)
        series[name] = [
            joined(rows, START + group * parts * HOUR, parts) for group, rows in groups.items()
        ]
    return series


def market(series):
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in series.items():
            lines = [",".join(map(str, row)) for row in rows]
            (Path(folder) / f"BTCUSDT-{name}.csv").write_text("\n".join(lines) + "\n")
        made = RecordedMarket(Path(folder))
        made.last_close()
        return made


def served(market_, now):
    return {name: market_.klines("BTCUSDT", name, 0, None, 1000, now) for name in STEPS}


outages = st.sets(st.integers(1, HOURS - 2), max_size=30)
clocks = st.integers(START - HOUR, START + HOURS * HOUR) | st.builds(
    lambda hour, off: START + hour * HOUR + off, st.integers(0, HOURS), st.sampled_from([-1, 0, 1])
)


@given(gaps=outages, now=clocks, seed=st.integers(0, 50), other=st.integers(51, 100))
@settings(max_examples=150, deadline=None)
def test_another_future_changes_nothing_that_is_served(gaps, now, seed, other):
    """Two recordings agree on what had happened by `now` and on nothing after it."""
    past = [hour_row(hour, seed) for hour in range(HOURS) if hour not in gaps]
    opened = [row for row in past if row[0] <= now]
    changed = [
        row
        if row[6] < now
        else [row[0], row[1], *hour_row(0, other)[2:6], *row[6:7], *hour_row(9, other)[7:]]
        for row in opened
    ]
    for row in changed:  # prices that are possible for the open that was already seen
        row[2] = str(max(Decimal(row[1]), Decimal(row[2]), Decimal(row[4])))
        row[3] = str(min(Decimal(row[1]), Decimal(row[3]), Decimal(row[4])))
    later = [hour_row(hour, other) for hour in range(HOURS) if START + hour * HOUR > now]
    assert served(market(recording(past)), now) == served(market(recording(changed + later)), now)


@given(gaps=outages, now=clocks, seed=st.integers(0, 50))
@settings(max_examples=100, deadline=None)
def test_every_row_is_final_or_the_sum_of_the_finished_hours(gaps, now, seed):
    hours = [hour_row(hour, seed) for hour in range(HOURS) if hour not in gaps]
    series = recording(hours)
    for name, rows in served(market(series), now).items():
        step = STEPS[name] * HOUR
        final = {row[0]: tuple(row) for row in series[name]}
        assert [row[0] for row in rows] == sorted({row[0] for row in rows})
        for row in rows:
            assert row[0] <= now
            if final[row[0]][6] < now:
                assert row == final[row[0]]
                continue
            finished = (
                []
                if name == "1h"
                else [hour for hour in hours if row[0] <= hour[0] < row[0] + step and hour[6] < now]
            )
            assert row[6] == row[0] + step - 1
            assert row[1] == final[row[0]][1]
            if not finished:
                assert row[1:6] == (row[1], row[1], row[1], row[1], ZERO)
                assert row[7:] == (ZERO, 0, ZERO, ZERO, "0")
                continue
            assert Decimal(row[2]) == max(Decimal(hour[2]) for hour in finished)
            assert Decimal(row[3]) == min(Decimal(hour[3]) for hour in finished)
            assert row[4] == finished[-1][4]
            assert row[8] == sum(hour[8] for hour in finished)
            for cell in (5, 7, 9, 10):
                assert Decimal(row[cell]) == sum(Decimal(hour[cell]) for hour in finished)
        expected = {row[0] for row in series[name] if _seen(row, hours, STEPS[name], now)}
        assert {row[0] for row in rows} == expected


def _seen(row, hours, parts, now):
    end = row[0] + parts * HOUR
    return any(row[0] <= hour[0] <= now for hour in hours if hour[0] < end)


def test_a_candle_that_has_not_traded_yet_is_not_served():
    hours = [hour_row(hour, 3) for hour in range(HOURS) if hour not in {24, 25, 26}]
    made = market(recording(hours))
    day = START + 24 * HOUR
    assert [row[0] for row in made.klines("BTCUSDT", "1d", 0, None, 9, day + 2 * HOUR)] == [START]
    seen = made.klines("BTCUSDT", "1d", 0, None, 9, day + 3 * HOUR)
    assert [row[0] for row in seen] == [START, day]
    assert seen[1][1:5] == (hours[24][1],) * 4


def test_a_hole_in_a_longer_interval_is_filled_from_a_shorter_one():
    hours = [hour_row(hour, 4) for hour in range(HOURS)]
    series = recording(hours)
    del series["4h"][1]
    now = START + 13 * HOUR
    row = market(series).klines("BTCUSDT", "1d", 0, None, 1, now)[0]
    assert row[8] == sum(hour[8] for hour in hours if hour[6] < now)


def test_a_cell_that_is_no_number_leaves_what_is_certain():
    hours = [hour_row(hour, 5) for hour in range(HOURS)]
    series = recording(hours)
    series["1h"][2][2] = "high"
    del series["4h"]
    row = market(series).klines("BTCUSDT", "1d", 0, None, 1, START + 6 * HOUR)[0]
    assert row[1:6] == (hours[0][1],) * 4 + (ZERO,)


def test_a_symbol_counts_as_ended_after_a_quiet_day():
    made = market(recording([hour_row(hour, 5) for hour in range(HOURS)]))
    last = START + (HOURS - 1) * HOUR
    assert not made.trading("BTCUSDT", START - 1)
    assert made.trading("BTCUSDT", last + 24 * HOUR)
    assert not made.trading("BTCUSDT", last + 80 * HOUR)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_limit_holds_with_a_forming_candle(limit):
    made = market(recording([hour_row(hour, 5) for hour in range(HOURS)]))
    rows = made.klines("BTCUSDT", "1h", None, None, limit, START + 20 * HOUR + 1)
    assert [row[0] for row in rows] == [START + h * HOUR for h in range(21 - limit, 21)]
