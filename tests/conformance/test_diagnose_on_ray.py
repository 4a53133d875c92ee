"""The diagnosis is the same on every executor: numbers, flags, and the scores of every image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.executors.base import Executor
from pipeline.readers import list_measurements
from pipeline.run import run_job
from schemas.job import parse_job
from tests.jobs import job_data, make_images, rows_of

pytestmark = pytest.mark.slow

STEPS = [
    {"stage": "encode", "commit_rows": 16},
    {"stage": "diagnose", "decodes": 64, "sample": 100, "scores": ["typicality", "mahalanobis", "reconstruction"]},
]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("diagnosed")
    make_images(folder, 48)
    return folder


def outcome(images: Path, store: Path, executor: Executor) -> tuple[dict[str, Any], dict[str, Any]]:
    run_job(parse_job(job_data(images, store, steps=STEPS)), report=lambda event: None, executor=executor)
    numbers = {
        (m["metric"], m["subject"], m["target"]): (m["value"], m["status"])
        for m in list_measurements(str(store), {}, None, where=None)
    }
    names = ("typicality", "mahalanobis", "reconstruction_error", "anomaly")
    return numbers, {r["id"]: [r[n] for n in names] for r in rows_of(store).to_pylist()}


def test_numbers_and_scores(
    images: Path, local: Executor, ray_executor: Callable[..., Executor], tmp_path: Path
) -> None:
    numbers, scores = outcome(images, tmp_path / "ray", ray_executor(workers=2))
    told, expected = outcome(images, tmp_path / "local", local)
    assert numbers.keys() == told.keys() and len(scores) == 48
    for name, (value, status) in numbers.items():
        assert status == told[name][1], name
        assert (value is None) == (told[name][0] is None), name
        assert value is None or value == pytest.approx(told[name][0], rel=1e-6, abs=1e-9), name
    for image, found in scores.items():
        assert None not in found and found == pytest.approx(expected[image], rel=1e-5, abs=1e-6)
