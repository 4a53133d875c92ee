"""The bare scan that passes over a table are held against: the same splits and executor, and nothing done with the rows."""

import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.executors.local import LocalExecutor
from pipeline.store.splits import TableSplits
from schemas.executor import LocalExecutor as LocalSpec
from stages.stage import ReduceStage


@dataclass(frozen=True)
class Count:
    """A reduce stage that counts rows and looks at none."""

    def start(self) -> int:
        return 0

    def add(self, state: int, batch: pa.RecordBatch) -> int:
        return state + batch.num_rows

    def merge(self, a: int, b: int) -> int:
        return a + b


def scanned(splits: TableSplits, stage: ReduceStage[Any]) -> tuple[float, Any]:
    """Seconds of one reduce on the local executor, and what it found."""
    executor = LocalExecutor(LocalSpec())
    started = time.perf_counter()
    found = executor.reduce(splits, stage)
    return time.perf_counter() - started, found


def raw_seconds(splits: TableSplits) -> float:
    """Seconds of the bare scan. Every row must have come."""
    seconds, rows = scanned(splits, Count())
    assert rows == splits.rows
    return seconds
