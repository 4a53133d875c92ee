"""What changed between two versions of a table: rows that came and rows that went, as pieces for an executor.

Read from the fragments, so unchanged ones cost nothing: a fragment is told by its number and by the data files that hold the
columns in question, its rows by their physical addresses. A fragment whose columns were written anew (edited labels) counts
as gone and come; compaction, which moves every row, too. Exact, whatever wrote the versions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.store.engine import asking
from pipeline.store.ref import TableRef, pinned
from pipeline.store.splits import TableSplits, cut
from pipeline.store.where import both
from schemas.identity import fingerprint

AT_ONCE = 1000
"""Row addresses in one filter."""


@dataclass(frozen=True)
class DeletedSplits:
    """Rows of `fragments` (one a piece) that are live at `version` and no more at `later`. Implements `executors.base.Splits`."""

    ref: TableRef
    version: int
    later: int
    columns: tuple[str, ...]
    where: str | None
    fragments: tuple[int, ...]
    rows: int

    def __len__(self) -> int:
        return len(self.fragments)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        number = self.fragments[index]
        before, after = (pinned(self.ref, v).get_fragment(number) for v in (self.version, self.later))
        with asking(self.ref.uri, "reading"):
            gone = np.setdiff1d(_addresses(before), _addresses(after), assume_unique=True)
            for start in range(0, len(gone), AT_ONCE):
                listed = f"_rowaddr IN ({', '.join(map(str, gone[start : start + AT_ONCE]))})"
                clause = both(self.where, listed) if self.where else listed
                yield from before.scanner(columns=list(self.columns), filter=clause).to_batches()


@dataclass(frozen=True)
class JoinedSplits:
    """The pieces of several splits, one after another. Implements `executors.base.Splits`."""

    parts: tuple[TableSplits | DeletedSplits, ...]

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        for part in self.parts:
            if index < len(part):
                yield from part.read(index)
                return
            index -= len(part)
        raise IndexError(index)


@dataclass(frozen=True)
class Changes:
    """`added`: rows at the newer version; `removed`: rows as they were at the older one. A changed row is in both."""

    added: TableSplits
    removed: JoinedSplits

    @property
    def rows(self) -> int:
        return self.added.rows + self.removed.rows


def contents(dataset: Any) -> str:
    """A fingerprint of what an open version holds: its files and live rows. A table made anew under a name has another."""
    fragments = [
        [f.fragment_id, f.metadata.num_rows, *(file.path for file in f.metadata.files)] for f in dataset.get_fragments()
    ]
    return fingerprint(fragments)


def changes_between(ref: TableRef, old: int, new: int, *, columns: Sequence[str], where: str | None) -> Changes:
    """From version `old` to `new`, rows that meet `where` at their version. Raises StoreError when either is no longer kept.

    `where` may read any column, so with it any rewritten column counts as a change.
    """
    before, after = ref.open(old), ref.open(new)
    with asking(ref.uri, "comparing versions of"):
        was = {f.fragment_id: f for f in before.get_fragments()}
        now = {f.fragment_id: f for f in after.get_fragments()}
        wanted = [_leaf_ids(dataset.lance_schema, None if where else columns) for dataset in (before, after)]
        same = {n for n in was.keys() & now.keys() if _files(was[n], wanted[0]) == _files(now[n], wanted[1])}
        deleted: list[int] = []
        rows = 0
        for number in sorted(same):
            gone, back = _moved(was[number], now[number])
            if back:  # an older version was restored: rare, so the whole fragment is taken
                same.discard(number)
            elif gone:
                deleted.append(number)
                rows += gone
        left = cut(ref, before, columns=columns, where=where, rows=None, only=was.keys() - same)
        came = cut(ref, after, columns=columns, where=where, rows=None, only=now.keys() - same)
        dead = DeletedSplits(ref, old, new, tuple(columns), where, tuple(deleted), rows)
        return Changes(came, JoinedSplits((left, dead)))


def _leaf_ids(schema: Any, columns: Sequence[str] | None) -> set[int]:
    """Field numbers of the columns and of what is inside them; of every column for None."""
    return {leaf for field in schema.fields() if columns is None or field.name() in columns for leaf in _leaves(field)}


def _files(fragment: Any, wanted: set[int]) -> dict[int, str]:
    """Which file holds each wanted field."""
    return {i: file.path for file in fragment.metadata.files for i in file.fields if i in wanted}


def _leaves(field: Any) -> Iterator[int]:
    yield field.id()
    for child in field.children():
        yield from _leaves(child)


def _moved(before: Any, after: Any) -> tuple[int, bool]:
    """How many rows of a fragment are gone, and whether deleted ones are back."""
    if before.metadata.deletion_file is None and after.metadata.deletion_file is None:
        return 0, False
    live, still = _addresses(before), _addresses(after)
    kept = len(np.intersect1d(live, still, assume_unique=True))
    return len(live) - kept, len(still) > kept


def _addresses(fragment: Any) -> npt.NDArray[np.uint64]:
    table = fragment.scanner(columns=[], with_row_address=True).to_table()
    return np.asarray(table.column("_rowaddr").to_numpy(), np.uint64)
