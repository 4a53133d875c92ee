"""Making a table, once, whoever comes first."""

import pyarrow as pa

from pipeline.store.engine import EngineError, asking, lance, session
from pipeline.store.ref import TableRef
from schemas.errors import StoreError


def create(ref: TableRef, schema: pa.Schema) -> None:
    """Makes an empty table with stable row ids. If it is there, checks that its columns are these.

    Raises StoreError naming the columns that differ. Schema metadata of an existing table stays as it is.
    """
    found = ref.find()
    if found is None:
        try:
            lance.write_dataset(
                schema.empty_table(),
                ref.uri,
                mode="create",
                storage_options=ref.storage_options,
                enable_stable_row_ids=True,
                session=session(),
            )
            return
        except EngineError as error:
            if "already exists" not in str(error) and "onflict" not in str(error):
                with asking(ref.store, f"making table {ref.name} in"):
                    raise
        found = ref.open()
    _check_same(ref, found.schema, schema)


def _check_same(ref: TableRef, held: pa.Schema, wanted: pa.Schema) -> None:
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
