"""Listing and reading in tests: a source's rows as one table, its work, and what reading makes of it."""

from typing import Any

import numpy as np
import pyarrow as pa
from imagefiles import encoded

from pipeline.sources.open import open_source
from pipeline.sources.read import ImageReader
from schemas.batches import work_schema
from schemas.codec import Preprocess
from schemas.source import SourceSpec

SMALL = Preprocess(size=8)


def picture(shade: int) -> bytes:
    """A grey PNG of 8×8."""
    return encoded(np.full((8, 8, 3), shade, np.uint8), "PNG")


def shade_of(row: dict[str, Any]) -> int | str:
    """What a read picture shows, or its error."""
    return row["error"] or int(row["pixels"].mean())


def listed(spec: SourceSpec) -> list[dict[str, Any]]:
    """Every listed row, and a check that batches keep to their bound."""
    batches = list(open_source(spec).listing())
    assert all(0 < b.num_rows <= 8192 for b in batches)
    return [row for b in batches for row in b.to_pylist()]


def ids(spec: SourceSpec) -> list[str]:
    return [row["id"] for row in listed(spec)]


def work_of(spec: SourceSpec) -> pa.RecordBatch:
    """All of a source as one batch of work."""
    batch = pa.concat_batches(list(open_source(spec).listing()))
    columns = {name: batch.column(name) for name in batch.schema.names}
    columns["seq"] = pa.array(np.arange(batch.num_rows))
    columns.setdefault("label_error", pa.nulls(batch.num_rows, pa.string()))
    schema = work_schema(columns["labels"].type if "labels" in columns else None)
    return pa.RecordBatch.from_arrays([columns[f.name] for f in schema], schema=schema)


def read(spec: SourceSpec, work: pa.RecordBatch | None = None, preprocess: Preprocess = SMALL) -> list[dict[str, Any]]:
    """Rows of pixels, with `pixels` as an H×W×3 array."""
    batch = ImageReader(spec, preprocess).read(work if work is not None else work_of(spec))
    rows = batch.to_pylist()
    for row in rows:
        row["pixels"] = np.asarray(row["pixels"], np.uint8).reshape(*preprocess.size, 3)
    return rows
