"""The rate limit that all processes of a home hold together."""

import json
import multiprocessing
import time

import pytest

from bentley.domain.errors import RetriableError
from bentley.sources.pace import Pace


def _take(path, calls, seconds, times, done):
    pace = Pace(path, calls, seconds)
    for _ in range(times):
        pace.take("it", patience=30)
        done.put(time.time())


def test_processes_together_keep_the_limit(tmp_path):
    context = multiprocessing.get_context("spawn")
    done = context.Queue()
    arguments = (tmp_path / "pace" / "it.json", 4, 1.0, 4, done)
    running = [context.Process(target=_take, args=arguments) for _ in range(3)]
    for process in running:
        process.start()
    times = sorted(done.get(timeout=60) for _ in range(12))
    for process in running:
        process.join()
    # A fifth request within the second of the first would be one too many.
    assert all(later - first > 0.9 for first, later in zip(times, times[4:], strict=False))
    assert times[-1] - times[0] < 10


def test_a_wait_beyond_the_patience_is_told_and_takes_no_place(tmp_path):
    pace = Pace(tmp_path / "it.json", 1, 60.0)
    pace.take("Polygon", patience=0)
    for _ in range(2):
        with pytest.raises(RetriableError, match="Polygon takes 1 requests in 60 s") as caught:
            pace.take("Polygon", patience=5)
        assert 50 < (caught.value.retry_after or 0) <= 60
    assert len(json.loads((tmp_path / "it.json").read_text())) == 1


@pytest.mark.parametrize("content", ["[17", '{"a": 1}', '["x"]', "null"])
def test_a_broken_file_counts_as_empty(tmp_path, content):
    (tmp_path / "it.json").write_text(content)
    Pace(tmp_path / "it.json", 1, 60.0).take("it", patience=0)
    assert len(json.loads((tmp_path / "it.json").read_text())) == 1


def test_a_clock_that_was_set_back_does_not_shut_the_door(tmp_path):
    (tmp_path / "it.json").write_text(json.dumps([time.time() + 10**6]))
    Pace(tmp_path / "it.json", 1, 60.0).take("it", patience=0)
    assert len(json.loads((tmp_path / "it.json").read_text())) == 1
