"""Every measuring step on both executors: the numbers do not depend on who runs them, on commits, batches or workers.

The codec is the exact one, so what is measured agrees to the rounding of sums taken in another order.
"""

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

COUNT = 120
STEPS: list[dict[str, Any]] = [
    {"stage": "encode", "batch_size": 16},
    {"stage": "fit", "attributes": ["bright", "round"], "estimator": "mean_difference", "bootstrap": 50, "group": "id:/"},
    {"stage": "fit", "name": "ridge", "attributes": ["shade"], "estimator": "ridge"},
    {"stage": "fit", "name": "lda", "attributes": ["bright"], "estimator": "lda", "pattern": True},
    {"stage": "fit", "name": "svm", "attributes": ["round"], "estimator": "svm"},
    {"stage": "components", "name": "pca", "estimator": "pca", "count": 4},
    {"stage": "disentanglement", "factors": ["bright", "round"], "scores": ["mig", "sap_continuous", "irs"], "permutations": 5},
    {"stage": "evaluate", "directions": ["bright", "round"], "slices": ["round"], "replicates": 50, "limit": 40},
]  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"), COUNT)


def run(images: Path, out: Path, executor: Executor, **encode: Any) -> Store:
    steps = [{**STEPS[0], **encode}, *STEPS[1:]]
    run_job(parse_job(job_data(images, out / "store", steps=steps)), report=lambda event: None, executor=executor)
    return Store.open(str(out / "store"))


@pytest.fixture(scope="module")
def reference(images: Path, local: Executor, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return run(images, tmp_path_factory.mktemp("reference"), local)


def test_ray_measures_what_local_measures(
    images: Path, reference: Store, ray_executor: Callable[..., Executor], tmp_path: Path
) -> None:
    same(reference, run(images, tmp_path, ray_executor(workers=2), batch_size=7))


def test_other_fragments_and_batches_measure_the_same(
    images: Path, reference: Store, local: Executor, tmp_path: Path
) -> None:
    same(reference, run(images, tmp_path, local, batch_size=5, commit_rows=23))


def same(a: Store, b: Store) -> None:
    """Directions and measurements of two stores."""
    mine, other = (rows(s, "directions", ("key",)) for s in (a, b))
    assert mine.keys() == other.keys() and len(mine) == 9
    for key, row in mine.items():
        assert row["status"] == other[key]["status"] == "ok", row
        np.testing.assert_allclose(row["vector"], other[key]["vector"], rtol=0, atol=1e-8, err_msg=str(key))
    mine, other = (rows(s, "measurements", ("step", "metric", "subject", "target")) for s in (a, b))
    assert mine.keys() == other.keys() and {key[0] for key in mine} >= {"pca", "disentanglement", "evaluate"}
    for key, row in mine.items():
        assert (row["status"], row["n"]) == (other[key]["status"], other[key]["n"]), key
        numbers = [[r[name] for name in ("value", "low", "high")] for r in (row, other[key])]
        assert [n is None for n in numbers[0]] == [n is None for n in numbers[1]], key
        known = [[n for n in some if n is not None] for some in numbers]
        assert np.isfinite(known[0]).all(), (key, row)
        np.testing.assert_allclose(*known, rtol=1e-6, atol=1e-9, err_msg=str(key))


def rows(store: Store, table: str, key: tuple[str, ...]) -> dict[tuple[Any, ...], dict[str, Any]]:
    found = [row for batch in getattr(store, table)().scan() for row in batch.to_pylist()]
    return {tuple(row[k] for k in key): row for row in found}
