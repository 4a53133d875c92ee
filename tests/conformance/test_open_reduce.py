"""A reduce whose stage needs a model: opened once a worker, the same answer on both executors, its refusal arrives whole."""

from collections.abc import Callable

import pytest

from pipeline.executors.base import Executor
from schemas.errors import JobError
from tests.weighed import Numbers, Weighed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_opened_once_a_worker(local: Executor, ray_executor: Callable[..., Executor], kind: str) -> None:
    executor = local if kind == "local" else ray_executor(workers=2)
    assert executor.reduce(Numbers(100), Weighed()) == 3 * 4950
    with pytest.raises(JobError) as caught:
        executor.reduce(Numbers(5), Weighed(refuse=True))
    assert [p.value for p in caught.value.problems] == ["refuse"]
