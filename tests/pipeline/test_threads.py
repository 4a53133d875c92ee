"""Models get the cores, BLAS one thread beside them; statistics share the cores among groups."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch
from threadpoolctl import threadpool_info

from pipeline.executors.local import LocalExecutor
from schemas.executor import LocalExecutor as LocalSpec

Threads = set[tuple[int, int]]


class Rows:
    """Splits of one row each."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"x": [index]})


class Asked:
    """Collects (torch's threads, BLAS's threads) where batches are added."""

    def start(self) -> Threads:
        return set()

    def add(self, state: Threads, batch: pa.RecordBatch) -> Threads:
        return state | {(torch.get_num_threads(), blas())}

    def merge(self, a: Threads, b: Threads) -> Threads:
        return a | b


class AskedWithModel(Asked):
    def open(self, device: str) -> None:
        assert device == "cpu"


def blas() -> int:
    np.ones((2, 2)) @ np.ones((2, 2))
    return max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")


@pytest.mark.parametrize(
    ("stage", "splits", "found"),
    [(Asked(), 1, (2, 2)), (Asked(), 40, (1, 1)), (AskedWithModel(), 1, (2, 1)), (AskedWithModel(), 40, (1, 1))],
)
def test_threads_of_a_reduce(stage: Asked, splits: int, found: tuple[int, int]) -> None:
    before = torch.get_num_threads(), blas()
    executor = LocalExecutor(LocalSpec(device="cpu", threads=2))
    assert executor.reduce(Rows(splits), stage) == {found}
    assert (torch.get_num_threads(), blas()) == before
