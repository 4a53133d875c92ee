"""The components benchmark in small: ours is exact, and the figures are printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_answers_are_checked_and_figures_printed(root: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.components", "--rows=20000", "--dim=16", "--components=4"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for figure in ("IncrementalPCA ÷ ours", "peak memory, MB", "variances: error"):
        assert figure in done.stdout
