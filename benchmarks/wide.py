"""Peak memory at the widest latents whose second moments are kept whole: 20,000 × 4,096 float16, five labels.

Every estimator of directions, PCA and the diagnosis, each in a process of its own on a table in Lance, as a run would do it. Time
stands beside; at this width it goes to products and decompositions of 4,096 × 4,096 matrices.
"""

import argparse
import json
import time
from collections.abc import Callable

from benchmarks.fit import child
from benchmarks.latents import labelled
from benchmarks.results import Result, peak_mb, report

FULL, MEMORY, PENALTY = 20_000, 2000, 10.0
FITS = ("mean_difference", "balanced_mean_difference", "ols", "ridge", "lda", "logistic", "svm")
PARTS = (*FITS, "pca", "diagnose")


def fitted(asked: argparse.Namespace, estimator: str) -> None:
    from pipeline.executors.local import LocalExecutor
    from pipeline.steps.fit import drive
    from schemas.executor import LocalExecutor as LocalSpec
    from schemas.steps import FitStep
    from schemas.tables import label_types
    from stages.directions.fit import fit

    table = labelled(asked.rows, asked.dim, asked.attributes)
    types = label_types(table.schema.field("labels").type)
    splits = table.splits(columns=["id", "latent", "labels"])
    # Five rows a number part the classes by chance alone: without a penalty there would be no optimum.
    penalty = {"l2": PENALTY} if estimator in ("logistic", "svm") else {}
    step = FitStep.model_validate({"name": "fit", "estimator": estimator} | penalty)
    found = drive(fit(step, types, dim=asked.dim, labels=types), LocalExecutor(LocalSpec()), splits)
    assert all(d.status == "ok" for d in found), [d.status for d in found]


def pca(asked: argparse.Namespace) -> None:
    from pipeline.executors.local import LocalExecutor
    from pipeline.steps.fit import drive
    from schemas.executor import LocalExecutor as LocalSpec
    from schemas.steps import ComponentsStep
    from stages.components.over_latents import OverLatents
    from stages.components.pca import pca as passes
    from stages.components.principal import Limits

    splits = labelled(asked.rows, asked.dim, asked.attributes).splits(columns=["id", "latent"])
    step = ComponentsStep(name="pca", estimator="pca", count=16)
    names = [f"pca.{i}" for i in range(step.count)]
    found = drive(passes(step, names, OverLatents, dim=asked.dim, limits=Limits()), LocalExecutor(LocalSpec()), splits)
    assert all(d.status == "ok" for d in found.directions)


def diagnose(asked: argparse.Namespace) -> None:
    from benchmarks.raw_scan import scanned
    from schemas.codec import LatentSpec
    from stages.diagnosis.diagnosis import diagnosis
    from stages.diagnosis.evidence import Limits, gather
    from stages.diagnosis.scan import Scan

    splits = labelled(asked.rows, asked.dim, asked.attributes).splits(columns=["id", "latent"])
    _, found = scanned(splits, Scan(asked.dim, False, expected=asked.rows))
    evidence = gather(found, LatentSpec(shape=(asked.dim,), space="z"), limits=Limits(), sample=2000, seed=0)
    assert evidence is not None and diagnosis(evidence)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=FULL)
    parser.add_argument("--dim", type=int, default=4096)
    parser.add_argument("--attributes", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.part:
        others: dict[str, Callable[[argparse.Namespace], None]] = {"pca": pca, "diagnose": diagnose}
        started = time.perf_counter()
        if asked.part in others:
            others[asked.part](asked)
        else:
            fitted(asked, asked.part)
        print(json.dumps({"seconds": time.perf_counter() - started, "peak_mb": peak_mb()}))
        return
    labelled(asked.rows, asked.dim, asked.attributes)
    size = [f"--rows={asked.rows}", f"--dim={asked.dim}", f"--attributes={asked.attributes}"]
    told = {part: child("benchmarks.wide", *size, f"--part={part}") for part in asked.parts}
    results = [
        Result(f"{part}: peak memory, MB", one["peak_mb"], "<=", MEMORY, f"{one['seconds']:.0f} s")
        for part, one in told.items()
    ]
    report("wide", f"Memory over {asked.rows:,} × {asked.dim:,} float16", results, keep=asked.rows >= FULL)


if __name__ == "__main__":
    main()
