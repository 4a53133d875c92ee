"""The encode sink: a worker's last leg. Good rows become latents fragments, bad rows failures fragments.

Nothing is visible until the driver commits the fragments; a worker that dies here leaves orphans, never rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.executors.base import Receipt, ranges_of
from pipeline.store.table import Table
from schemas.tables import FAILURES


@dataclass(frozen=True)
class EncodeSink:
    """Writes encoded batches (`schemas.batches.encoded_schema`). Picklable; writes nothing twice visible."""

    latents: Table
    failures: Table
    schema: pa.Schema
    run_id: str

    def write(self, batches: Iterable[pa.RecordBatch]) -> Receipt:
        good: list[pa.RecordBatch] = []
        bad: list[pa.RecordBatch] = []
        seqs: list[np.ndarray] = []
        for batch in batches:
            seqs.append(batch.column("seq").to_numpy())
            failed = pc.is_valid(batch.column("error"))
            good.append(self._latent_rows(batch.filter(pc.invert(failed))))
            bad.append(self._failure_rows(batch.filter(failed)))
        fragments = {
            table.name: written
            for table, rows in ((self.latents, good), (self.failures, bad))
            if (written := table.write(b for b in rows if b.num_rows))
        }
        return Receipt(
            ranges=ranges_of(np.concatenate(seqs).tolist() if seqs else ()),
            rows=_rows(good) + _rows(bad),
            failed=_rows(bad),
            bytes=sum(b.nbytes for b in good),
            fragments=fragments,
        )

    def _latent_rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays([batch.column(f.name).cast(f.type) for f in self.schema], schema=self.schema)

    def _failure_rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        n = batch.num_rows
        constant = {"stage": "encode", "run_id": self.run_id, "at": datetime.now(UTC)}
        columns = [
            pa.array([constant[f.name]] * n, f.type) if f.name in constant else batch.column(f.name) for f in FAILURES
        ]
        return pa.RecordBatch.from_arrays(columns, schema=FAILURES)


def _rows(batches: Sequence[pa.RecordBatch]) -> int:
    return sum(b.num_rows for b in batches)
