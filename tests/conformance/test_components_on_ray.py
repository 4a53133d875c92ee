"""Components on Ray are those of the local executor: from the table alone, and with a codec in every worker."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.executors.base import Executor
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.job import parse_job
from tests.jobs import job_data, make_images

pytestmark = pytest.mark.slow

CODEC = {
    "family": "custom",
    "entry": "tests.planted_codec:PlantedCodec",
    "options": {"singular": [5, 3, 2, 1]},
    "preprocess": {"size": 16},
}


def directions(folder: Path, out: Path, executor: Executor) -> dict[str, dict[str, Any]]:
    steps: list[dict[str, Any]] = [{"stage": "encode", "batch_size": 16}]
    steps += [{"stage": "components", "name": name, "estimator": name, "count": 3} for name in ("pca", "jacobian")]
    job = parse_job(job_data(folder, out, steps=steps, codec=CODEC, allow_code=True))
    run_job(job, report=lambda event: None, executor=executor)
    return {row["name"]: row for batch in Store.open(str(out)).directions().scan() for row in batch.to_pylist()}


def test_ray_finds_the_same_components(tmp_path: Path, local: Executor, ray_executor: Callable[..., Executor]) -> None:
    images = make_images(tmp_path, 60)
    mine = directions(images, tmp_path / "local", local)
    other = directions(images, tmp_path / "ray", ray_executor(workers=2))
    assert sorted(mine) == sorted(other) == [f"{name}.{i}" for name in ("jacobian", "pca") for i in range(3)]
    for name, row in mine.items():
        assert row["status"] == "ok"
        np.testing.assert_allclose(row["vector"], other[name]["vector"], rtol=0, atol=1e-9)
        assert row["sigma"] == pytest.approx(other[name]["sigma"], rel=1e-9)
