"""Numbers as splits, and a reduce stage over them that brings its weight when it is opened: importable by Ray workers."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from schemas.errors import JobError


@dataclass(frozen=True)
class Numbers:
    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"n": [index]})


class Weighed:
    """Adds up numbers times what `open` brings; opened a second time it would bring something else."""

    def __init__(self, *, refuse: bool = False) -> None:
        self._refuse, self._weight = refuse, 0

    def open(self, device: str) -> None:
        if self._refuse:
            raise JobError.one("codec", "refuse", "was told to refuse.", "do not tell it")
        self._weight += 3

    def start(self) -> int:
        return 0

    def add(self, state: int, batch: pa.RecordBatch) -> int:
        return state + self._weight * sum(batch.column("n").to_pylist())

    def merge(self, a: int, b: int) -> int:
        return a + b
