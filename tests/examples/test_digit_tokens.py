"""examples/digits_tokens.yaml runs as it stands, and its edit does to the pictures what it says: a one gets a hole in the middle."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from digits import write_digits
from pipeline.job_file import load_job
from pipeline.run import run_job

pytestmark = pytest.mark.slow


def test_ones_become_looped(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_digits(tmp_path / "out" / "digits", count=600)
    monkeypatch.chdir(tmp_path)
    job, given = load_job(root / "examples" / "digits_tokens.yaml")
    steps = run_job(job, report=lambda event: None, given=given).steps
    assert steps["encode"]["in_latents"] == 600 and steps["render"]["failed"] == 0
    (grid,) = (tmp_path / "out/digits/token_renders/render/looped").glob("*.png")
    strips = cv2.imread(str(grid), cv2.IMREAD_GRAYSCALE).astype(float)
    cells = [[strips[34 * row :, 34 * column :][:32, :32] for column in range(3)] for row in range(4)]
    centre = np.array([[cell[12:20, 13:19].mean() for cell in row] for row in cells])
    assert (centre[:, 0] > 150).all() and (centre[:, 2] < centre[:, 0] - 60).all(), "ink, and then a hole"
