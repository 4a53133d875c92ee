"""The work of a run: the listed images that are to be done, as splits that any worker can read.

One batch of the spilled work is one split. `seq` numbers its rows; receipts speak of ranges of `seq`, so the driver keeps
two bytes a row and no ids.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ledger import Status
from pipeline.listing import Listing
from pipeline.sources.read import ImageReader
from pipeline.spill import Spill, write_spill
from schemas.batches import work_schema

SPLIT_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Work:
    """The rows of a run. `prior` holds each row's standing before the run, so commits know what they replace."""

    spill: Spill
    prior: npt.NDArray[np.uint8]

    @property
    def rows(self) -> int:
        return self.spill.rows

    def ids(self, ranges: Iterable[tuple[int, int]], prior: Status) -> list[str]:
        """Ids in `ranges` of `seq` whose standing was `prior`. Reads only the splits that hold one."""
        size = self.spill.batch_rows
        seqs = np.concatenate(
            [np.empty(0, np.int64), *(np.flatnonzero(self.prior[a:b] == prior) + a for a, b in ranges)]
        )
        found: list[str] = []
        for split in np.unique(seqs // size):
            here = seqs[seqs // size == split] - split * size
            found += self.spill.batch(int(split)).column("id").take(pa.array(here)).to_pylist()
        return found


def write_work(
    listing: Listing, url: str, *, todo: npt.NDArray[np.bool_], row_bytes: int, options: Mapping[str, Any]
) -> Work:
    """Writes the rows of `todo`, in listing order."""
    size = rows_per_split(row_bytes, int(todo.sum()))
    schema = work_schema(listing.labels)
    spill = write_spill(_todo_batches(listing, todo), url, schema=schema, batch_rows=size, options=options)
    return Work(spill, listing.tally.status[todo])


def rows_per_split(row_bytes: int, total: int) -> int:
    """Rows of one split: about 16 MiB between the legs (larger ones delay the first commit), small runs cut into 8."""
    by_bytes = min(max(SPLIT_BYTES // max(row_bytes, 1), 16), 8192)
    return max(1, min(by_bytes, -(-total // 8)))


@dataclass(frozen=True)
class WorkSplits:
    """Image bytes → pixels, split by split, in batches of `batch_rows`. Implements `executors.base.Splits`."""

    spill: Spill
    reader: ImageReader
    batch_rows: int

    def __len__(self) -> int:
        return len(self.spill)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        batch = self.spill.batch(index)
        for start in range(0, batch.num_rows, self.batch_rows):
            yield self.reader.read(batch.slice(start, self.batch_rows))


def _todo_batches(listing: Listing, todo: npt.NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
    for start, batch in listing.batches():
        mask = todo[start : start + batch.num_rows]
        if mask.any():
            yield batch if mask.all() else batch.filter(pa.array(mask))
