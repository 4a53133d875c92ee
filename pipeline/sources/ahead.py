"""Running ahead, in bounded memory, without changing the order: how slow listings overlap."""

import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

WORKERS = 8
DEPTH = 4  # items a section may be ahead


def in_order(sections: Iterator[Iterable[T]]) -> Iterator[T]:
    """The items of every section, one section after another, while the next few are already being read by threads.

    An error of a section is raised where its items would have come. Closing the iterator stops the threads.
    """
    stop = threading.Event()
    waiting: deque[queue.Queue[tuple[str, T | BaseException | None]]] = deque()
    try:
        for section in sections:
            waiting.append(_started(section, stop))
            if len(waiting) == WORKERS:
                yield from _drained(waiting.popleft())
        while waiting:
            yield from _drained(waiting.popleft())
    finally:
        stop.set()


def _started(section: Iterable[T], stop: threading.Event) -> "queue.Queue[tuple[str, T | BaseException | None]]":
    items: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(DEPTH)

    def put(kind: str, item: T | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                items.put((kind, item), timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for item in section:
                if not put("item", item):
                    return
        except BaseException as error:  # noqa: BLE001 - carried to the reader, who raises it
            put("error", error)
        else:
            put("end", None)

    if isinstance(section, list):  # nothing to wait for: no thread
        items = queue.Queue()
        for item in section:
            items.put(("item", item))
        items.put(("end", None))
    else:
        threading.Thread(target=run, daemon=True).start()
    return items


def _drained(items: "queue.Queue[tuple[str, T | BaseException | None]]") -> Iterator[T]:
    while True:
        kind, item = items.get()
        if kind == "end":
            return
        if kind == "error":
            assert isinstance(item, BaseException)
            raise item
        yield item  # type: ignore[misc]
