"""Running ahead, in bounded memory, without changing the order: how slow listings overlap."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

WORKERS = 8
DEPTH = 4  # items that are read of a section before anybody asks for them


def in_order(sections: Iterator[Iterable[T]]) -> Iterator[T]:
    """The items of every section, one section after another, while threads already read the next few.

    An error is raised in its section's place: after the items of those before it, and none of those after it.
    """
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="listing")
    waiting: deque[_Ahead[T]] = deque()
    try:
        for section in sections:
            waiting.append(_Ahead(section, pool))
            if len(waiting) == WORKERS:
                yield from waiting.popleft()
        while waiting:
            yield from waiting.popleft()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Ahead(Generic[T]):
    """One section, read a few items at a time, the next few while the last ones are used. Never by two threads at once."""

    def __init__(self, section: Iterable[T], pool: ThreadPoolExecutor) -> None:
        self._items, self._pool = iter(section), pool
        self._next: Future[list[T]] = pool.submit(self._pull)

    def __iter__(self) -> Iterator[T]:
        while items := self._next.result():
            self._next = self._pool.submit(self._pull)
            yield from items

    def _pull(self) -> list[T]:
        return list(islice(self._items, DEPTH))
