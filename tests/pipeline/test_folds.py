"""Groups folded in threads: every row once, in the groups' order, few at a time, and a failure is not swallowed."""

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest
import torch

from pipeline.executors.base import GROUPS, groups, merged
from pipeline.executors.folds import folded
from pipeline.executors.local import LocalExecutor
from schemas.errors import AccountingError
from schemas.executor import LocalExecutor as LocalSpec


class Numbers:
    """Splits of one row each: the row is the split's number."""

    def __init__(self, count: int, *, broken: int | None = None) -> None:
        self.count, self.broken, self.started = count, broken, 0
        self.most_ahead, self.merged, self._lock = 0, 0, threading.Lock()

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        with self._lock:
            self.started += 1
            self.most_ahead = max(self.most_ahead, self.started - self.merged)
        if index == self.broken:
            raise ValueError(f"split {index} cannot be read")
        yield pa.record_batch({"n": [index]})


class Listing:
    """A reduce stage that keeps every row in the order it came."""

    def start(self) -> list[int]:
        return []

    def add(self, state: list[int], batch: pa.RecordBatch) -> list[int]:
        return state + batch.column("n").to_pylist()

    def merge(self, a: list[int], b: list[int]) -> list[int]:
        return a + b


@pytest.mark.parametrize("count", [0, 1, 5, GROUPS, 3 * GROUPS + 1])
@pytest.mark.parametrize("threads", [1, 2, 7, None])
def test_every_row_once_and_in_order(count: int, threads: int | None) -> None:
    executor = LocalExecutor(LocalSpec(threads=threads))
    assert executor.reduce(Numbers(count), Listing()) == list(range(count))


def test_groups_do_not_pile_up() -> None:
    numbers = Numbers(GROUPS)
    for _ in folded(numbers, Listing(), threads=2):
        numbers.merged += 1
    assert len(groups(GROUPS)) == GROUPS
    assert numbers.most_ahead <= 2 * 2 + 1


def test_a_failure_comes_out() -> None:
    with pytest.raises(ValueError, match="split 11 cannot be read"):
        LocalExecutor(LocalSpec()).reduce(Numbers(20, broken=11), Listing())


def test_groups_that_come_in_any_order_or_twice_are_merged_once_and_in_order() -> None:
    came = [(2, [2]), (0, [0]), (0, [0]), (1, [1]), (2, [2]), (3, [3])]
    assert merged(Listing(), iter(came), count=4) == [0, 1, 2, 3]


@pytest.mark.parametrize("missing", [0, 2, 3])
def test_a_group_that_never_came_is_an_error(missing: int) -> None:
    came = ((i, [i]) for i in range(4) if i != missing)
    with pytest.raises(AccountingError, match=f"4 groups .* number {missing} came back from no worker"):
        merged(Listing(), came, count=4)


class Threads(Listing):
    """A reduce stage that notes how many threads torch may use where a group is folded."""

    def add(self, state: list[int], batch: pa.RecordBatch) -> list[int]:
        return [*state, torch.get_num_threads()]


def test_groups_side_by_side_share_the_threads() -> None:
    before = torch.get_num_threads()
    assert LocalExecutor(LocalSpec(threads=4)).reduce(Numbers(8), Threads()) == [1] * 8
    assert LocalExecutor(LocalSpec(threads=4)).reduce(Numbers(2), Threads()) == [2, 2]
    assert LocalExecutor(LocalSpec(threads=4)).reduce(Numbers(1), Threads()) == [4], "a group alone has them all"
    assert torch.get_num_threads() == before
