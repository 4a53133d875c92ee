"""SeFa at the published size: eigenvectors of style weights 512 × 6,560, sorted, against NumPy's singular vectors of the same.

Wall time, the median of three rounds after one that warms the libraries.
"""

import statistics
import time

import numpy as np

from benchmarks.results import Result, peak_mb, report
from stages.components.sefa import factorise

ROWS, OUTPUTS, COUNT, ROUNDS = 512, 6560, 512, 3
EXACT = 1e-10


def main() -> None:
    weights = np.random.default_rng(0).standard_normal((ROWS, OUTPUTS)) * np.linspace(1, 3, ROWS)[:, None]
    seconds = []
    for _ in range(1 + ROUNDS):
        started = time.perf_counter()
        found = factorise(weights, COUNT)
        seconds.append(time.perf_counter() - started)
    left, singular, _ = np.linalg.svd(weights / np.linalg.norm(weights, axis=0), full_matrices=False)
    error = float(np.abs(found.values - singular[: len(found.values)] ** 2).max() / singular[0] ** 2)
    turned = float(1 - np.abs(np.einsum("ij,ji->i", found.vectors, left[:, : len(found.vectors)])).min())
    assert error <= EXACT and (np.diff(found.values) <= 0).all(), f"eigenvalues are {error:.1g} off, or not sorted"
    assert turned <= 1e-8, f"a vector is turned: 1 − |cos| = {turned:.1g}"
    results = [
        Result(
            f"seconds, {ROWS} × {OUTPUTS:,}",
            statistics.median(seconds[1:]),
            "<=",
            1,
            f"all {len(found.values)} directions",
        ),
        Result("eigenvalues: error, share of the largest", error, "<=", EXACT),
        Result("peak memory, MB", peak_mb(), "<=", 2000),
    ]
    report("sefa", f"SeFa of {ROWS} × {OUTPUTS:,} style weights", results)


if __name__ == "__main__":
    main()
