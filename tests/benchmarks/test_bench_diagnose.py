"""The diagnose benchmark in small: the scan's answers are checked against the rows themselves, and figures are printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_answers_are_checked_and_figures_printed(root: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.diagnose", "--rows=20000", "--dim=12", "--sample=500"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for figure in ("scan ÷ raw scan", "peak memory, MB", "seconds after the scan"):
        assert figure in done.stdout
