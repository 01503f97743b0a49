"""What a sync reads: tails, heads and whole series, in as few passes as can be."""

from bentley.stages.reading import Mark, Reading, plan

HOUR = 3_600_000
DAY = 24 * HOUR
NOW = 1_700_000_000_000 // DAY * DAY + 5 * HOUR + 17
BTC, ETH, DAILY = ("BTCUSDT", "1h"), ("ETHUSDT", "1h"), ("BTCUSDT", "1d")


def planned(wanted, marks, *, since=None, until=None, lookback_bars=3):
    return plan(
        wanted,
        marks,
        since=since,
        until=until,
        now=NOW,
        history_days=2,
        lookback_bars=lookback_bars,
    )


def test_a_new_series_starts_on_its_grid():
    (reading,) = planned([BTC, DAILY], {})
    first = NOW - 2 * DAY
    assert reading == Reading(
        {BTC: first - first % HOUR + HOUR, DAILY: first - first % DAY + DAY}, NOW + 1, tail=True
    )


def test_a_tail_starts_some_bars_before_the_cursor_but_never_before_its_begin():
    marks = {
        BTC: Mark(NOW - 9 * DAY, NOW - 10 * HOUR),
        ETH: Mark(NOW - 11 * HOUR, NOW - 10 * HOUR),
        DAILY: Mark(NOW - 9 * DAY, NOW - DAY),
    }
    (reading,) = planned([BTC, ETH, DAILY], marks)
    assert reading.starts == {BTC: NOW - 13 * HOUR, ETH: NOW - 11 * HOUR, DAILY: NOW - 4 * DAY}
    assert (reading.tail, reading.end) == (True, NOW + 1)


def test_a_later_since_leaves_no_hole():
    marks = {BTC: Mark(NOW - 9 * DAY, NOW - 5 * DAY)}
    (reading,) = planned([BTC], marks, since=NOW - DAY, lookback_bars=0)
    assert reading.starts == {BTC: NOW - 5 * DAY}


def test_an_earlier_since_adds_a_head_that_ends_where_the_series_begins():
    since = NOW - NOW % HOUR - 9 * DAY
    marks = {
        BTC: Mark(since + 2 * DAY, since + 8 * DAY),
        ETH: Mark(since + 2 * DAY, since + 8 * DAY),
        DAILY: Mark(since + 3 * DAY, since + 8 * DAY),
    }
    tail, *heads = planned([BTC, ETH, DAILY], marks, since=since)
    assert tail.tail
    assert [head.tail for head in heads] == [False, False]
    assert [head.end for head in heads] == [since + 2 * DAY, since + 3 * DAY]
    assert heads[0].starts == {BTC: since, ETH: since}
    assert list(heads[1].starts) == [DAILY]


def test_until_cuts_tails_heads_and_new_series():
    mark = {BTC: Mark(NOW - 5 * DAY, NOW - DAY)}
    assert planned([BTC], mark, until=NOW - 2 * DAY) == []
    (head,) = planned([BTC], mark, since=NOW - 8 * DAY, until=NOW - 7 * DAY)
    assert (head.tail, head.end) == (False, NOW - 7 * DAY)
    assert planned([ETH], {}, until=NOW - 30 * DAY) == []
    (fresh,) = planned([ETH], {}, until=NOW - DAY)
    assert (fresh.tail, fresh.end) == (True, NOW - DAY)


def test_an_until_in_the_future_reads_no_bar_that_the_clock_has_not_seen():
    marks = {BTC: Mark(NOW - 5 * DAY, NOW - DAY)}
    (tail,) = planned([BTC], marks, until=NOW + DAY)
    (fresh,) = planned([ETH], {}, until=NOW + DAY)
    assert (tail.end, fresh.end) == (NOW + 1, NOW + 1)
