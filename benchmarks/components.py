"""PCA with 80 components over 1,000,000 × 512 float16 latents, against scikit-learn's IncrementalPCA on the same table.

Both sides read the same table, a batch at a time, and their times include reading it. Each runs in a process of its own;
peak memory is what the operating system counted. Ours must equal the eigenvectors of the covariance in two passes of
float64; how far IncrementalPCA is from them is told beside it.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.fit import child
from benchmarks.latents import labelled
from benchmarks.results import Result, peak_mb, report

EXACT = 1e-10
FULL = 1_000_000
SIDES = ("ours", "incremental", "exact")


def ours(asked: argparse.Namespace) -> dict[str, np.ndarray]:
    """One components step over the table."""
    from pipeline.executors.local import LocalExecutor
    from pipeline.steps.fit import drive
    from schemas.executor import LocalExecutor as LocalSpec
    from schemas.steps import ComponentsStep
    from stages.components.over_latents import OverLatents
    from stages.components.pca import pca
    from stages.components.principal import Limits

    step = ComponentsStep(name="pca", count=asked.components)
    names = [f"pca.{i}" for i in range(asked.components)]
    splits = labelled(asked.rows, asked.dim, 1).splits(columns=["id", "latent"])
    passes = pca(step, names, OverLatents, dim=asked.dim, limits=Limits())
    found = drive(passes, LocalExecutor(LocalSpec()), splits)
    assert all(d.status == "ok" for d in found.directions)
    return {
        "axes": np.array([d.vector for d in found.directions]),
        "variance": np.array([d.sigma for d in found.directions]) ** 2,
    }


def incremental(asked: argparse.Namespace) -> dict[str, np.ndarray]:
    """scikit-learn's way for data that do not fit memory, in its own default batches of 5 × d rows."""
    from sklearn.decomposition import IncrementalPCA

    model = IncrementalPCA(asked.components)
    for rows in batches(asked, 5 * asked.dim):
        if len(rows) >= asked.components:
            model.partial_fit(rows)
    return {"axes": model.components_, "variance": model.explained_variance_}


def exact(asked: argparse.Namespace) -> dict[str, np.ndarray]:
    """The covariance in two passes of float64, and all its eigenvectors."""
    mean = sum(rows.sum(0, dtype=np.float64) for rows in batches(asked, 8192)) / asked.rows
    scatter = np.zeros((asked.dim, asked.dim))
    for rows in batches(asked, 8192):
        centred = rows - mean
        scatter += centred.T @ centred
    values, axes = np.linalg.eigh(scatter / (asked.rows - 1))
    return {"axes": axes.T[::-1][: asked.components], "variance": values[::-1][: asked.components]}


def batches(asked: argparse.Namespace, size: int):
    """(size, d) float32 pieces of the table, the last one shorter."""
    held: list[np.ndarray] = []
    for batch in labelled(asked.rows, asked.dim, 1).scan(["latent"]):
        held.append(batch.column("latent").flatten().to_numpy().reshape(-1, asked.dim).astype(np.float32))
        while sum(map(len, held)) >= size:
            rows = np.concatenate(held)
            yield rows[:size]
            held = [rows[size:]]
    if rest := [part for part in held if len(part)]:
        yield np.concatenate(rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=FULL)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--components", type=int, default=80)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        started = time.perf_counter()
        found = {"ours": ours, "incremental": incremental, "exact": exact}[asked.side](asked)
        seconds = time.perf_counter() - started
        np.savez(asked.out, **found)
        print(json.dumps({"seconds": seconds, "peak_mb": peak_mb()}))
        return
    for rows in (asked.rows, asked.rows // 2):
        labelled(rows, asked.dim, 1)
    size = [f"--dim={asked.dim}", f"--components={asked.components}"]
    with tempfile.TemporaryDirectory() as scratch:
        files = {side: Path(scratch) / f"{side}.npz" for side in SIDES}
        whole = [*size, f"--rows={asked.rows}"]
        told = {s: child("benchmarks.components", *whole, f"--side={s}", f"--out={files[s]}") for s in SIDES}
        found = {side: dict(np.load(path)) for side, path in files.items()}
        part = [*size, f"--rows={asked.rows // 2}", "--side=ours", f"--out={files['ours']}"]
        told["half"] = child("benchmarks.components", *part)
    title = f"PCA, {asked.components} components of {asked.rows:,} × {asked.dim} float16"
    report("components", title, results(told, found), keep=asked.rows >= FULL)


def results(told: dict[str, dict], found: dict[str, dict[str, np.ndarray]]) -> list[Result]:
    """Speed, memory, and how far both sides are from the exact components. Raises where ours is not exact."""
    mine, peer, true = (found[side] for side in SIDES)
    error = float(np.abs(mine["variance"] - true["variance"]).max() / true["variance"][0])
    assert error <= EXACT, f"variances are {error:.1g} of the largest from the exact ones"
    apart = {side: angle(found[side]["axes"], true["axes"]) for side in SIDES[:2]}
    assert apart["ours"] <= 1e-4, f"the span of the components is {apart['ours']:.1g} degrees from the exact one"
    ratio = told["incremental"]["seconds"] / told["ours"]["seconds"]
    detail = f"{told['incremental']['seconds']:.1f} s against {told['ours']['seconds']:.1f} s"
    loss = float(np.abs(peer["variance"] - true["variance"]).max() / true["variance"][0])
    return [
        Result("IncrementalPCA ÷ ours", ratio, ">=", 5, detail),
        Result("time of twice the rows ÷ time", told["ours"]["seconds"] / told["half"]["seconds"], "<=", 2.1),
        Result("peak memory, MB", told["ours"]["peak_mb"], "<=", 2000, f"{told['incremental']['peak_mb']:.0f} theirs"),
        Result("variances: error, share of the largest", error, "<=", EXACT, f"{loss:.1g} theirs"),
        Result(
            "span: largest angle to the exact one, degrees",
            apart["ours"],
            "<=",
            1e-4,
            f"{apart['incremental']:.2g}° theirs",
        ),
    ]


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Largest principal angle between the spans of orthonormal rows, in degrees."""
    return float(np.degrees(np.arcsin(min(1.0, np.linalg.norm(a - a @ b.T @ b, 2)))))


if __name__ == "__main__":
    main()
