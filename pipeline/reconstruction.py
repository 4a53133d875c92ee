"""Reconstruction errors of all encoded pictures: read again from the source, encoded, decoded, compared, written as a column.

Workers write small Arrow files of (seq, error) to the run's work folder; the driver puts them where the rows lie. Pictures
that the source no longer lists, or lists in another version, have none.
"""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import artifacts
from pipeline.codec import OnWorker
from pipeline.context import Context
from pipeline.executors.base import MapJob, Receipt, ranges_of
from pipeline.ledger import Status
from pipeline.listing import recount
from pipeline.sources.read import ImageReader
from pipeline.store.column_spill import ColumnSpill
from pipeline.store.splits import ADDRESS
from pipeline.work import WorkSplits, write_work
from schemas.steps import DiagnoseStep
from stages.diagnosis.norms import NormHistogram
from stages.diagnosis.reconstruct import RECONSTRUCTED, Reconstruct

BATCH_ROWS = 64


@dataclass(frozen=True)
class ErrorSink:
    """Writes (seq, error) rows to a file of their own in `folder`. Writing twice leaves a file too many, which nobody reads."""

    folder: str
    options: tuple[tuple[str, Any], ...]

    def write(self, batches: Iterable[pa.RecordBatch]) -> Receipt:
        rows = pa.Table.from_batches(batches, RECONSTRUCTED)
        url = artifacts.join(self.folder, f"{uuid.uuid4().hex}.arrow")
        with artifacts.open_write(url, dict(self.options)) as out, pa.ipc.new_stream(out, RECONSTRUCTED) as writer:
            writer.write_table(rows)
        seqs = rows.column("seq").to_pylist()
        return Receipt(ranges_of(seqs), len(seqs), rows.column("error").null_count, fragments={"errors": (url,)})


def write_errors(step: DiagnoseStep, ctx: Context, field: pa.Field) -> NormHistogram:
    """Writes the column `field` and returns how the errors are distributed. The table must be fenced.

    Raises StoreError when rows move meanwhile.
    """
    listing = ctx.listing_now()
    version = ctx.latents.version
    tally = recount(listing, latents=ctx.latents, failures=ctx.failures, located_at=version)
    assert tally.addresses is not None
    done = tally.status == Status.DONE
    addresses = tally.addresses[done]
    codec = ctx.codec
    height, width = codec.spec.preprocess.size
    work = write_work(
        listing, ctx.work_url(f"{step.name}.arrow"), todo=done, row_bytes=height * width * 3, options=ctx.file_options
    )
    job = MapJob(
        splits=WorkSplits(work.spill, ImageReader(ctx.job.source, codec.spec.preprocess), BATCH_ROWS),
        stage=OnWorker(codec, partial(Reconstruct)),
        sink=ErrorSink(ctx.work_url("errors"), tuple(ctx.file_options.items())),
        batch_rows=BATCH_ROWS,
        row_bytes=height * width * 3,
    )
    taken = np.zeros(work.rows, bool)
    counted, failed = NormHistogram.empty(), 0
    with ColumnSpill((field,)) as spill:
        for receipt in ctx.executor.map(job):
            # A split that ran twice was read before.
            if any(taken[a:b].any() for a, b in receipt.ranges):
                continue
            for a, b in receipt.ranges:
                taken[a:b] = True
            failed += receipt.failed
            for url in receipt.fragments["errors"]:
                counted = counted.merged(_take(url, ctx, spill, addresses, field.name))
            ctx.progress(step, computed=int(taken.sum()), committed=0, failed=failed, total=work.rows)
        ctx.put_columns(spill, version=version, rows=spill.rows)
    if failed:
        ctx.notice(f"{step.name}: {failed:,} pictures could not be brought back; their reconstruction_error is empty")
    return counted


def _take(url: str, ctx: Context, spill: ColumnSpill, addresses: np.ndarray, name: str) -> NormHistogram:
    with artifacts.open_read(url, ctx.file_options) as file, pa.ipc.open_stream(file) as reader:
        rows = reader.read_all().combine_chunks()
    for batch in rows.to_batches():
        where = pa.array(addresses[batch.column("seq").to_numpy()])
        spill.add(pa.record_batch({ADDRESS: where, name: batch.column("error")}))
    errors = rows.column("error").drop_null().to_numpy().astype(np.float64)
    return NormHistogram.of(errors**2)
