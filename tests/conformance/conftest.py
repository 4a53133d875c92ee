"""Both executors, the same for every conformance test. One private Ray serves the whole session."""

from collections.abc import Callable, Iterator

import pytest

from pipeline.executors.base import Executor
from pipeline.executors.local import LocalExecutor
from schemas.executor import LocalExecutor as LocalSpec


@pytest.fixture(scope="session")
def local() -> Executor:
    return LocalExecutor(LocalSpec())


@pytest.fixture(scope="session")
def ray_executor() -> Iterator[Callable[..., Executor]]:
    """`ray_executor(workers=2)`: an executor on the session's Ray."""
    from pipeline.executors.ray import RayExecutor
    from schemas.executor import RayExecutor as RaySpec

    first = RayExecutor(RaySpec(num_cpus=4, object_store_bytes=300 * 2**20))
    yield lambda **options: RayExecutor(RaySpec(num_cpus=4, **options))
    first.close()
