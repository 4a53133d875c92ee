"""The groups of a reduce folded side by side in threads, where one process does it all.

Statistics spend their time in array operations that let other threads run. One thread a group with its share of the cores for
BLAS and torch is faster than one group with all of them: conversions and elementwise work run side by side too, and nobody
waits at barriers. Few groups are in flight, so memory does not grow with their number.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import TypeVar

from pipeline.executors.base import Splits, fold_group, groups
from pipeline.executors.threads import at_most
from stages.stage import Opens, ReduceStage

State = TypeVar("State")


def folded(splits: Splits, stage: ReduceStage[State], *, threads: int | None) -> Iterator[tuple[int, State]]:
    """Every group's number and state, in the groups' order. `threads`: default, one a core."""
    width = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    cuts = groups(len(splits))
    each = width // max(min(width, len(cuts)), 1)
    waiting: deque[Future[State]] = deque()
    turn = count()
    with (
        at_most(each, blas=1 if isinstance(stage, Opens) else each),
        ThreadPoolExecutor(width, thread_name_prefix="fold") as pool,
    ):
        for cut in cuts:
            waiting.append(pool.submit(fold_group, splits, stage, cut))
            if len(waiting) > width:
                yield next(turn), waiting.popleft().result()
        while waiting:
            yield next(turn), waiting.popleft().result()
