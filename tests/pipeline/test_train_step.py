"""The train step counts pictures, not files: what cannot be read is left out, and said."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.executors.local import LocalExecutor
from pipeline.run import run_job
from pipeline.summary_line import summary_line
from schemas.errors import TrainingError
from schemas.events import Event, Notice, Progress
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import Job, parse_job
from tests.commands import latentmill
from tests.jobs import image_id, job_data, make_images, spoil

TRAIN: dict[str, Any] = {
    "stage": "train",
    "variant": "vae",
    "latent_dim": 4,
    "channels": [8],
    "steps": 3,
    "batch_size": 4,
}


def job_of(folder: Path) -> Job:
    codec = {"family": "conv_vae", "weights": str(folder / "weights"), "preprocess": {"size": 16}}
    return parse_job(job_data(folder, folder / "store", codec=codec, steps=[TRAIN]))


def test_unreadable_pictures_are_left_out_and_counted(tmp_path: Path) -> None:
    make_images(tmp_path, 20)
    broken = spoil(tmp_path, 4)
    events: list[Event] = []
    counts = run_job(job_of(tmp_path), report=events.append, executor=LocalExecutor(LocalSpec())).steps["train"]
    assert (counts["images"], counts["left_out"], counts["trained"]) == (20 - broken, broken, 3)
    assert {e.failed for e in events if isinstance(e, Progress)} == {broken}
    assert any(f"{broken} of 20 images cannot be read" in e.message for e in events if isinstance(e, Notice))
    assert f"3 steps on {20 - broken} images" in summary_line(counts)
    assert summary_line(counts).endswith(f"{broken} could not be read")


def test_no_readable_picture_is_an_error(tmp_path: Path) -> None:
    make_images(tmp_path, 3)
    spoil(tmp_path, 1)
    with pytest.raises(TrainingError, match="none of 3 images"):
        run_job(job_of(tmp_path), report=lambda event: None, executor=LocalExecutor(LocalSpec()))


def test_pictures_are_found_by_a_trained_codec(tmp_path: Path) -> None:
    make_images(tmp_path, 12)
    codec = {"family": "conv_vae", "weights": str(tmp_path / "weights"), "preprocess": {"size": 16}}
    steps = [TRAIN, {"stage": "encode"}]
    job = parse_job(job_data(tmp_path, tmp_path / "store", codec=codec, steps=steps))
    run_job(job, report=lambda event: None, executor=LocalExecutor(LocalSpec()))
    picture = str(tmp_path / "images" / image_id(3))
    found = latentmill("query", "--store", job.store, "--image", picture, "-k", "2", "--json", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, ""), "no warning either"
    nearest, other = json.loads(found.stdout)["rows"]
    assert nearest["id"] == image_id(3) and nearest["distance"] < 1e-6 < other["distance"]
