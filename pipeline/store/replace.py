"""Finding the rows of given ids, and the one operation that swaps them for new rows.

Old rows are marked deleted and new fragments are added in the same Lance `Update`, so no reader ever sees an image with
no row or with two. Only fragments that hold one of the ids are touched. Works with and without an index on the key.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store.engine import lance
from pipeline.store.where import quoted
from schemas.errors import StoreError
from schemas.tables import PRIMARY_KEY

FEW = 5_000
"""Up to so many ids go into one `IN` filter, which an index answers; more are matched against one scan of the key column."""


def key_of(schema: pa.Schema) -> str:
    """The name of the primary-key column. Raises StoreError for a table without one."""
    for field in schema:
        if field.metadata and any(field.metadata.get(k) == v for k, v in PRIMARY_KEY.items()):
            return str(field.name)
    raise StoreError(f"The table has no primary key; its columns are {', '.join(schema.names)}.")


def id_filter(key: str, ids: Sequence[str]) -> str:
    return f"{key} IN ({', '.join(quoted(i) for i in ids)})"


def rows_with(dataset: Any, ids: Sequence[str], columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Rows whose key is in `ids`, in storage order, with their `_rowaddr`."""
    key = key_of(dataset.schema)
    shared = {"columns": list(columns), "with_row_address": True}
    if len(ids) <= FEW:
        yield from dataset.scanner(filter=id_filter(key, ids), **shared).to_batches()
        return
    wanted = pa.array(ids, pa.string())
    for batch in dataset.scanner(batch_size=65_536, batch_readahead=4, **shared).to_batches():
        if (found := batch.filter(pc.is_in(batch.column(key), value_set=wanted))).num_rows:
            yield found


def replacing(dataset: Any, fragments: list[Any], ids: Sequence[str]) -> Any | None:
    """The operation that adds `fragments` and removes the rows of `ids`; None when it would change nothing."""
    offsets: dict[int, list[int]] = defaultdict(list)
    for batch in rows_with(dataset, ids, [key_of(dataset.schema)]) if ids else ():
        for address in batch.column("_rowaddr").to_pylist():
            offsets[address >> 32].append(address & 0xFFFFFFFF)
    if not offsets and not fragments:
        return None
    updated, removed = [], []
    for number, rows in sorted(offsets.items()):
        left = dataset.get_fragment(number).delete_rows(rows)
        if left is None:
            removed.append(number)
        else:
            updated.append(left)
    return lance.LanceOperation.Update(
        removed_fragment_ids=removed, updated_fragments=updated, new_fragments=fragments, fields_modified=[]
    )
