"""The groups of a reduce folded side by side in threads, where one process does it all.

Statistics spend their time in array operations that let other threads run. One thread a group with its share of the cores for
BLAS and torch is faster than one group with all of them: conversions and elementwise work run side by side too, and nobody
waits at barriers. Few groups are in flight, so memory does not grow with their number.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from threadpoolctl import threadpool_limits

from pipeline.executors.base import Splits, fold_group, groups
from stages.stage import ReduceStage

State = TypeVar("State")


def folded(splits: Splits, stage: ReduceStage[State], *, threads: int | None) -> Iterator[State]:
    """The state of every group, in the groups' order. `threads`: default, one a core."""
    width = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    cuts = groups(len(splits))
    waiting: deque[Future[State]] = deque()
    with _at_most(width // max(min(width, len(cuts)), 1)), ThreadPoolExecutor(width, thread_name_prefix="fold") as pool:
        for cut in cuts:
            waiting.append(pool.submit(fold_group, splits, stage, cut))
            if len(waiting) > width:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def _at_most(threads: int) -> Iterator[None]:
    """Threads that BLAS and torch may use in each thread that is started within."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)  # torch's threads follow the last word in every thread that is new
    try:
        with threadpool_limits(threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
