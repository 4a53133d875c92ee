"""Directions of 40 attributes over 1,000,000 × 256 float16 latents, against a scikit-learn loop over the attributes.

Both sides read the same table, and their times include reading it. Latentmill's also include standard errors, σ, separation
and held-out AUC with intervals, which scikit-learn's do not. Each side runs in a process of its own; Latentmill's peak memory
is what the operating system counted. Coefficients must equal scikit-learn's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.latents import labelled
from benchmarks.results import Result, peak_mb, report

ESTIMATORS = ("ols", "logistic")
EQUAL = 1e-6
FULL = 1_000_000
"""Rows of a run whose figures are kept; smaller ones only check the answers."""


def ours(estimator: str, asked: argparse.Namespace, out: Path) -> None:
    """The child: one fit step over the table, timed from before its first read."""
    from pipeline.executors.local import LocalExecutor
    from pipeline.steps.fit import drive
    from schemas.executor import LocalExecutor as LocalSpec
    from schemas.steps import FitStep
    from schemas.tables import label_types
    from stages.directions.fit import fit

    table = labelled(asked.rows, asked.dim, asked.attributes)
    started = time.perf_counter()
    types = label_types(table.schema.field("labels").type)
    step = FitStep(name="fit", estimator=estimator, l2=1.0 if estimator == "logistic" else 0.0)
    splits = table.splits(columns=["id", "latent", "labels"])
    found = drive(fit(step, types, dim=asked.dim, labels=types), LocalExecutor(LocalSpec()), splits)
    seconds = time.perf_counter() - started
    assert all(d.status == "ok" for d in found), [(d.attribute, d.status, d.message) for d in found]
    np.savez(out, w=np.array([d.vector * d.raw_norm for d in found]), b=np.array([d.intercept for d in found]))
    aucs = [min(d.auc for d in found), max(d.auc for d in found)]
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb(), "auc": aucs}))


def child(module: str, *arguments: str) -> dict:
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=FULL)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--attributes", type=int, default=40)
    parser.add_argument("--loop", type=int, help="attributes of the least-squares loop that are run; default: all")
    parser.add_argument(
        "--logistic",
        type=int,
        default=6,
        help="logistic attributes that are run; the rest are as many times their mean",
    )
    parser.add_argument("--ours", choices=ESTIMATORS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.ours:
        ours(asked.ours, asked, asked.out)
        return
    labelled(asked.rows, asked.dim, asked.attributes)
    loop, logistic = asked.loop or asked.attributes, min(asked.logistic, asked.attributes)
    size = [f"--rows={asked.rows}", f"--dim={asked.dim}", f"--attributes={asked.attributes}"]
    with tempfile.TemporaryDirectory() as scratch:
        files = {name: Path(scratch) / f"{name}.npz" for name in (*ESTIMATORS, "peer")}
        mine = {e: child("benchmarks.fit", *size, f"--ours={e}", f"--out={files[e]}") for e in ESTIMATORS}
        peer = child(
            "benchmarks.peers.scikit_learn", *size, f"--loop={loop}", f"--logistic={logistic}", f"--out={files['peer']}"
        )
        found = {name: dict(np.load(path)) for name, path in files.items()}
    errors = check(found)
    title = f"Fit {asked.attributes} attributes over {asked.rows:,} × {asked.dim} float16"
    report("fit", title, results(asked, mine, peer, errors), keep=asked.rows >= FULL)


def check(found: dict[str, dict[str, np.ndarray]]) -> dict[str, float]:
    """Largest difference from scikit-learn's coefficients, relative to the largest of them. Raises where it is too large."""
    exact = found["peer"]
    n = len(exact["logistic"])
    pairs = {
        "ols": (found["ols"]["w"], exact["ols"]),
        "logistic": (found["logistic"]["w"][:n], exact["logistic"]),
        "intercept": (found["logistic"]["b"][:n], exact["intercepts"]),
    }
    errors = {name: float(np.abs(a - b).max() / max(np.abs(b).max(), 1)) for name, (a, b) in pairs.items()}
    assert max(errors.values()) <= EQUAL, f"coefficients differ from scikit-learn's: {errors}"
    return errors


def results(
    asked: argparse.Namespace, mine: dict[str, dict], peer: dict[str, list[float]], errors: dict[str, float]
) -> list[Result]:
    load, n = peer["load"][0], asked.attributes

    def loop(kind: str) -> tuple[float, str]:
        done = peer[kind]
        seconds = load + float(np.mean(done)) * n
        how = f"all {n} run" if len(done) == n else f"{n} × the mean of {len(done)}"
        return seconds, f"{seconds:.0f} s ({how}, {load:.1f} s loading) against {mine[kind]['seconds']:.1f} s"

    rows = []
    for kind, name in (("logistic", "logistic regression"), ("ols", "least squares")):
        seconds, detail = loop(kind)
        rows.append(Result(f"{name}: scikit-learn's loop ÷ ours", seconds / mine[kind]["seconds"], ">=", 5, detail))
    joint = load + peer["joint"][0]
    told = f"{joint:.1f} s against {mine['ols']['seconds']:.1f} s, ours with errors, σ and held-out AUC"
    rows.append(
        Result(
            "least squares: one joint scikit-learn regression ÷ ours", joint / mine["ols"]["seconds"], None, None, told
        )
    )
    for kind in ESTIMATORS:
        low, high = mine[kind]["auc"]
        told = f"held-out AUC {low:.3f} to {high:.3f}"
        rows.append(Result(f"{kind}: peak memory, MB", mine[kind]["peak_mb"], "<=", 1500, told))
    rows += [Result(f"{name}: largest difference, relative", e, "<=", EQUAL) for name, e in errors.items()]
    return rows


if __name__ == "__main__":
    main()
