"""The generated market: the same history always, consistent bars, intervals that agree."""

import time
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentley.domain import intervals as grid
from bentley.domain.errors import ConfigurationError
from bentley.services.exchange.generated import LISTED, GeneratedMarket
from bentley.services.exchange.server import start_clock

HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 1_700_001_234_567
SYMBOLS = ("ADAUSDT", "BTCUSDT", "NEWCOINUSDT")
AMOUNTS = (5, 7, 9, 10)
GOLDEN = (
    1699912800000,
    "38349.20000000",
    "38350.90000000",
    "38026.20000000",
    "38038.60000000",
    "90.48390150",
    1699916399999,
    "3452260.64476613",
    9717,
    "56.58216163",
    "2158796.94125470",
    "0",
)
TINY = Decimal("0.00001")  # volumes are cut at eight decimals


@pytest.fixture(scope="module")
def market():
    return GeneratedMarket(7, SYMBOLS)


def test_names(market):
    assert market.symbols() == SYMBOLS
    assert market.intervals("BTCUSDT") == tuple(grid.MILLIS)
    assert market.intervals("NOSUCH") == ()
    assert market.origin == "generated:7"
    assert market.last_close() is None
    with pytest.raises(ConfigurationError, match="at least one symbol"):
        GeneratedMarket(7, [])


def test_its_clock_runs_with_the_machines_unless_it_is_fixed(market):
    clock = start_clock(market, None)
    assert clock.running
    assert abs(clock.now() - time.time() * 1000) < 5_000
    assert clock.advance(DAY) - time.time() * 1000 > DAY - 5_000
    assert start_clock(market, NOW).now() == NOW
    assert not start_clock(market, NOW).running


@given(
    interval=st.sampled_from(list(grid.MILLIS)),
    symbol=st.sampled_from(SYMBOLS),
    back=st.integers(0, 700),
    start=st.integers(0, 300),
    count=st.integers(1, 40),
)
@settings(max_examples=50, deadline=None)
def test_a_bar_is_the_same_from_any_range_and_any_start(interval, symbol, back, start, count):
    """Asked from a fresh market, at another time, in another range."""
    step = grid.millis(interval)
    now = grid.floor(NOW, interval) - back * step
    first = max(LISTED, now - (start + count) * step)
    wide = GeneratedMarket(7, SYMBOLS).klines(symbol, interval, first, None, 1000, now)
    last = wide[-1][0] if wide else now
    narrow = GeneratedMarket(7, [symbol]).klines(symbol, interval, None, last, count, now + 5 * DAY)
    known = {row[0]: row for row in narrow}
    closed = [row for row in wide if row[6] < now]
    assert [row for row in closed if row[0] in known] == [
        known[row[0]] for row in closed if row[0] in known
    ]
    times = [row[0] for row in closed]
    assert [at for at in known if times and times[0] <= at <= times[-1]] == [
        at for at in times if at >= min(known, default=0)
    ]


@pytest.mark.parametrize("interval", grid.MILLIS)
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_bars_are_consistent(market, symbol, interval):
    step = grid.millis(interval)
    rows = market.klines(symbol, interval, None, None, 1000, NOW)
    assert len(rows) == 1000 or rows[0][0] == grid.ceil(LISTED, interval)
    assert all(before[0] < after[0] for before, after in pairwise(rows))
    for row in rows:
        opened, high, low, closed = (Decimal(cell) for cell in row[1:5])
        assert 0 < low <= min(opened, closed) <= max(opened, closed) <= high
        assert grid.floor(row[0], interval) == row[0]
        assert row[0] < row[6] < row[0] + step
        assert 0 <= Decimal(row[9]) <= Decimal(row[5])
        assert 0 <= Decimal(row[10]) <= Decimal(row[7])
        assert (row[8] == 0) == (Decimal(row[5]) == 0)
        assert all(len(row[cell].split(".")[1]) == 8 for cell in (1, 2, 3, 4, *AMOUNTS))
        if row[8] == 0:
            assert opened == high == low == closed
        if interval != "1s" and row[8]:
            assert low - TINY <= Decimal(row[7]) / Decimal(row[5]) <= high + TINY


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("1m", "1s"),
        ("3m", "1m"),
        ("1h", "1m"),
        ("1h", "15m"),
        ("4h", "1h"),
        ("1d", "1h"),
        ("1w", "1d"),
    ],
)
def test_intervals_add_up_exactly(market, long, short):
    step = grid.millis(long)
    for row in market.klines("BTCUSDT", long, None, NOW - step, 15, NOW):
        parts = market.klines("BTCUSDT", short, row[0], row[0] + step - 1, 1000, NOW)
        assert row[1] == parts[0][1]
        assert row[4] == parts[-1][4]
        assert Decimal(row[2]) == max(Decimal(part[2]) for part in parts)
        assert Decimal(row[3]) == min(Decimal(part[3]) for part in parts)
        assert row[8] == sum(part[8] for part in parts)
        for cell in AMOUNTS:
            assert Decimal(row[cell]) == sum(Decimal(part[cell]) for part in parts)
        assert parts[-1][6] <= row[6]


def test_an_hour_that_closed_early_has_its_minutes_until_then(market):
    hours = market.klines("BTCUSDT", "1h", NOW - 40 * DAY, None, 1000, NOW)
    early = [row for row in hours if row[6] < row[0] + HOUR - 1 and row[6] < NOW]
    assert early
    for row in early:
        minutes = market.klines("BTCUSDT", "1m", row[0], row[0] + HOUR - 1, 1000, NOW)
        assert minutes[-1][6] == row[6]
        assert minutes[-1][4] == row[4]
        assert max(Decimal(m[2]) for m in minutes) == Decimal(row[2])


def test_outages_still_hours_and_early_closes_happen_but_are_rare(market):
    rows = market.klines("BTCUSDT", "1h", NOW - 41 * DAY, None, 1000, NOW)
    gaps = [b[0] - a[0] for a, b in pairwise(rows) if b[0] - a[0] > HOUR]
    still = [row for row in rows if row[8] == 0]
    early = [row for row in rows[:-1] if row[6] < row[0] + HOUR - 1]
    assert 1 <= len(gaps) <= 8
    assert max(gaps) <= 9 * HOUR
    assert 1 <= len(still) <= 16
    assert 1 <= len(early) <= 10
    assert len(rows) > 41 * 24 * 0.95


def test_outages_are_of_the_whole_market(market):
    def times(symbol):
        return [r[0] for r in market.klines(symbol, "1h", NOW - 41 * DAY, None, 1000, NOW)]

    assert times("BTCUSDT") == times("ADAUSDT")


def test_seeds_and_symbols_differ(market):
    def closes(made, symbol):
        return [row[4] for row in made.klines(symbol, "1h", None, None, 50, NOW)]

    assert closes(market, "BTCUSDT") == closes(GeneratedMarket(7, ["BTCUSDT"]), "BTCUSDT")
    assert closes(market, "BTCUSDT") != closes(GeneratedMarket(8, SYMBOLS), "BTCUSDT")
    assert closes(market, "BTCUSDT") != closes(market, "ADAUSDT")


def test_the_history_of_a_seed_is_this_one(market):
    assert market.klines("BTCUSDT", "1h", None, NOW - DAY, 1, NOW) == [GOLDEN]


def test_prices_move_as_prices_do(market):
    closes = [float(row[4]) for row in market.klines("BTCUSDT", "1h", 0, None, 1000, NOW)]
    returns = [b / a - 1 for a, b in pairwise(closes)]
    deviation = (sum(r * r for r in returns) / len(returns)) ** 0.5
    assert 0.002 < deviation < 0.02
    assert max(map(abs, returns)) < 0.12
    days = [float(row[4]) for row in market.klines("BTCUSDT", "1d", 0, None, 1000, NOW)]
    assert 2_000 < min(days) < max(days) < 500_000


def test_history_begins_where_it_begins(market):
    assert market.klines("BTCUSDT", "1h", 0, None, 2, NOW)[0][0] == LISTED
    assert market.klines("BTCUSDT", "1h", 0, LISTED - 1, 2, NOW) == []
    assert market.klines("BTCUSDT", "1h", None, None, 2, LISTED - 1) == []
    assert market.klines("BTCUSDT", "1h", NOW + HOUR, None, 2, NOW) == []


@given(interval=st.sampled_from(list(grid.MILLIS)), now=st.integers(NOW - 60 * DAY, NOW))
@settings(max_examples=100, deadline=None)
def test_a_forming_bar_shows_only_what_had_happened(market, interval, now):
    step = grid.millis(interval)
    rows = market.klines("BTCUSDT", interval, None, None, 2, now)
    later = market.klines("BTCUSDT", interval, rows[0][0], now, 1000, now + 9 * DAY)
    final = {row[0]: row for row in later}
    assert [row[0] for row in rows] == list(final)
    for row in rows:
        end = final[row[0]]
        assert row[0] <= now
        if end[6] < now:
            assert row == end
            continue
        assert row[:2] == end[:2]
        assert row[6] == row[0] + step - 1
        assert Decimal(end[3]) <= Decimal(row[3]) <= Decimal(row[2]) <= Decimal(end[2])
        assert row[8] <= end[8]
        assert all(Decimal(row[cell]) <= Decimal(end[cell]) for cell in AMOUNTS)
        if interval == "1m":
            seconds = market.klines("BTCUSDT", "1s", row[0], now, 1000, now)
            finished = [second for second in seconds if second[6] < now]
            assert row[8] == sum(second[8] for second in finished)
            assert row[4] == (finished[-1][4] if finished else row[1])


def test_an_outage_is_crossed_in_both_directions(market):
    hours = market.klines("BTCUSDT", "1h", NOW - 41 * DAY, None, 1000, NOW)
    before, after = next((a, b) for a, b in pairwise(hours) if b[0] - a[0] > HOUR)
    start = time.process_time()
    down = market.klines("BTCUSDT", "1s", None, after[0], 2, NOW)
    up = market.klines("BTCUSDT", "1s", before[6] - 999, None, 2, NOW)
    assert time.process_time() - start < 0.5
    assert [row[0] for row in down] == [row[0] for row in up] == [before[6] - 999, after[0]]


def test_a_page_of_1000_bars_takes_milliseconds(market):
    for interval in grid.MILLIS:
        market.klines("BTCUSDT", interval, None, None, 1000, NOW)
        start = time.process_time()
        market.klines("BTCUSDT", interval, None, None, 1000, NOW)
        assert time.process_time() - start < 0.1, interval
