"""The diagnose step: one scan, a bounded sample put to the codec, and scores written back for every image.

The scan and the probe are distributed reduces; neighbours and two-sample tests run on a bounded sample on the driver. Scores
are columns of the latents, written in workers and seen by readers all at once (store/columns.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.codec import CodecRef
from pipeline.context import Context
from pipeline.holes import of_all_images
from pipeline.measurements import store_measurements
from pipeline.reconstruction import write_errors
from pipeline.selection import no_row_left, selection_clause
from pipeline.steps.fit import drive
from pipeline.store.column_values import Computed
from schemas.measurements import OK, Measurement
from schemas.steps import DiagnoseStep
from schemas.tables import computed_field
from stages.codecs.factory import open_codec
from stages.diagnosis.code_sample import sample_hashes
from stages.diagnosis.diagnosis import diagnosis, probe_batches
from stages.diagnosis.evidence import Evidence, Limits, gather
from stages.diagnosis.findings import about_rows
from stages.diagnosis.probe import Probe
from stages.diagnosis.scan import Scanned, scan
from stages.diagnosis.scores import ANOMALY, MAHALANOBIS, RECONSTRUCTION, TYPICALITY, Scale, Scores
from stages.rows import finite_rows

if TYPE_CHECKING:
    from stages.codecs.base import Codec


def diagnose(step: DiagnoseStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns the rows looked at, the flags raised, and the columns written."""
    latents = ctx.latents
    version = latents.version
    logvar = ["logvar"] if "logvar" in latents.schema.names else []
    codes = ["codes"] if ctx.codec.latent.codebook is not None else []
    splits = latents.splits(
        columns=["id", "latent", *logvar, *codes], where=selection_clause(step, latents, version), version=version
    )
    if not splits.rows:
        raise no_row_left(step)
    ctx.started_step(step, total=splits.rows)
    spec = ctx.codec.latent
    scanned: Scanned = drive(
        scan(spec.dim, logvar=bool(logvar), rows=splits.rows, codebook=spec.codebook), ctx.executor, splits
    )
    ctx.progress(step, computed=splits.rows, committed=0, failed=scanned.non_finite, total=splits.rows)
    limits = Limits(step.active_threshold, step.collapse_nats, step.k)
    evidence = gather(scanned, spec, limits=limits, sample=step.sample, seed=step.seed)
    if evidence is None:
        found = [*about_rows(scanned), _nothing(scanned)]
        columns: list[str] = []
    else:
        found = diagnosis(_probed(step, ctx, evidence))
        found += of_all_images(ctx.latents, version, evidence, found)
        columns = _scores(step, ctx, evidence)
    store_measurements(step, ctx, found, version=version)
    flags = [m for m in found if m.status != OK and m.message]
    if flags:
        told = "; ".join(sorted({flag.status.replace("_", " ") for flag in flags}))
        ctx.notice(
            f"{step.name}: {len(flags)} flags ({told}); its section of the report and `latentmill measurements` name the thresholds"
        )
    ctx.progress(step, computed=splits.rows, committed=splits.rows, failed=scanned.non_finite, total=splits.rows)
    return {
        "rows": splits.rows,
        "non_finite": scanned.non_finite,
        "measurements": len(found),
        "flags": sorted({m.metric for m in flags}),
        "columns": columns,
    }


def _nothing(scanned: Scanned) -> Measurement:
    return Measurement("diagnosis", status="too_few_points", n=scanned.n, message="fewer than two finite rows.")


@dataclass(frozen=True)
class _Batches:
    """A few batches as splits, one each."""

    batches: tuple[pa.RecordBatch, ...]

    def __len__(self) -> int:
        return len(self.batches)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        yield self.batches[index]


def _open(codec: CodecRef, device: str) -> "Codec":
    return open_codec(codec.spec, codec.load(), device=device, allow_code=codec.allow_code)


def _probed(step: DiagnoseStep, ctx: Context, evidence: Evidence) -> Evidence:
    if not step.decodes:
        return evidence
    steps, batches = probe_batches(evidence, step.decodes)
    stage = Probe(steps, partial(_open, ctx.codec))
    return evidence.with_probe(ctx.executor.reduce(_Batches(tuple(batches)), stage))


@dataclass(frozen=True)
class _ScoreRows:
    """Latents (and reconstruction errors) of a batch → its scores; null where the latent is not finite."""

    scores: Scores
    fields: tuple[pa.Field, ...]

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        values, good = finite_rows(batch.column("latent"))
        errors = None
        if RECONSTRUCTION in batch.schema.names:
            errors = batch.column(RECONSTRUCTION).to_numpy(zero_copy_only=False).astype(np.float64)[good]
        hashes = sample_hashes(batch.column("id"))[good]
        found = self.scores.of(values[good].astype(np.float64), hashes, errors)
        columns = []
        for field in self.fields:
            spread = np.full(len(batch), np.nan)
            spread[good] = found[field.name]
            columns.append(pa.array(spread.astype(np.float32), mask=~np.isfinite(spread)))
        return pa.RecordBatch.from_arrays(columns, names=[f.name for f in self.fields])


def _scores(step: DiagnoseStep, ctx: Context, evidence: Evidence) -> list[str]:
    """Writes the chosen scores and `anomaly` for every image of the table; returns the columns' names."""
    if not step.scores:
        return []
    latents, by = ctx.latents, str(step.stage)
    latents.fence(ctx.lease.token)
    latents.clean_orphans(timedelta(0), token=ctx.lease.token)
    named = [name for name in (TYPICALITY, MAHALANOBIS) if name in step.scores]
    reads, scale = ["id", "latent"], None
    if "reconstruction" in step.scores:
        field = computed_field(RECONSTRUCTION, pa.float32(), by=by)
        scale = Scale.of_histogram(write_errors(step, ctx, field))
        reads.append(RECONSTRUCTION)
    sample = evidence.sample
    scores = Scores.fitted(
        sample.latents.astype(np.float64), sample.hashes, evidence.gaussian, named, reconstruction=scale
    )
    fields = tuple(computed_field(name, pa.float32(), by=by) for name in (*named, ANOMALY))
    ctx.put_columns(Computed(fields, tuple(reads), _ScoreRows(scores, fields)), fold=ctx.executor.reduce)
    ctx.publish()
    return [f.name for f in fields] + ([RECONSTRUCTION] if scale else [])
