"""The local executor: this process, one split after another. It is the reference that every other executor must equal."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import pyarrow as pa

from pipeline.executors.base import MapJob, Receipt, Splits, groups, merged
from pipeline.executors.device import resolve_device
from pipeline.executors.folds import folded
from schemas.executor import LocalExecutor as LocalSpec
from stages.stage import Opens, ReduceStage

State = TypeVar("State")
Item = TypeVar("Item")


class LocalExecutor:
    """Runs maps and reduces in process."""

    def __init__(self, spec: LocalSpec) -> None:
        self._device = resolve_device(spec.device)
        self._threads = spec.threads
        self._read = 0

    def rows_read(self) -> int:
        """Rows read so far by the map that is running."""
        return self._read

    def map(self, job: MapJob) -> Iterator[Receipt]:
        if self._threads:
            import torch

            torch.set_num_threads(self._threads)
        job.stage.open(self._device)
        self._read = 0
        for index in range(len(job.splits)):
            clock = _Clock()
            pixels = clock.timed("read", self._counted(job.splits.read(index)))
            computed = clock.timed("compute", (job.stage(batch) for batch in pixels), less="read")
            started = time.perf_counter()
            receipt = job.sink.write(computed)
            upstream = clock.seconds.get("read", 0.0) + clock.seconds.get("compute", 0.0)
            clock.seconds["write"] = time.perf_counter() - started - upstream
            yield replace(receipt, seconds=clock.seconds)

    def _counted(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self._read += batch.num_rows
            yield batch

    def reduce(self, splits: Splits, stage: ReduceStage[State]) -> State:
        if isinstance(stage, Opens):
            stage.open(self._device)
        states = folded(splits, stage, threads=self._threads)
        return merged(stage, states, count=len(groups(len(splits))))

    def stream(self, task: Callable[[str], Iterator[Item]]) -> Iterator[Item]:
        yield from task(self._device)

    def close(self) -> None:
        """Nothing to let go of."""


class _Clock:
    """Seconds spent inside lazy legs, by kind."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(
        self, kind: str, batches: Iterable[pa.RecordBatch], *, less: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Passes batches on and adds the time they took to make, without the time of the leg they drew from."""
        iterator = iter(batches)
        while True:
            inner = self.seconds.get(less, 0.0) if less else 0.0
            started = time.perf_counter()
            batch = next(iterator, None)
            spent = time.perf_counter() - started
            spent -= (self.seconds.get(less, 0.0) - inner) if less else 0.0
            self.seconds[kind] = self.seconds.get(kind, 0.0) + spent
            if batch is None:
                return
            yield batch
