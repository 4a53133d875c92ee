"""The data files of new columns: written beside each fragment's own, invisible until one commit names them all."""

import json
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.store.column_values import ColumnValues, columns_schema
from pipeline.store.engine import EngineError, asking
from pipeline.store.ref import TableRef, pinned
from pipeline.store.splits import ADDRESS
from schemas.errors import LatentmillError


@dataclass(frozen=True)
class FragmentSplits:
    """One fragment a piece: what `WriteColumns` folds. Implements `executors.base.Splits`."""

    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"fragment": pa.array([self.numbers[index]], pa.int64())})


@dataclass(frozen=True)
class WrittenColumns:
    """One fragment's new data file, not visible yet: the fragment's metadata, and which fields and rows it changes."""

    metadata: str
    rows: int
    """Values that were given."""
    schema: bytes
    """Of the table with the new columns, pickled; empty when columns were replaced."""
    modified: tuple[int, ...] = ()
    offsets: bytes = b""


Written = dict[int, WrittenColumns]


@dataclass(frozen=True)
class WriteColumns:
    """Reduce stage of `FragmentSplits`: writes each fragment's new data file. Writing one twice leaves an orphan, no more."""

    ref: TableRef
    version: int
    values: ColumnValues
    new: bool

    def start(self) -> Written:
        return {}

    def add(self, state: Written, batch: pa.RecordBatch) -> Written:
        dataset = pinned(self.ref, self.version)
        for number in batch.column("fragment").to_pylist():
            if (written := _write(dataset.get_fragment(number), self.values, self.ref, new=self.new)) is not None:
                state = state | {number: written}
        return state

    def merge(self, a: Written, b: Written) -> Written:
        return a | b


def _write(fragment: Any, values: ColumnValues, ref: TableRef, *, new: bool) -> WrittenColumns | None:
    """The fragment's data file of the columns; None when there is no value for any of its rows."""
    feed = _Feed(values.of(fragment))
    first = next(feed, None)
    if first is None:
        return None
    reader = pa.RecordBatchReader.from_batches(columns_schema(values.fields), _chained(first, feed))
    try:
        if new:
            metadata, schema = fragment.merge(reader, ADDRESS)
            return WrittenColumns(json.dumps(metadata.to_json()), feed.rows, pickle.dumps(schema))
        metadata, modified, offsets = fragment.update_columns(reader, ADDRESS, with_offsets=True)
    except EngineError as error:
        if feed.raised is not None:
            raise feed.raised from error
        with asking(ref.uri, "writing columns to"):
            raise
    return WrittenColumns(json.dumps(metadata.to_json()), feed.rows, b"", tuple(modified), offsets)


class _Feed:
    """Counts rows, and keeps what the source raised, which Lance would turn into text."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = iter(batches)
        self.raised: LatentmillError | None = None
        self.rows = 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        try:
            batch = next(self._batches)
        except LatentmillError as error:
            self.raised = error
            raise
        self.rows += batch.num_rows
        return batch


def _chained(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest
