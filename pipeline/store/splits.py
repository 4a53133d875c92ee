"""A table cut into pieces that workers read on their own.

The cut follows from the pinned version alone (fragments and row ranges), so it is the same in every process and after
every retry. With a filter, a piece is a range of physical rows, so that filtering does not move the cuts.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.store.engine import asking
from pipeline.store.ref import TableRef, pinned
from pipeline.store.where import both

PIECE_BYTES = 64 * 2**20
BATCH_BYTES = 16 * 2**20
MAX_BATCH_ROWS = 8192
VARIABLE_BYTES = 64
"""What a string or list is taken to weigh when rows are sized."""
ROW_ID = "_rowid"
"""Lance's stable row id (uint64), which may be asked for like a column."""
ADDRESS = "_rowaddr"
"""Fragment number << 32 | physical offset (uint64): where a row lies at one version. May be asked for like a column."""


@dataclass(frozen=True)
class Span:
    """Rows `start` to `stop` of one fragment: live rows without a filter, physical rows with one."""

    fragment: int
    start: int
    stop: int
    whole: bool


@dataclass(frozen=True)
class TableSplits:
    """Implements `pipeline.executors.base.Splits`. `rows` is how many rows all pieces yield together."""

    ref: TableRef
    version: int
    columns: tuple[str, ...]
    where: str | None
    pieces: tuple[tuple[Span, ...], ...]
    rows: int
    batch_rows: int

    def __len__(self) -> int:
        return len(self.pieces)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        """The rows of one piece in storage order, in batches of at most `batch_rows`."""
        dataset = pinned(self.ref, self.version)
        for span in self.pieces[index]:
            with asking(self.ref.uri, "reading"):
                yield from self._scanner(dataset.get_fragment(span.fragment), span).to_batches()

    def _scanner(self, fragment: Any, span: Span) -> Any:
        shared = {
            "columns": list(self.columns),
            "batch_size": self.batch_rows,
            "strict_batch_size": True,
            "batch_readahead": 2,
        }
        if span.whole:
            return fragment.scanner(filter=self.where, **shared)
        if self.where is None:
            return fragment.scanner(offset=span.start, limit=span.stop - span.start, **shared)
        first = span.fragment << 32
        inside = f"_rowaddr >= {first + span.start} AND _rowaddr < {first + span.stop}"
        return fragment.scanner(filter=both(self.where, inside), **shared)


def cut(
    ref: TableRef,
    dataset: Any,
    *,
    columns: Sequence[str],
    where: str | None,
    rows: int | None,
    only: Collection[int] | None = None,
) -> TableSplits:
    """Cuts the open `dataset` into pieces of about `rows` rows (default: 64 MiB of the columns); `only` these fragments."""
    fragments = [f for f in dataset.get_fragments() if only is None or f.fragment_id in only]
    if only is None:
        count = int(dataset.count_rows(filter=where))
    else:
        count = sum(int(f.count_rows(filter=where)) for f in fragments)
    width = row_bytes(dataset.schema, columns)
    size = rows or max(PIECE_BYTES // width, 1)
    pieces: list[tuple[Span, ...]] = []
    held: list[Span] = []
    room = size
    for fragment in fragments:
        length = fragment.physical_rows if where else fragment.metadata.num_rows
        for start in range(0, length, size):
            span = Span(fragment.fragment_id, start, min(start + size, length), whole=length <= size)
            if held and span.stop - span.start > room:
                pieces.append(tuple(held))
                held, room = [], size
            held.append(span)
            room -= span.stop - span.start
    if held:
        pieces.append(tuple(held))
    batch_rows = batch_rows_for(width, MAX_BATCH_ROWS)
    return TableSplits(ref, dataset.version, tuple(columns), where, tuple(pieces), count, batch_rows)


def batch_rows_for(width: int, wanted: int) -> int:
    """At most `wanted` rows, and no more than 16 MiB of rows of `width` bytes."""
    return max(min(wanted, BATCH_BYTES // max(width, 1)), 1)


def row_bytes(schema: pa.Schema, columns: Sequence[str]) -> int:
    """Bytes of one row of `columns`, counting exactly what has a fixed size."""
    return max(sum(8 if c in (ROW_ID, ADDRESS) else _width(schema.field(c.split(".")[0]).type) for c in columns), 1)


def _width(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    if pa.types.is_struct(kind):
        return sum(_width(f.type) for f in kind)
    try:
        return max(int(kind.bit_width) // 8, 1)
    except ValueError:
        return VARIABLE_BYTES
