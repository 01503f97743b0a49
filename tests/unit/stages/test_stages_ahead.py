"""Work that overlaps, and ends in the order of its items."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from bentley.stages import ahead


def test_what_waits_for_its_turn_overlaps_before_and_is_in_order_after():
    both, ended = threading.Barrier(2, timeout=30), []

    def work(item, turn):
        both.wait()  # the first and the second are here at once
        if item == 0:
            second_waits.wait(30)
        else:
            second_waits.set()
        turn()
        ended.append(item)
        return item

    second_waits = threading.Event()
    assert list(ahead.in_turn(work, [0, 1], threads=2)) == [0, 1]
    assert ended == [0, 1]


def test_where_one_fails_those_behind_it_fail_at_their_turn_and_no_more_begin():
    begun, done = [], []

    def work(item, turn):
        begun.append(item)
        if item == 1:
            msg = "the second"
            raise ValueError(msg)
        turn()
        done.append(item)

    with pytest.raises(ValueError, match="the second"):
        list(ahead.in_turn(work, range(100), threads=2))
    assert {0, 1} <= set(begun) <= {0, 1, 2}
    assert done == [0]


def test_whoever_stops_early_waits_for_what_has_begun():
    begun, ended = threading.Event(), []

    def work(item, turn):
        begun.set()
        turn()
        ended.append(item)
        return item

    with closing(ahead.in_turn(work, range(10), threads=2)) as results:
        assert next(results) == 0
    before = list(ended)
    assert before in ([0], [0, 1])
    with pytest.raises(StopIteration):
        next(results)
    assert ended == before


def test_alone_it_works_in_the_callers_thread():
    here = threading.current_thread()

    def work(item, turn):
        turn()
        return item, threading.current_thread()

    assert list(ahead.in_turn(work, range(3), threads=1)) == [(at, here) for at in range(3)]
