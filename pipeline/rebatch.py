"""Rows as they come, in batches of one size."""

from collections.abc import Iterable, Iterator

import pyarrow as pa


def equal_batches(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly `rows`, the last one shorter."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        held.append(batch)
        count += batch.num_rows
        if count >= rows:
            whole = pa.concat_batches(held)
            full = count - count % rows
            yield from (whole.slice(start, rows) for start in range(0, full, rows))
            held, count = [whole.slice(full)], count - full
    if count:
        yield pa.concat_batches(held)
