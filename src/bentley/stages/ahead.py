"""Work that is done ahead of its consumer, in other threads and within a bound."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
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


def in_turn(
    work: Callable[[_Item, Callable[[], None]], _Result], items: Iterable[_Item], *, threads: int
) -> Generator[_Result, None, None]:
    """Give `work` of each item like `mapped`; it waits for its turn by the function that it gets.

    That returns when the work of the item before is done, and raises what that one raised. It
    must be called, and may be more than once.
    """

    def linked() -> Iterator[tuple[_Item, Future[None], Future[None]]]:
        before = Future[None]()
        before.set_result(None)
        for item in items:
            own = Future[None]()
            yield item, before, own
            before = own

    def do(link: tuple[_Item, Future[None], Future[None]]) -> _Result:
        item, before, own = link
        try:
            done = work(item, before.result)
        except BaseException as error:
            own.set_exception(error)
            raise
        own.set_result(None)
        return done

    if threads == 1:  # in the caller's own, which takes less memory
        return (work(item, _at_once) for item in items)
    return mapped(do, linked(), threads=threads)


def _at_once() -> None:
    """Wait for nothing."""


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
