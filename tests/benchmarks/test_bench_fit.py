"""The fit benchmark in small: both sides read one table, and coefficients equal scikit-learn's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_answers_are_checked_and_figures_printed(root: Path, tmp_path: Path) -> None:
    size = ["--rows=40000", "--dim=12", "--attributes=3", "--logistic=2"]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.fit", *size]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for figure in ("scikit-learn's loop ÷ ours", "peak memory, MB", "largest difference, relative"):
        assert figure in done.stdout
