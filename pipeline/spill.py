"""Arrow files of equal batches: written once by the driver, read by row range from any worker.

Because every batch but the last has the same number of rows, row n is in batch n // size, and no index is needed.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import artifacts
from pipeline.rebatch import equal_batches


@dataclass(frozen=True)
class Spill:
    """A written file: picklable, small. `options` are its fsspec options as JSON, so that it hashes."""

    url: str
    rows: int
    batch_rows: int
    options: str = "{}"

    def __len__(self) -> int:
        """Number of batches."""
        return -(-self.rows // self.batch_rows)

    def batch(self, index: int) -> pa.RecordBatch:
        return _open(self.url, self.options).get_batch(index)

    def read(self, start: int, stop: int) -> pa.RecordBatch:
        """Rows `start` to `stop`, which may cross batches."""
        parts = [
            self.batch(i).slice(max(start - i * self.batch_rows, 0), stop - max(start, i * self.batch_rows))
            for i in range(start // self.batch_rows, -(-stop // self.batch_rows))
        ]
        return parts[0] if len(parts) == 1 else pa.concat_batches(parts)


def write_spill(
    batches: Iterator[pa.RecordBatch], url: str, *, schema: pa.Schema, batch_rows: int, options: Mapping[str, Any]
) -> Spill:
    """Writes `batches` (the columns of `schema` without its first, `seq`) numbered from 0. Atomic: half a file is never seen."""
    seq = 0
    with artifacts.open_write(url, dict(options)) as out, pa.ipc.new_file(out, schema) as writer:
        for batch in equal_batches(batches, batch_rows):
            numbers = pa.array(np.arange(seq, seq + batch.num_rows))
            writer.write_batch(pa.RecordBatch.from_arrays([numbers, *batch.columns], schema=schema))
            seq += batch.num_rows
    return Spill(url, seq, batch_rows, json.dumps(options, sort_keys=True))


@lru_cache(maxsize=4)
def _open(url: str, options: str) -> pa.ipc.RecordBatchFileReader:
    # The footer lists every batch; a worker reads it once, not once a batch.
    if artifacts.is_local(url):
        return pa.ipc.open_file(pa.memory_map(str(artifacts.local_path(url))))
    return pa.ipc.open_file(artifacts.open_read(url, json.loads(options)))
