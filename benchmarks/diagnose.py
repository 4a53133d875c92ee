"""Diagnose 1,000,000 × 256 float16 latents: the scan beside one raw projected scan of the same table, and what comes after it.

The raw scan reads `id` and `latent` by the same splits, in as many threads, and looks at nothing. The scan's time must be at
most three times that. The neighbours and two-sample tests work on a sample of fixed size and are timed apart: they do not grow
with the rows. Medians of three rounds, in one process after a first round that warms the caches.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from benchmarks.latents import labelled
from benchmarks.results import Result, report
from pipeline.executors.local import LocalExecutor
from pipeline.store.splits import TableSplits
from schemas.codec import LatentSpec
from schemas.executor import LocalExecutor as LocalSpec
from stages.diagnosis.diagnosis import diagnosis
from stages.diagnosis.evidence import Limits, gather
from stages.diagnosis.scan import Scan, Scanned

FULL = 1_000_000
ROUNDS = 3


@dataclass(frozen=True)
class Raw:
    """Reduce stage that counts rows and does nothing else."""

    def start(self) -> int:
        return 0

    def add(self, state: int, batch: pa.RecordBatch) -> int:
        return state + batch.num_rows

    def merge(self, a: int, b: int) -> int:
        return a + b


def timed(work: Callable[[], object]) -> tuple[float, object]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=FULL)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--sample", type=int, default=4000)
    asked = parser.parse_args()
    splits = labelled(asked.rows, asked.dim, 4).splits(columns=["id", "latent"])
    executor = LocalExecutor(LocalSpec())
    rounds = [(timed(lambda: executor.reduce(splits, Raw())), timed(lambda: executor.reduce(splits, Scan(asked.dim, False, expected=asked.rows))))
              for _ in range(ROUNDS + 1)][1:]  # fmt: skip
    raw = statistics.median(r[0][0] for r in rounds)
    scan = statistics.median(r[1][0] for r in rounds)
    scanned = rounds[-1][1][1]
    assert isinstance(scanned, Scanned)
    spec = LatentSpec(shape=(asked.dim,), space="z")
    after, found = timed(lambda: _after(scanned, spec, asked.sample))
    assert isinstance(found, list) and all(m.value is None or np.isfinite(m.value) for m in found)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000  # before the check, which holds a whole split in float64
    check(scanned, splits)
    results = [
        Result("scan ÷ raw scan", scan / raw, "<=", 3),
        Result("rows a second, scan", asked.rows / scan, None, None),
        Result("rows a second, raw scan", asked.rows / raw, None, None),
        Result("seconds after the scan (neighbours, two-sample tests)", after, None, None),
        Result("peak memory, MB", peak, "<=", 2000),
    ]
    report("diagnose", f"Diagnose {asked.rows:,} × {asked.dim} float16", results, keep=asked.rows >= FULL)


def _after(scanned: Scanned, spec: LatentSpec, sample: int) -> object:
    evidence = gather(scanned, spec, limits=Limits(), sample=sample, seed=0)
    assert evidence is not None
    return diagnosis(evidence)


def check(scanned: Scanned, splits: TableSplits) -> None:
    """Means, variances and norms of the first split, computed in one go, must be what the scan of it says."""
    first = np.concatenate([_matrix(batch) for batch in splits.read(0)])
    alone = Scan(first.shape[1], False)
    found = alone.start()
    for batch in splits.read(0):
        found = alone.add(found, batch)
    np.testing.assert_allclose(found.moments.z_mean, first.mean(0), rtol=1e-10)
    np.testing.assert_allclose(found.moments.z_variance, first.var(0, ddof=1), rtol=1e-10)
    np.testing.assert_allclose(found.norms.mean, np.linalg.norm(first, axis=1).mean(), rtol=1e-12)
    assert scanned.n == splits.rows


def _matrix(batch: pa.RecordBatch) -> np.ndarray:
    column = batch.column("latent")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.float64)


if __name__ == "__main__":
    main()
