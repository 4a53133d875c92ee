"""Values of columns on local disk, by fragment: what comes in any order is put back where its rows lie.

Rows are kept in buckets of fragments, so memory is one bucket's part of one fragment. For the process that made it alone.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from pipeline.store.column_values import columns_schema
from pipeline.store.splits import ADDRESS

BUCKETS = 64


class ColumnSpill:
    """Implements `column_values.ColumnValues`: `add` batches with `_rowaddr` and the fields, then put the columns. A context manager."""

    def __init__(self, fields: tuple[pa.Field, ...]) -> None:
        self.fields = fields
        self.rows = 0
        self._schema = columns_schema(fields)
        self._folder = tempfile.TemporaryDirectory(prefix="latentmill-columns-")
        self._open: dict[int, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._folder.cleanup()

    def add(self, batch: pa.RecordBatch) -> None:
        """Values of some rows, each row once."""
        batch = pa.RecordBatch.from_arrays([batch.column(n) for n in self._schema.names], schema=self._schema)
        buckets = (batch.column(ADDRESS).to_numpy() >> np.uint64(32)) % np.uint64(BUCKETS)
        for bucket in np.unique(buckets).tolist():
            self._writer(bucket).write_batch(batch.filter(pa.array(buckets == bucket)))
        self.rows += batch.num_rows

    def of(self, fragment: Any) -> Iterator[pa.RecordBatch]:
        """The rows of one fragment."""
        self._close()
        # Asked once: Lance borrows the fragment while it takes the rows, and answers nothing then.
        number = fragment.fragment_id
        path = self._path(number % BUCKETS)
        if not path.exists():
            return
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            for batch in reader:
                here = batch.column(ADDRESS).to_numpy() >> np.uint64(32) == np.uint64(number)
                if here.any():
                    yield batch if here.all() else batch.filter(pa.array(here))

    def _writer(self, bucket: int) -> Any:
        if bucket not in self._open:
            file = pa.OSFile(str(self._path(bucket)), "wb")
            self._open[bucket] = (file, pa.ipc.new_stream(file, self._schema))
        return self._open[bucket][1]

    def _close(self) -> None:
        for file, writer in self._open.values():
            writer.close()
            file.close()
        self._open = {}

    def _path(self, bucket: int) -> Path:
        return Path(self._folder.name) / f"{bucket}.arrow"
