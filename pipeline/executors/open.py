"""The one place that turns an executor's spec into an executor. Ray is imported only when it is asked for."""

from pipeline.executors.base import Executor
from schemas.executor import ExecutorSpec, LocalExecutor


def open_executor(spec: ExecutorSpec) -> Executor:
    """Starts or joins what the spec names. The caller closes it."""
    if isinstance(spec, LocalExecutor):
        from pipeline.executors.local import LocalExecutor as Local

        return Local(spec)
    from pipeline.executors.ray import RayExecutor

    return RayExecutor(spec)
