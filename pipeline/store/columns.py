"""Columns computed for rows that are there already: an anomaly score, a map's coordinates, corrected labels.

Data files of new columns are written beside each fragment's own, invisible until one commit names them all, so a reader sees
every value or none. No row moves: row ids and the vector index stay, and indexes on a replaced column forget the fragments that
changed. Columns that are new come in by Lance's `Merge`, columns that are there are replaced by `Update`; both conflict with a
fence in either order, so a zombie's commit never lands. Rows appended later have nulls until the columns are computed again.

Joined by row address, which holds as long as fragments do: should they have changed between the version where the addresses were
read and the commit, it is refused.
"""

import json
import pickle
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from pipeline.store.commit import ATTEMPT, TOKEN, check_token, commit_operation, landed, persist
from pipeline.store.engine import EngineError, asking, lance
from pipeline.store.ref import TableRef, pinned
from pipeline.store.splits import ADDRESS, MAX_BATCH_ROWS, batch_rows_for, row_bytes
from schemas.errors import LatentmillError, StoreError
from schemas.tables import is_computed


class ColumnValues(Protocol):
    """Where the values of columns come from. Picklable when it travels to workers."""

    @property
    def fields(self) -> tuple[pa.Field, ...]: ...

    def of(self, fragment: Any) -> Iterator[pa.RecordBatch]:
        """Rows of one fragment: `_rowaddr` and the fields. Rows left out keep what they have, or null in a new column."""


@dataclass(frozen=True)
class Computed:
    """Values that follow from other columns: `compute` takes a batch of `reads` and returns one of `fields`, row by row."""

    fields: tuple[pa.Field, ...]
    reads: tuple[str, ...]
    compute: Callable[[pa.RecordBatch], pa.RecordBatch]

    def of(self, fragment: Any) -> Iterator[pa.RecordBatch]:
        rows = batch_rows_for(row_bytes(fragment.schema, self.reads), MAX_BATCH_ROWS)
        scanner = fragment.scanner(
            columns=list(self.reads), with_row_address=True, batch_size=rows, strict_batch_size=True, batch_readahead=2
        )
        for batch in scanner.to_batches():
            found = self.compute(batch.select(list(self.reads)))
            yield addressed(batch.column(ADDRESS), found, self.fields)


def addressed(addresses: pa.Array, values: pa.RecordBatch, fields: Sequence[pa.Field]) -> pa.RecordBatch:
    """`values` in the types of `fields`, with their rows' addresses in front. Raises StoreError when rows or types differ."""
    if len(addresses) != values.num_rows:
        raise StoreError(f"{len(addresses)} rows were given, but {values.num_rows} values came back.")
    columns = []
    for one in fields:
        try:
            columns.append(values.column(one.name).cast(one.type))
        except (pa.ArrowException, KeyError) as error:
            raise StoreError(f"Column {one.name} did not come out as {one.type}: {error}.") from error
    return pa.RecordBatch.from_arrays([addresses, *columns], schema=_schema(fields))


def _schema(fields: Sequence[pa.Field]) -> pa.Schema:
    return pa.schema([pa.field(ADDRESS, pa.uint64()), *fields])


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


Fold = Callable[[FragmentSplits, WriteColumns], Written]


def one_by_one(splits: FragmentSplits, stage: WriteColumns) -> Written:
    """The fold of this process alone; an executor's `reduce` does the same on its workers."""
    state = stage.start()
    for index in range(len(splits)):
        for batch in splits.read(index):
            state = stage.add(state, batch)
    return state


def put_columns(
    ref: TableRef,
    values: ColumnValues,
    *,
    token: int,
    properties: Mapping[str, str],
    fold: Fold = one_by_one,
    version: int | None = None,
    rows: int | None = None,
) -> int:
    """Writes the columns and commits them in one version, which is returned; no value at all makes no version.

    `version`: where `values` got its addresses, if not from the fragments it is given. `rows`: how many values must find their row.
    `properties["attempt"]` makes it idempotent. Raises LeaseLost for a stale token, StoreError when a column is there with
    another type, when the table's rows changed between `version` and the commit, or when values find no row.
    """
    named = {ATTEMPT: uuid.uuid4().hex, **properties, TOKEN: str(token)}
    dataset = ref.open()
    if (done := landed(dataset, named[ATTEMPT], since=dataset.version)) is not None:
        return done
    check_token(dataset, ref, token)
    if version is not None:
        newest, dataset = dataset, ref.open(version)
        _unmoved(ref, newest, dataset)
    held = _held(ref, dataset.schema, values.fields)
    if held and len(held) < len(values.fields):
        # Some are there and some are not: the missing ones come first, as nulls, then all are replaced together.
        missing = tuple(f for f in values.fields if f.name not in held)
        room = named | {ATTEMPT: named[ATTEMPT] + "-nulls"}
        dataset = ref.open(_put(ref, dataset, _Nulls(missing), room, token, one_by_one, new=True))
    return _put(ref, dataset, values, named, token, fold, new=not held, rows=rows)


def add_missing(ref: TableRef, schema: pa.Schema, *, token: int) -> None:
    """Adds the computed columns of `schema` that a table made by an older version lacks, null in all rows, in one version.

    Fence the table first. Raises LeaseLost for a stale token.
    """

    def attempt() -> None:
        dataset = ref.open()
        check_token(dataset, ref, token)
        missing = [f for f in schema if is_computed(f) and f.name not in dataset.schema.names]
        if missing:
            dataset.add_columns(pa.schema(missing))

    persist(ref, "adding columns to", attempt)


def _put(
    ref: TableRef,
    dataset: Any,
    values: ColumnValues,
    named: Mapping[str, str],
    token: int,
    fold: Fold,
    *,
    new: bool,
    rows: int | None = None,
) -> int:
    stage = WriteColumns(ref, int(dataset.version), values, new)
    written = fold(FragmentSplits(tuple(f.fragment_id for f in dataset.get_fragments())), stage)
    found = sum(w.rows for w in written.values())
    if rows is not None and found != rows:
        raise StoreError(
            f"{rows} values were computed for {ref.uri}, but {found} of them have a row there. Nothing was written. "
            "Fix: run the same command again."
        )
    if not written:
        return int(dataset.version)
    operation = _merge(dataset, written) if new else _update(written)

    def attempt() -> int:
        now = ref.open()
        if (done := landed(now, named[ATTEMPT], since=int(dataset.version))) is not None:
            return done
        check_token(now, ref, token)
        _unmoved(ref, now, dataset)
        return commit_operation(now, operation, named)

    return persist(ref, "writing columns to", attempt)


def _unmoved(ref: TableRef, now: Any, before: Any) -> None:
    if _shape(now) != _shape(before):
        raise StoreError(
            f"The rows of {ref.uri} changed while columns were computed for them. Fix: run the same command again."
        )


def _merge(dataset: Any, written: Written) -> Any:
    fragments = [
        _metadata(written[f.fragment_id]) if f.fragment_id in written else f.metadata for f in dataset.get_fragments()
    ]
    # Our own workers' schema object, which has no text form.
    return lance.LanceOperation.Merge(fragments, pickle.loads(next(iter(written.values())).schema))


def _update(written: Written) -> Any:
    return lance.LanceOperation.Update(
        updated_fragments=[_metadata(w) for w in written.values()],
        fields_modified=sorted({i for w in written.values() for i in w.modified}),
        update_mode="rewrite_columns",
        updated_fragment_offsets={number: w.offsets for number, w in written.items()},
    )


def _metadata(written: WrittenColumns) -> Any:
    return lance.fragment.FragmentMetadata.from_json(written.metadata)


def _write(fragment: Any, values: ColumnValues, ref: TableRef, *, new: bool) -> WrittenColumns | None:
    """The fragment's data file of the columns; None when there is no value for any of its rows."""
    feed = _Feed(values.of(fragment))
    first = next(feed, None)
    if first is None:
        return None
    reader = pa.RecordBatchReader.from_batches(_schema(values.fields), _chained(first, feed))
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


@dataclass(frozen=True)
class _Nulls:
    """No values: makes room for columns by giving one fragment an empty file."""

    fields: tuple[pa.Field, ...]
    done: list[int] = field(default_factory=list)

    def of(self, fragment: Any) -> Iterator[pa.RecordBatch]:
        if not self.done:
            self.done.append(fragment.fragment_id)
            yield pa.RecordBatch.from_arrays(
                [pa.array([], f.type) for f in _schema(self.fields)], schema=_schema(self.fields)
            )


def _held(ref: TableRef, schema: pa.Schema, fields: Sequence[pa.Field]) -> set[str]:
    """Names of the fields that the table has already."""
    held = {f.name for f in fields if f.name in schema.names}
    for one in fields:
        if one.name in held and schema.field(one.name).type != one.type:
            raise StoreError(
                f"{ref.uri} has a column {one.name} of type {schema.field(one.name).type}; {one.type} was to be written. "
                "Fix: use another column name."
            )
        if one.name not in held and not (is_computed(one) and one.nullable):
            raise StoreError(f"Column {one.name} is not marked as computed, so rows encoded later could not lack it.")
    return held


def _shape(dataset: Any) -> list[tuple[Any, ...]]:
    """What row addresses and new files depend on: fragments, their files and their deletions."""
    return [
        (f.fragment_id, tuple(str(d.path) for d in f.metadata.files), str(f.metadata.deletion_file))
        for f in dataset.get_fragments()
    ]
