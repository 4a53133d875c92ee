"""Columns computed for rows that are there already: an anomaly score, a map's coordinates, corrected labels.

Data files of new columns are written beside each fragment's own, invisible until one commit names them all, so a reader sees
every value or none. No row moves: row ids and the vector index stay, and indexes on a replaced column forget the fragments that
changed. Columns that are new come in by Lance's `Merge`, columns that are there are replaced by `Update`; both conflict with a
fence in either order, so a zombie's commit never lands. Rows appended later have nulls until the columns are computed again.

Joined by row address, which holds as long as fragments do: should they have changed between the version where the addresses were
read and the commit, it is refused.
"""

import pickle
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.store.column_files import FragmentSplits, WriteColumns, Written, WrittenColumns
from pipeline.store.column_values import ColumnValues, columns_schema
from pipeline.store.commit import ATTEMPT, TOKEN, check_token, commit_operation, landed, persist
from pipeline.store.engine import lance
from pipeline.store.ref import TableRef
from schemas.errors import StoreError
from schemas.tables import is_computed

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


@dataclass(frozen=True)
class _Nulls:
    """No values: makes room for columns by giving one fragment an empty file."""

    fields: tuple[pa.Field, ...]
    done: list[int] = field(default_factory=list)

    def of(self, fragment: Any) -> Iterator[pa.RecordBatch]:
        if not self.done:
            self.done.append(fragment.fragment_id)
            yield pa.RecordBatch.from_arrays(
                [pa.array([], f.type) for f in columns_schema(self.fields)], schema=columns_schema(self.fields)
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
