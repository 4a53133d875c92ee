"""Components and geodesics on Ray are those of the local executor: from the table alone, and with a codec in every worker."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.executors.base import Executor
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.job import parse_job
from tests.codec_cases import network
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


def test_a_network_is_watched_and_searched_through_in_every_worker(
    tmp_path: Path, local: Executor, ray_executor: Callable[..., Executor]
) -> None:
    """GANSpace hooks a layer of the decoder, a geodesic asks it for gradients: both open the codec where they run."""
    images, codec = make_images(tmp_path, 40), network(tmp_path)
    steps: list[dict[str, Any]] = [
        {"stage": "encode", "batch_size": 16},
        {"stage": "components", "name": "gan", "estimator": "ganspace", "count": 2},
        {"stage": "interpolate", "name": "geo", "method": "geodesic", "count": 4, "frames": 3, "tolerance": 0.05},
    ]

    def ran(out: Path, executor: Executor) -> tuple[Any, ...]:
        render = {"stage": "render", "to": str(out / "renders"), "layout": "strip"}
        job = parse_job(job_data(images, out / "store", steps=[*steps, render], codec=codec))
        assert run_job(job, report=lambda event: None, executor=executor).steps["render"]["written"] == 4 * 3
        store = Store.open(job.store)
        tables = (store.directions(), store.measurements(), store.renders("shapes"))
        found = [[row for batch in table.scan() for row in batch.to_pylist()] for table in tables]
        return (
            {row["name"]: row for row in found[0]},
            {(row["step"], row["metric"]): row for row in found[1] if row["step"] == "geo"},
            {tuple(row["parents"]): json.loads(row["operation"])["found"] for row in found[2]},
        )

    mine, other = ran(tmp_path / "local", local), ran(tmp_path / "ray", ray_executor(workers=2))
    assert [sorted(one) for one in mine] == [sorted(one) for one in other] and len(mine[1]) == 6
    for name, row in mine[0].items():
        np.testing.assert_allclose(row["vector"], other[0][name]["vector"], rtol=0, atol=1e-3)
        assert row["sigma"] == pytest.approx(other[0][name]["sigma"], rel=1e-3)
    for key in (("geo", "converged"), ("geo", "energy"), ("geo", "straight_energy"), ("geo", "energy_kept")):
        assert mine[1][key]["value"] == pytest.approx(other[1][key]["value"], rel=1e-2), key
        assert (mine[1][key]["n"], mine[1][key]["status"]) == (4, "ok")
    for pair, found in mine[2].items():
        assert found["converged"] and found["energy"] == pytest.approx(other[2][pair]["energy"], rel=1e-2), pair
