"""A scikit-learn loop over attributes: the table in memory once, then one regression an attribute.

Everything is float32, which is scikit-learn's fast path, and the logistic regressions stop at its default tolerance: both
in its favour, as their answers are then good to three digits. The exact answers that Latentmill's are checked against
come from float64 and tight tolerances, and are not timed.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression

from benchmarks.latents import labelled

CHECKED = 2
"""Logistic attributes solved to the last digit."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--rows", "--dim", "--attributes", "--loop", "--logistic"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    seconds: dict[str, list[float]] = {"load": [], "joint": [], "ols": [], "logistic": []}
    started = time.perf_counter()
    latents, labels = loaded(asked.rows, asked.dim, asked.attributes)
    seconds["load"].append(time.perf_counter() - started)
    timed(seconds["joint"], lambda: LinearRegression().fit(labels, latents))
    for a in range(asked.loop):
        timed(seconds["ols"], lambda a=a: LinearRegression().fit(labels[:, [a]], latents))
    for a in range(asked.logistic):
        timed(seconds["logistic"], lambda a=a: LogisticRegression(C=1.0, max_iter=1000).fit(latents, labels[:, a]))
    latents, labels = latents.astype(np.float64), labels.astype(np.float64)
    exact = LinearRegression().fit(labels, latents).coef_.T
    logistic = [
        LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-12, max_iter=100).fit(latents, labels[:, a])
        for a in range(min(CHECKED, asked.logistic))
    ]
    np.savez(
        asked.out,
        ols=exact,
        logistic=np.array([m.coef_[0] for m in logistic]),
        intercepts=np.array([m.intercept_[0] for m in logistic]),
    )
    print(json.dumps(seconds))


def loaded(rows: int, dim: int, attributes: int) -> tuple[np.ndarray, np.ndarray]:
    """Latents (rows, dim) and labels (rows, attributes), both float32."""
    latents, labels = np.empty((rows, dim), np.float32), np.empty((rows, attributes), np.float32)
    at = 0
    for batch in labelled(rows, dim, attributes).scan(["latent", "labels"]):
        here = slice(at, at + batch.num_rows)
        latents[here] = batch.column("latent").flatten().to_numpy().reshape(-1, dim)
        for i, column in enumerate(batch.column("labels").flatten()):
            labels[here, i] = column.to_numpy(zero_copy_only=False)
        at += batch.num_rows
    return latents, labels


def timed(seconds: list[float], work: object) -> None:
    started = time.perf_counter()
    work()
    seconds.append(time.perf_counter() - started)


if __name__ == "__main__":
    main()
