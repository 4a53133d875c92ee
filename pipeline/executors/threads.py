"""How many threads torch and BLAS may use in this process.

Two pools of threads on the same cores wait for each other: after a product, BLAS's threads stay awake for tens of milliseconds,
and torch's are then one core short. So a stage with a model leaves the cores to torch, and BLAS gets one thread: the benchmark's
evaluation took 16 s instead of 22 on two cores.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


def leave_cores_to_torch() -> None:
    """From here on BLAS has one thread in this process, as far as its libraries are loaded."""
    threadpool_limits(1, user_api="blas")


@contextmanager
def at_most(threads: int | None, *, blas: int) -> Iterator[None]:
    """Of torch (None: what it has) and of `blas`, in this thread and each that is started within."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)  # torch's threads follow the last word in every thread that is new
    try:
        with threadpool_limits(blas, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
