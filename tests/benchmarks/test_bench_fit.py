"""The fit benchmarks in small: all sides read one table, and coefficients equal scikit-learn's and NumPy's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def printed(root: Path, folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_answers_are_checked_and_figures_printed(root: Path, tmp_path: Path) -> None:
    size = ["--rows=8000", "--dim=12", "--attributes=3", "--logistic=2"]
    told = printed(root, tmp_path, "benchmarks.fit", *size)
    for figure in ("scikit-learn's loop ÷ ours", "peak memory, MB", "largest difference, relative"):
        assert figure in told


@pytest.mark.slow
def test_one_pass_is_held_against_the_scan_and_the_products(root: Path, tmp_path: Path) -> None:
    size = ["--rows=8000", "--dim=12", "--attributes=3", "--rounds=1", "--check-rows=4000"]
    told = printed(root, tmp_path, "benchmarks.one_pass", *size)
    for figure in ("one-pass fit ÷ the lower limit", "twice the rows", "peak memory, MB", "difference from NumPy"):
        assert figure in told
