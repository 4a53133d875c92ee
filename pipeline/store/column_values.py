"""Values of computed columns: batches of row addresses and fields, fragment by fragment."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from pipeline.store.splits import ADDRESS, MAX_BATCH_ROWS, batch_rows_for, row_bytes
from schemas.errors import StoreError


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
    return pa.RecordBatch.from_arrays([addresses, *columns], schema=columns_schema(fields))


def columns_schema(fields: Sequence[pa.Field]) -> pa.Schema:
    """Of batches of values: the rows' addresses, and the fields."""
    return pa.schema([pa.field(ADDRESS, pa.uint64()), *fields])
