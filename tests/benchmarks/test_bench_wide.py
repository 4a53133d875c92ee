"""The benchmark of wide latents in small: every part runs to its end, and its memory is printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_parts_run_and_their_memory_is_printed(root: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.wide", "--rows=3000", "--dim=32", "--parts", "lda", "pca", "diagnose"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for part in ("lda", "pca", "diagnose"):
        assert f"{part}: peak memory, MB" in done.stdout
