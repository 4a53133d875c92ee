"""Exactly-once commits under a fencing token.

Workers write data files that no version refers to; one commit makes them visible, together with the removal of the rows
they replace. Three rules make it exactly once:
- A commit reads the newest version, finds its own token in the table's config, and is prepared against that very version.
- Lance is told not to retry (`max_retries=0`): every conflict comes back here, so that the token is looked at again, and
  every error of unknown outcome, so that the attempt's id is looked up in the transactions since, before a second try.
- `fence` writes the new token and then commits a merge of no new columns, an empty change that conflicts with any append,
  update or compaction prepared before it. (A projection lets compactions through; `Restore` conflicts with nothing itself: a
  stale one silently undoes what came after.) A zombie's commit therefore lands before the fence, where the new holder sees
  it, or never. Indexes are the exception (index.py).
"""

import json
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa

from pipeline.store.engine import EngineError, explain, is_conflict, is_io, is_missing, lance
from pipeline.store.ref import TableRef
from pipeline.store.replace import replacing
from schemas.errors import LeaseLost, StoreError
from schemas.tables import is_computed

Answer = TypeVar("Answer")
TOKEN = "latentmill.token"
ATTEMPT = "attempt"
MAX_BYTES_PER_FILE = 256 * 2**20
CONFLICT_TRIES = 30
IO_TRIES = 6
LOOK_BACK = 8
"""Transactions searched for an attempt before its first try: a caller may repeat a commit whose answer it never got."""


def write(
    ref: TableRef, batches: Iterable[pa.RecordBatch], *, max_bytes_per_file: int = MAX_BYTES_PER_FILE
) -> tuple[str, ...]:
    """Writes data files of about `max_bytes_per_file` and returns their fragments as JSON; nothing is visible yet.

    Batches may carry more columns than the table and nullable ones; they are cast to its schema. No rows → ().
    What the iterable itself raises passes through unchanged.
    """
    dataset = ref.open()
    feed = _Feed(batches, dataset.schema, max_bytes_per_file // 8)
    first = next(iter(feed), None)
    if first is None:
        return ()
    reader = pa.RecordBatchReader.from_batches(dataset.schema, _chained(first, feed))
    try:
        fragments = lance.fragment.write_fragments(reader, dataset, max_bytes_per_file=max_bytes_per_file)
    except EngineError as error:
        raise feed.raised or explain(ref.uri, "writing to", error) from error
    return tuple(json.dumps(fragment.to_json()) for fragment in fragments)


class _Feed:
    """Batches in the table's schema; keeps what the source raised, which Lance would turn into text.

    Lance ends a file between batches only, so big ones are cut.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema, max_bytes: int) -> None:
        self._batches, self._schema, self._max_bytes = batches, schema, max_bytes
        self._rows = self._iterate()
        self.raised: BaseException | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._rows

    def _iterate(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                step = max(batch.num_rows * self._max_bytes // max(batch.nbytes, 1), 1)
                for start in range(0, batch.num_rows, step):
                    yield _conform(batch.slice(start, step), self._schema)
        except BaseException as error:
            self.raised = error
            raise


def _chained(first: pa.RecordBatch, rest: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield from rest


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.equals(schema):
        return batch
    # A column computed later is null in rows that come after it (columns.py).
    given = set(batch.schema.names) | {f.name for f in schema if is_computed(f)}
    if missing := [n for n in schema.names if n not in given]:
        raise StoreError(f"A batch lacks the table's columns {', '.join(missing)}; it has {batch.schema.names}.")
    columns = []
    for field in schema:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        try:
            column = batch.column(field.name).cast(field.type)
        except pa.ArrowException as error:
            raise StoreError(f"Column {field.name} does not fit the table's {field.type}: {error}.") from error
        if column.null_count and not field.nullable:
            raise StoreError(f"Column {field.name} may not be null, but {column.null_count} rows have no value.")
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def fence(ref: TableRef, token: int) -> None:
    """Makes `token` the only one that may commit. Idempotent. Raises LeaseLost when a newer token is there already."""

    def attempt() -> bool:
        dataset = ref.open()
        held = token_of(dataset)
        if held > token:
            raise LeaseLost(_lost(ref, token, held))
        if held != token:
            dataset.update_config({TOKEN: str(token)})
            # Looked at again from the top: between the two commits an even newer holder may have come.
            return attempt()
        commit_operation(dataset, barrier(dataset), {})
        return True

    persist(ref, "fencing", attempt)


def barrier(dataset: Any) -> Any:
    """An operation that changes nothing and conflicts both ways with appends, updates, deletes, compactions and other barriers.

    It names every fragment, 140 bytes each. Building an index and changing the config conflict with nothing.
    """
    return lance.LanceOperation.Merge([f.metadata for f in dataset.get_fragments()], dataset.lance_schema)


def check_token(dataset: Any, ref: TableRef, token: int) -> None:
    """Raises LeaseLost unless `token` is the one that the table was last fenced with."""
    held = token_of(dataset)
    if held < token:
        raise StoreError(f"{ref.uri} is not fenced with token {token} yet. Call fence(token) before the first commit.")
    if held > token:
        raise LeaseLost(_lost(ref, token, held))


def token_of(dataset: Any) -> int:
    """The token in the table's config; 0 when it was never fenced."""
    return int(dataset.config().get(TOKEN, "0"))


def commit(
    ref: TableRef,
    fragments: Sequence[str],
    *,
    token: int,
    properties: Mapping[str, str],
    replaces: Sequence[str] = (),
) -> int:
    """Appends `fragments` and removes the rows of the ids in `replaces`, in one new version, and returns that version.

    `properties["attempt"]` names this commit: the same attempt never lands twice. Without one a fresh one is made.
    Nothing to add and nothing to remove makes no version. Raises LeaseLost when the token is stale, StoreError when the
    store stays unreachable.
    """
    named = {ATTEMPT: uuid.uuid4().hex, **properties, TOKEN: str(token)}
    new = [lance.fragment.FragmentMetadata.from_json(text) for text in fragments]
    base: list[int] = []

    def attempt() -> int:
        dataset = ref.open()
        base.append(dataset.version)
        if (done := landed(dataset, named[ATTEMPT], since=base[0])) is not None:
            return done
        check_token(dataset, ref, token)
        operation = replacing(dataset, new, replaces) if replaces else lance.LanceOperation.Append(new) if new else None
        return int(dataset.version) if operation is None else commit_operation(dataset, operation, named)

    return persist(ref, "committing to", attempt)


def commit_operation(dataset: Any, operation: Any, properties: Mapping[str, str]) -> int:
    """Commits an operation that was prepared against `dataset`, in one try, and returns the new version."""
    transaction = lance.Transaction(
        read_version=dataset.version, operation=operation, transaction_properties=dict(properties)
    )
    return int(lance.LanceDataset.commit(dataset, transaction, max_retries=0).version)


def landed(dataset: Any, attempt: str, *, since: int) -> int | None:
    """The version that `attempt` made, if it is among the transactions after `since` or the few before."""
    for back, transaction in enumerate(_recent(dataset, dataset.version - since + LOOK_BACK)):
        if transaction is not None and transaction.transaction_properties.get(ATTEMPT) == attempt:
            return int(dataset.version) - back
    return None


def _recent(dataset: Any, count: int) -> list[Any]:
    """The newest transactions, newest first; None for one that cannot be told."""
    try:
        return list(dataset.get_transactions(count))
    except TypeError:
        # pylance 14 cannot show a compaction that moved an index, and then shows none at all. It was not a commit of ours.
        return [_transaction(dataset, v) for v in range(dataset.version, max(dataset.version - count, 0), -1)]


def _transaction(dataset: Any, version: int) -> Any | None:
    try:
        return dataset.read_transaction(version)
    except TypeError:
        return None
    except ValueError as error:
        if is_missing(error):  # an old version that was cleaned up
            return None
        raise


def persist(ref: TableRef, doing: str, attempt: Callable[[], Answer]) -> Answer:
    """Repeats `attempt` after conflicts and I/O errors, with growing random pauses. `attempt` must look before it acts."""
    conflicts, faults = 0, 0
    while True:
        try:
            return attempt()
        except LeaseLost:
            raise
        except (StoreError, *EngineError) as error:
            cause = error.__cause__ if isinstance(error, StoreError) else error
            if cause is None or not (is_conflict(cause) or is_io(cause)):
                raise error if isinstance(error, StoreError) else explain(ref.uri, doing, error) from error
            conflicts, faults = conflicts + is_conflict(cause), faults + is_io(cause)
            if conflicts >= CONFLICT_TRIES or faults >= IO_TRIES:
                raise explain(ref.uri, doing, cause) from error
        longest = 0.02 * 2 ** min(conflicts, 5) + (0.2 * 2**faults if faults else 0)
        time.sleep(random.uniform(0.25, 1) * longest)


def _lost(ref: TableRef, token: int, held: int) -> str:
    return (
        f"This run's lease on {ref.uri} was taken over: its token is {token}, the table's is {held}. "
        "Nothing it does is committed any more. Fix: run the same command again once the other run has ended."
    )
