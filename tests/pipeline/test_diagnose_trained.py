"""Networks that are really trained, encoded and diagnosed: healthy, collapsed and holed are told apart by the step itself."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.executors.local import LocalExecutor
from pipeline.readers import list_measurements
from pipeline.run import run_job
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job
from tests.jobs import image_id, job_data

pytestmark = pytest.mark.slow

COUNT = 400
RNG = np.random.default_rng(0)
NORMAL = RNG.standard_normal((COUNT, 2)).clip(-2.5, 2.5)
CLUSTERS = RNG.standard_normal((COUNT, 2)) * 0.25 + np.where(RNG.random(COUNT) < 0.5, 2, -2)[:, None]
"""Factors of two kinds of picture with nothing in between: wherever they are put, draws of N(0, I) fall into the gap."""


def write(folder: Path, factors: np.ndarray) -> None:
    """Noisy pictures in which one factor brightens the upper half, and another the left one."""
    for n, (upper, left) in enumerate(factors):
        grey = 128 + 15 * np.random.default_rng(n).standard_normal((16, 16))
        grey[:8] += 35 * upper
        grey[8:] -= 10 * upper
        grey[:, :8] += 35 * left
        grey[:, 8:] -= 10 * left
        path = folder / "images" / image_id(n)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), grey.round().clip(0, 255).astype(np.uint8)[..., None].repeat(3, 2))


def diagnosed(folder: Path, factors: np.ndarray, *, beta: float) -> dict[str, dict[str, Any]]:
    """A VAE with two latent numbers trained on pictures of `factors`, and what the diagnosis says of it, by metric."""
    write(folder, factors)
    train = {"stage": "train", "variant": "vae", "latent_dim": 2, "channels": [8], "steps": 200, "beta": beta}
    steps = [
        {**train, "learning_rate": 5e-3},
        {"stage": "encode"},
        {"stage": "diagnose", "decodes": 256, "sample": 300},
    ]
    codec = {"family": "conv_vae", "weights": str(folder / "vae"), "preprocess": {"size": 16}}
    data = job_data(folder, folder / "store", codec=codec, steps=steps)
    data["source"] = {"images": data["source"]["images"]}
    run_job(parse_job(data), report=lambda event: None, executor=LocalExecutor(LocalSpec(threads=1)))
    return {m["metric"]: m for m in list_measurements(str(folder / "store"), {}, None, where=None)}


def states(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: found[name]["status"] for name in ("kl", "active_units", "precision", "coverage")}


def test_a_healthy_vae_listens_and_has_no_hole(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, NORMAL, beta=10)
    assert states(found) == dict.fromkeys(states(found), "ok")
    assert (found["active_units"]["value"], found["silent_dimensions"]["value"]) == (2, 0)
    assert found["kl"]["value"] > 2 and found["precision"]["value"] > 0.5


def test_a_beta_that_is_far_too_large_collapses_it(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, NORMAL, beta=1e4)
    assert states(found) == {"kl": "collapsed", "active_units": "ok", "precision": "ok", "coverage": "ok"}
    assert (found["active_units"]["value"], found["silent_dimensions"]["value"]) == (0, 2)
    assert found["kl"]["value"] < 0.01 and found["posterior_std"]["value"] == pytest.approx(1, abs=0.01)


def test_two_kinds_of_picture_leave_a_hole_between_them(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, CLUSTERS, beta=10)
    assert states(found) == {"kl": "ok", "active_units": "ok", "precision": "holes", "coverage": "uncovered"}
    assert found["active_units"]["value"] == 2 and found["precision"]["value"] < 0.3
    assert found["cycle_ratio"]["status"] == "off_manifold"
