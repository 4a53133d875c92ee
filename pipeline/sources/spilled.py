"""Rows that do not fit in memory, in a temporary Arrow file: written once, mapped, read in order or by row number."""

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.rebatch import equal_batches

BLOCK_ROWS = 2**17


class Spilled:
    """A mapped file of equal blocks. The file has no name any more, so nothing is left behind however the process ends."""

    def __init__(self, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        with tempfile.NamedTemporaryFile(prefix="latentmill-", suffix=".arrow", delete=False) as file:
            path = Path(file.name)
        try:
            with pa.OSFile(str(path), "wb") as out, pa.ipc.new_file(out, schema) as writer:
                for block in equal_batches(batches, BLOCK_ROWS):
                    writer.write_batch(block)
            self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        finally:
            path.unlink()
        self.schema = schema

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Every row, in order, a block at a time."""
        for block in range(self._file.num_record_batches):
            yield self._file.get_batch(block)

    def take(self, rows: npt.NDArray[np.int64]) -> pa.RecordBatch:
        """The given rows, in the given order; −1 gives a row of nulls."""
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        edges = np.searchsorted(ordered, np.arange(0, (self._file.num_record_batches + 1) * BLOCK_ROWS, BLOCK_ROWS))
        found = [_nulls(self.schema, int(edges[0]))]
        for block, (start, stop) in enumerate(pairwise(edges.tolist())):
            if start < stop:
                found.append(self._file.get_batch(block).take(pa.array(ordered[start:stop] - block * BLOCK_ROWS)))
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return cast(pa.RecordBatch, pa.concat_batches(found).take(pa.array(back)))


def _nulls(schema: pa.Schema, count: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([_null_array(f.type, count) for f in schema], schema=schema)


def _null_array(kind: pa.DataType, count: int) -> pa.Array:
    """Nulls; a struct of nulls for a struct, for not every format keeps the two apart."""
    if not pa.types.is_struct(kind):
        return pa.nulls(count, kind)
    return pa.StructArray.from_arrays([pa.nulls(count, f.type) for f in kind], fields=list(kind))
