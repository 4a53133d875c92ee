"""The groups of a reduce folded side by side in threads, where one process does it all.

Statistics spend their time in array operations that let other threads run. One thread a group with one BLAS thread each
is faster than one group with many BLAS threads: conversions and elementwise work run side by side too, and nobody waits at
BLAS's barriers. Few groups are in flight, so memory does not grow with their number.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from pipeline.executors.base import Splits, fold_group, groups
from stages.stage import ReduceStage

State = TypeVar("State")


def folded(splits: Splits, stage: ReduceStage[State], *, threads: int | None) -> Iterator[State]:
    """The state of every group, in the groups' order. `threads`: default, one a core."""
    width = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    waiting: deque[Future[State]] = deque()
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(width, thread_name_prefix="fold") as pool:
        for cut in groups(len(splits)):
            waiting.append(pool.submit(fold_group, splits, stage, cut))
            if len(waiting) > width:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
