"""What every source of images does, and how listed rows become batches."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from schemas.batches import listing_schema
from schemas.source import LabelType

BATCH_ROWS = 8192
UNKNOWN_VERSION = "unknown"


class Source(Protocol):
    """Where images come from. Listing reads no image bytes, holds no more than a few batches, and gives the same order every time."""

    def listing(self) -> Iterator[pa.RecordBatch]:
        """Batches of `listing_schema`, at most 8,192 rows; with `labels` and `label_error` where the source carries labels.

        Raises SourceError when the place is missing, closed, or holds no image.
        """

    def label_types(self) -> dict[str, LabelType]:
        """Labels that the source itself carries; {} when it carries none."""


def listing_batch(
    *,
    ids: pa.StringArray,
    uris: pa.StringArray,
    versions: pa.StringArray,
    sizes: pa.Int64Array | None = None,
    offsets: pa.Int64Array | None = None,
    rows: pa.Int64Array | None = None,
    labels: tuple[pa.StructArray, pa.StringArray] | None = None,
) -> pa.RecordBatch:
    """One listing batch; columns that are not given are null. `labels` are the values and what was wrong with them."""
    schema, nothing = listing_schema(), pa.nulls(len(ids), pa.int64())
    columns = [ids, uris, versions, *(nothing if c is None else c for c in (sizes, offsets, rows))]
    if labels is not None and labels[0].type.num_fields:
        schema = schema.append(pa.field("labels", labels[0].type)).append(pa.field("label_error", pa.string()))
        columns += labels
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def repeated(text: str, count: int) -> pa.StringArray:
    """A column that says the same in every row."""
    return pa.repeat(pa.scalar(text, pa.string()), count)


def below(folder: str, paths: pa.StringArray) -> pa.StringArray:
    """URIs of relative `paths` in `folder`."""
    head = folder if folder.endswith("/") else folder + "/"
    return pc.binary_join_element_wise(pa.scalar(head), paths, "")


def versions_of(etags: Sequence[str | None], sizes: pa.Int64Array, mtimes: pa.Int64Array) -> pa.StringArray:
    """What a listing tells of a version: the etag, or `size-mtime_ns`, or the size."""
    told = pa.array(etags, pa.string())
    stamp = pc.binary_join_element_wise(pc.cast(sizes, pa.string()), pc.cast(mtimes, pa.string()), "-")
    return pc.fill_null(pc.coalesce(told, stamp, pc.cast(sizes, pa.string())), UNKNOWN_VERSION)


def local_version(size: int, mtime_ns: int) -> str:
    """`versions_of` for one local file."""
    return f"{size}-{mtime_ns}"
