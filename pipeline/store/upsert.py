"""Insert-or-update by primary key, and removal, for the small tables many runs share: runs, directions, renders, catalog.

The unenforced primary key makes concurrent merges of the same new key conflict instead of inserting it twice; a conflict
is tried again from the newest version.
"""

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.store.clean import tidy
from pipeline.store.commit import CONFLICT_TRIES
from pipeline.store.create import create
from pipeline.store.engine import EngineError, explain, is_conflict, is_io
from pipeline.store.ref import TableRef
from pipeline.store.replace import key_of
from schemas.errors import StoreError

KEEP = timedelta(days=1)
"""How long the versions of a small table are kept: longer than any reader looks at one."""


def upsert(ref: TableRef, rows: pa.Table, *, only_if: str | None = None) -> int:
    """Writes `rows` by key, in one version; returns how many rows were inserted or updated. Makes the table when it is new.

    `only_if` is a condition over `source.…` and `target.…` that an existing row must meet to be updated. Two rows with one key
    raise StoreError.
    """
    key = key_of(rows.schema)
    if pc.count_distinct(rows.column(key)).as_py() != rows.num_rows:
        raise StoreError(f"Two rows for {ref.name} have the same {key}. Fix: write each {key} once.")
    create(ref, rows.schema)
    done = _persistently(ref, lambda dataset: _merge(dataset, rows, key, only_if))
    return int(done["num_inserted_rows"] + done["num_updated_rows"])


def remove(ref: TableRef, where: str) -> int:
    """Takes out the rows that meet `where`, in one version, and none where nothing does; returns how many those were."""
    dataset = ref.open()
    if not dataset.count_rows(filter=where):
        return 0
    return int(_persistently(ref, lambda newest: newest.delete(where, conflict_retries=0))["num_deleted_rows"])


def _persistently(ref: TableRef, change: Callable[[Any], Any]) -> Any:
    """`change(newest version)`, again from the version that came between."""
    for n in range(CONFLICT_TRIES):
        dataset = ref.open()
        try:
            done = change(dataset)
        except EngineError as error:
            if not (is_conflict(error) or is_io(error)) or n + 1 == CONFLICT_TRIES:
                raise explain(ref.uri, "writing to", error) from error
            time.sleep(random.uniform(0.01, 0.05) * min(n + 1, 20))
            continue
        tidy(ref, dataset.version, keep=KEEP)
        return done
    raise StoreError(f"Writing to {ref.uri} failed: other writers never left a gap. Fix: run fewer jobs at once.")


def _merge(dataset: Any, rows: pa.Table, key: str, only_if: str | None) -> Any:
    merge = dataset.merge_insert(key).when_matched_update_all(only_if).when_not_matched_insert_all()
    # One try: `_persistently` tries again from the newest version.
    return merge.conflict_retries(0).execute(rows)
