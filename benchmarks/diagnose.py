"""Diagnose 1,000,000 × 256 float16 latents: the scan beside one raw projected scan of the same table, and what comes after it.

The raw scan reads `id` and `latent` by the same splits, in as many threads, and looks at nothing. The scan's time must be at
most three times that. The neighbours and two-sample tests work on a sample of fixed size and are timed apart: they do not grow
with the rows. Medians of three rounds, in one process after a first round that warms the caches.
"""

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa

from benchmarks.latents import labelled
from benchmarks.raw_scan import raw_seconds, scanned
from benchmarks.results import Result, peak_mb, report
from pipeline.store.splits import TableSplits
from schemas.codec import LatentSpec
from schemas.measurements import Measurement
from stages.diagnosis.diagnosis import diagnosis
from stages.diagnosis.evidence import Limits, gather
from stages.diagnosis.scan import Scan, Scanned

FULL = 1_000_000
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=FULL)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--sample", type=int, default=4000)
    asked = parser.parse_args()
    splits = labelled(asked.rows, asked.dim, 4).splits(columns=["id", "latent"])
    stage = Scan(asked.dim, False, expected=asked.rows)
    half = replace(splits, pieces=splits.pieces[::2])
    rounds = [(raw_seconds(splits), scanned(splits, stage), scanned(half, stage)) for _ in range(ROUNDS + 1)][1:]
    raw = statistics.median(r[0] for r in rounds)
    scan = statistics.median(r[1][0] for r in rounds)
    half_rows = rounds[-1][2][1].n
    twice = scan / statistics.median(r[2][0] for r in rounds) * 2 * half_rows / asked.rows
    found = rounds[-1][1][1]
    spec = LatentSpec(shape=(asked.dim,), space="z")
    started = time.perf_counter()
    told = _after(found, spec, asked.sample)
    after = time.perf_counter() - started
    assert all(m.value is None or np.isfinite(m.value) for m in told)
    peak = peak_mb()  # before the check, which holds a whole split in float64
    check(found, splits)
    results = [
        Result("scan ÷ raw scan", scan / raw, "<=", 3),
        Result("time of twice the rows ÷ time, scan", twice, "<=", 2.1),
        Result("rows a second, scan", asked.rows / scan, None, None),
        Result("rows a second, raw scan", asked.rows / raw, None, None),
        Result("seconds after the scan (neighbours, two-sample tests)", after, None, None),
        Result("peak memory, MB", peak, "<=", 2000),
    ]
    report("diagnose", f"Diagnose {asked.rows:,} × {asked.dim} float16", results, keep=asked.rows >= FULL)


def _after(found: Scanned, spec: LatentSpec, sample: int) -> list[Measurement]:
    evidence = gather(found, spec, limits=Limits(), sample=sample, seed=0)
    assert evidence is not None
    return diagnosis(evidence)


def check(found: Scanned, splits: TableSplits) -> None:
    """Means, variances and norms of the first split, computed in one go, must be what the scan of it says."""
    first = np.concatenate([_matrix(batch) for batch in splits.read(0)])
    stage = Scan(first.shape[1], False)
    alone = stage.start()
    for batch in splits.read(0):
        alone = stage.add(alone, batch)
    np.testing.assert_allclose(alone.moments.z_mean, first.mean(0), rtol=1e-10)
    np.testing.assert_allclose(alone.moments.z_variance, first.var(0, ddof=1), rtol=1e-10)
    np.testing.assert_allclose(alone.norms.mean, np.linalg.norm(first, axis=1).mean(), rtol=1e-12)
    assert found.n == splits.rows


def _matrix(batch: pa.RecordBatch) -> np.ndarray:
    column = batch.column("latent")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float64)


if __name__ == "__main__":
    main()
