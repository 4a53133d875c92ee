"""Reading: work rows → pixels. What is wrong with a row becomes its `error`; nothing about a row is ever raised.

One uint8 array is filled in place for a whole batch and handed to Arrow without a copy.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.sources.fetch import Fetched, Fetcher, Wanted
from pipeline.sources.parquet_rows import ParquetRows
from schemas.batches import pixels_schema
from schemas.codec import Preprocess
from schemas.errors import FailureCode, RowFailure
from schemas.source import SourceSpec
from stages.images import Decoded, decode, prepare_worker


class ImageReader:
    """Reads and decodes work of one source. Picklable: connections and open files are made where it is used. One thread at a time."""

    def __init__(self, spec: SourceSpec, preprocess: Preprocess) -> None:
        self.spec, self.preprocess = spec, preprocess
        self._objects: Fetcher | None = None
        self._rows: ParquetRows | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"spec": self.spec, "preprocess": self.preprocess, "_objects": None, "_rows": None}

    def read(self, work: pa.RecordBatch) -> pa.RecordBatch:
        """`work_schema` → `pixels_schema`, row by row in the same order. Failed rows have `error`, `message` and zero pixels."""
        self._open()
        spec, filling = self.spec, _Filling(work, self.preprocess.size)
        for index, fetched in self._fetched(work):
            if isinstance(fetched, RowFailure):
                filling.fail(index, fetched)
                continue
            filling.hashes[index] = xxhash.xxh3_128_hexdigest(fetched)
            decoded = decode(
                fetched,
                preprocess=self.preprocess,
                max_pixels=spec.max_pixels,
                max_bytes=spec.max_bytes,
                uri=filling.places[index],
            )
            if isinstance(decoded, RowFailure):
                filling.fail(index, decoded)
            else:
                filling.fill(index, decoded)
        return filling.batch()

    def _open(self) -> None:
        if self._objects is not None:
            return
        prepare_worker()
        spec = self.spec
        self._objects = Fetcher(spec.storage_options, max_bytes=spec.max_bytes, stamped=spec.kind != "manifest")
        if spec.kind == "parquet":
            self._rows = ParquetRows(spec.storage_options, column=spec.image_column, objects=self._objects)

    def _fetched(self, work: pa.RecordBatch) -> Iterator[tuple[int, Fetched]]:
        """Every row's bytes or failure. A row whose label could not be read needs no bytes."""
        names = ("uri", "source_version", "size", "offset", "row", "label_error")
        columns = zip(*(work.column(name).to_pylist() for name in names), strict=True)
        wanted: list[Wanted] = []
        numbers: list[int] = []
        for index, (uri, version, size, offset, row, label_error) in enumerate(columns):
            if label_error is not None:
                yield index, RowFailure(FailureCode.UNREADABLE_LABEL, label_error)
            else:
                wanted.append(Wanted(index, uri, version, size, offset))
                numbers.append(row)
        assert self._objects is not None
        yield from self._rows.fetch(zip(wanted, numbers, strict=True)) if self._rows else self._objects.fetch(wanted)


class _Filling:
    """The columns of a pixels batch while its rows come in, in any order."""

    def __init__(self, work: pa.RecordBatch, size: tuple[int, int]) -> None:
        count = work.num_rows
        self._work = work
        self._pixels = np.zeros((count, *size, 3), np.uint8)
        self._shapes: list[tuple[int | None, int | None]] = [(None, None)] * count
        self._failures: list[tuple[str | None, str | None]] = [(None, None)] * count
        self._done = 0
        self.hashes: list[str | None] = [None] * count
        # What a message calls a row: its file, and its id where the file holds many.
        uris, ids = work.column("uri").to_pylist(), work.column("id").to_pylist()
        self.places = [u if u.endswith(i) else f"{u}, image {i}" for u, i in zip(uris, ids, strict=True)]

    def fill(self, index: int, decoded: Decoded) -> None:
        self._pixels[index] = decoded.pixels
        self._shapes[index] = (decoded.width, decoded.height)
        self._done += 1

    def fail(self, index: int, failure: RowFailure) -> None:
        self._failures[index] = (failure.code.value, failure.message)
        self._done += 1

    def batch(self) -> pa.RecordBatch:
        work, (count, height, width, _) = self._work, self._pixels.shape
        assert self._done == count, f"{self._done} answers for {count} rows"
        flat = pa.Array.from_buffers(pa.uint8(), self._pixels.size, [None, pa.py_buffer(self._pixels)])
        labels = work.schema.field("labels").type if "labels" in work.schema.names else None
        columns = [
            *(work.column(name) for name in ("seq", "id", "uri", "source_version")),
            pa.array(self.hashes, pa.string()),
            pa.array([s[0] for s in self._shapes], pa.int32()),
            pa.array([s[1] for s in self._shapes], pa.int32()),
            pa.array([f[0] for f in self._failures], pa.string()),
            pa.array([f[1] for f in self._failures], pa.string()),
            pa.FixedSizeListArray.from_arrays(flat, height * width * 3),
            *([work.column("labels")] if labels is not None else []),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=pixels_schema(height, width, labels))
