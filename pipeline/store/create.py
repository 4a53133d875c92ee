"""Making a table, once, whoever comes first.

`lance.write_dataset(mode="create")` is not safe for that: if another process makes the table between its look and its
commit, the commit is rebased and *overwrites* the table, rows and all. A creation committed with `max_retries=0` may
become version 1 and nothing else.
"""

import pyarrow as pa

from pipeline.store.engine import MEMORY, EngineError, creating, explain, lance, session
from pipeline.store.ref import TableRef
from schemas.errors import StoreError
from schemas.tables import is_computed


def create(ref: TableRef, schema: pa.Schema) -> None:
    """Makes an empty table with stable row ids. If it is there, checks that its columns are these, but for computed ones.

    Raises StoreError naming the columns that differ. Schema metadata of an existing table stays as it is.
    """
    found = ref.find()
    if found is None:
        try:
            make(ref, schema)
        except EngineError as error:
            # Whatever was said, what counts is whether the table is there now.
            if ref.find() is None:
                raise explain(ref.store, f"making table {ref.name} in", error) from error
        found = ref.open()
    _check_same(ref, found.schema, schema)


def make(ref: TableRef, schema: pa.Schema) -> None:
    """Commits version 1, or raises what Lance raises when there is one already."""
    if ref.store.startswith(MEMORY):
        # A commit by URI cannot be given the session that a memory store lives in; one process needs no more than a lock.
        with creating():
            if ref.find() is None:
                lance.write_dataset(schema.empty_table(), ref.uri, enable_stable_row_ids=True, session=session())
        return
    first = lance.Transaction(read_version=0, operation=lance.LanceOperation.Overwrite(schema, []))
    lance.LanceDataset.commit(
        ref.uri,
        first,
        storage_options=ref.storage_options,
        max_retries=0,
        enable_stable_row_ids=True,
        enable_v2_manifest_paths=True,
    )


def _check_same(ref: TableRef, held: pa.Schema, wanted: pa.Schema) -> None:
    # Columns computed since then are extra: encoding neither writes nor minds them. Those that a newer version of this program
    # computes may be lacking: `add_missing` makes room for them.
    held, wanted = (
        pa.schema([f for f in mine if not is_computed(f) or f.name in other.names])
        for mine, other in ((held, wanted), (wanted, held))
    )
    if held.equals(wanted):
        return
    differ = [
        f"{name} ({_kind(held, name)} there, {_kind(wanted, name)} wanted)"
        for name in dict.fromkeys([*held.names, *wanted.names])
        if _kind(held, name) != _kind(wanted, name)
    ]
    raise StoreError(
        f"{ref.uri} has other columns than this job writes: {'; '.join(differ) or 'their order'}. "
        "Fix: keep labels and latent_dtype as they were, or use another dataset name."
    )


def _kind(schema: pa.Schema, name: str) -> str:
    if name not in schema.names:
        return "none"
    field = schema.field(name)
    return f"{field.type}{'' if field.nullable else ' not null'}"
