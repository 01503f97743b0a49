"""Work that is done ahead of its consumer, in other threads and within a bound."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def mapped(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int
) -> Generator[_Result, None, None]:
    """Give `work` of each item in their order, up to `threads` of them at once and ahead."""
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class _End(Generic[_Item]):
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def buffered(items: Generator[_Item, None, None], *, depth: int) -> Generator[_Item, None, None]:
    """Give the items, made by a thread that is at most `depth` of them ahead."""
    made: queue.Queue[_Item | _End[_Item]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: _Item | _End[_Item]) -> None:
        while not stopped.is_set():
            try:
                made.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def make() -> None:
        error: BaseException | None = None
        try:
            with closing(items):
                for item in items:
                    put(item)
                    if stopped.is_set():
                        return
        except BaseException as raised:  # noqa: BLE001 - it is raised where the items are used
            error = raised
        put(_End(error))

    maker = threading.Thread(target=make, name="bentley-ahead", daemon=True)
    maker.start()
    try:
        while not isinstance(item := made.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        maker.join()
