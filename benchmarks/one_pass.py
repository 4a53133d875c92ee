"""One-pass least squares of 40 attributes over 1,000,000 × 512 float16, against what the machine can do at most.

The pass reads every row once and keeps Σzzᵀ, Σzyᵀ and Σyyᵀ of it. Two limits: a bare scan of the same columns by the same
executor, and the products alone (blocks that lie in memory already, on all cores). Each is measured in a process of its own, in
turns, and the best round counts. The coefficients must equal NumPy's on the same table.
"""

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.fit import child
from benchmarks.latents import labelled
from benchmarks.results import Result, peak_mb, report

FULL = 1_000_000
SHARE, GROWTH, MEMORY, EQUAL = 0.6, 2.1, 2000, 1e-8
SECONDS = 4.0


def scan(asked: argparse.Namespace, rows: int) -> dict[str, float]:
    from benchmarks.raw_scan import raw_seconds

    splits = labelled(rows, asked.dim, asked.attributes).splits(columns=["id", "latent", "labels"])
    return {"rate": rows / raw_seconds(splits)}


def products(asked: argparse.Namespace, rows: int) -> dict[str, float]:
    """Rows a second of zᵀz and zᵀy in float64, one thread with one BLAS thread a core."""
    import os

    from threadpoolctl import threadpool_limits

    from stages.rows import BLOCK_VALUES

    block, cores = max(1, BLOCK_VALUES // asked.dim), len(os.sched_getaffinity(0))
    rng = np.random.default_rng(0)

    def work(z: np.ndarray) -> int:
        y, done, started = z[:, : asked.attributes].copy(), 0, time.perf_counter()
        while time.perf_counter() - started < SECONDS:
            z.T @ z
            z.T @ y
            done += len(z)
        return done

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(cores) as pool:
        blocks = [rng.standard_normal((block, asked.dim)) for _ in range(cores)]
        started = time.perf_counter()
        done = sum(pool.map(work, blocks))
        return {"rate": done / (time.perf_counter() - started)}


def fit(asked: argparse.Namespace, rows: int) -> dict[str, float]:
    from pipeline.executors.local import LocalExecutor
    from pipeline.steps.fit import drive
    from schemas.executor import LocalExecutor as LocalSpec
    from schemas.steps import FitStep
    from schemas.tables import label_types
    from stages.directions.fit import fit as passes

    table = labelled(rows, asked.dim, asked.attributes)
    types = label_types(table.schema.field("labels").type)
    splits = table.splits(columns=["id", "latent", "labels"])
    started = time.perf_counter()
    step = FitStep(name="fit", estimator="ols", holdout=0)
    found = drive(passes(step, types, dim=asked.dim, labels=types), LocalExecutor(LocalSpec()), splits)
    seconds, peak = time.perf_counter() - started, peak_mb()
    error = 0.0
    if asked.check:
        w = np.array([d.vector * d.raw_norm for d in found])
        exact = reference(table, list(types))
        error = float(np.abs(w - exact).max() / np.abs(exact).max())
    return {"rate": rows / seconds, "seconds": seconds, "peak_mb": peak, "error": error}


def reference(table: object, names: list[str]) -> np.ndarray:
    """The coefficients from NumPy's least squares over the whole table in memory."""
    batches = list(table.scan(["latent", "labels"]))  # type: ignore[attr-defined]
    z = np.vstack([np.stack(b.column("latent").to_numpy(zero_copy_only=False)).astype(float) for b in batches])
    labels = [b.column("labels").flatten() for b in batches]
    order = [f.name for f in batches[0].column("labels").type]
    y = np.vstack([np.column_stack([c.to_numpy(zero_copy_only=False) for c in part]).astype(float) for part in labels])
    y = y[:, [order.index(name) for name in names]]
    return np.asarray(np.linalg.lstsq(y - y.mean(0), z - z.mean(0), rcond=None)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=FULL)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--attributes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check-rows", type=int, default=50_000, help="rows of the table that NumPy's answer is for")
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=("scan", "products", "fit", "half"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        rows = asked.rows // 2 if asked.part == "half" else asked.rows
        print(json.dumps({"scan": scan, "products": products, "fit": fit, "half": fit}[asked.part](asked, rows)))
        return
    for rows in (asked.rows, asked.rows // 2, asked.check_rows):
        labelled(rows, asked.dim, asked.attributes)
    size = [f"--dim={asked.dim}", f"--attributes={asked.attributes}"]
    rounds: dict[str, list[dict]] = {part: [] for part in ("scan", "products", "fit", "half")}
    for _ in range(asked.rounds):
        for part, found in rounds.items():
            found.append(child("benchmarks.one_pass", *size, f"--rows={asked.rows}", f"--part={part}"))
    checked = child("benchmarks.one_pass", *size, f"--rows={asked.check_rows}", "--part=fit", "--check")
    assert checked["error"] <= EQUAL, f"coefficients differ from NumPy's by {checked['error']:.2g}"
    best = {part: max(found, key=lambda one: one["rate"]) for part, found in rounds.items()}
    title = f"One-pass fit of {asked.attributes} attributes over {asked.rows:,} × {asked.dim} float16"
    report("one_pass", title, results(best, rounds, checked["error"]), keep=asked.rows >= FULL)


def results(best: dict[str, dict], rounds: dict[str, list[dict]], error: float) -> list[Result]:
    limit = min(best["scan"]["rate"], best["products"]["rate"])
    rate, peak = best["fit"]["rate"], max(one["peak_mb"] for one in rounds["fit"])
    told = f"{rate:,.0f} rows/s; scan {best['scan']['rate']:,.0f}, products {best['products']['rate']:,.0f}"
    growth = best["fit"]["seconds"] / best["half"]["seconds"]
    seconds = f"{best['fit']['seconds']:.1f} s against {best['half']['seconds']:.1f} s"
    return [
        Result("one-pass fit ÷ the lower limit", rate / limit, ">=", SHARE, told),
        Result("time of twice the rows ÷ time", growth, "<=", GROWTH, seconds),
        Result("peak memory, MB", peak, "<=", MEMORY),
        Result("largest difference from NumPy, relative", error, "<=", EQUAL),
    ]


if __name__ == "__main__":
    main()
