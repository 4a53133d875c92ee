"""Every measuring step on both executors: the numbers do not depend on who runs them, on commits, batches or workers.

The codec is the exact one, so what is measured agrees to the rounding of sums taken in another order.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from pipeline.executors.base import Executor
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.job import parse_job
from tests.jobs import job_data, make_images, rows_of

pytestmark = pytest.mark.slow

COUNT = 120
MEASURING = {"pca", "disentanglement", "evaluate", "fidelity", "project"}
STEPS: list[dict[str, Any]] = [
    {"stage": "encode", "batch_size": 16},
    {"stage": "fit", "attributes": ["bright", "round"], "estimator": "mean_difference", "bootstrap": 50, "group": "id:/"},
    {"stage": "fit", "name": "ridge", "attributes": ["shade"], "estimator": "ridge"},
    {"stage": "fit", "name": "lda", "attributes": ["bright"], "estimator": "lda", "pattern": True},
    {"stage": "fit", "name": "svm", "attributes": ["round"], "estimator": "svm"},
    {"stage": "components", "name": "pca", "estimator": "pca", "count": 4},
    {"stage": "disentanglement", "factors": ["bright", "round"], "scores": ["mig", "sap_continuous", "irs"], "permutations": 5},
    {"stage": "evaluate", "directions": ["bright", "round"], "slices": ["round"], "replicates": 50, "limit": 40},
    {"stage": "compose", "name": "apart", "directions": ["bright", "round"], "method": "lowdin"},
    {"stage": "traverse", "directions": ["apart.bright"], "strengths": [0, 2], "limit": 20},
    {"stage": "fidelity", "neighbours": 3, "path_pairs": 0},
    {"stage": "project", "methods": ["pca"]},
    {"stage": "compact", "keep_versions": 1, "keep_hours": 0},
    {"stage": "report", "to": "REPORT", "rows": 1},
]  # fmt: skip


ENCODE = {"stage": "encode", "batch_size": 16, "store_logvar": True}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images"), COUNT)


def run(images: Path, out: Path, executor: Executor, **encode: Any) -> Store:
    steps = [{**STEPS[0], **encode}, *STEPS[1:-1], {**STEPS[-1], "to": str(out / "report.html")}]
    job = parse_job(job_data(images, out / "store", steps=steps))
    result = run_job(job, report=lambda event: None, executor=executor)
    assert result.steps["project"]["rows"] == COUNT and result.steps["fidelity"]["left_out"] == 0
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
    """Directions, measurements, computed columns and pages of two stores."""
    mine, other = (rows(s, "directions", ("key",)) for s in (a, b))
    assert mine.keys() == other.keys() and len(mine) == 11
    for key, row in mine.items():
        assert row["status"] == other[key]["status"] == "ok", row
        np.testing.assert_allclose(row["vector"], other[key]["vector"], rtol=0, atol=1e-8, err_msg=str(key))
    mine, other = (rows(s, "measurements", ("step", "metric", "subject", "target")) for s in (a, b))
    assert mine.keys() == other.keys() and {key[0] for key in mine} >= MEASURING
    for key, row in mine.items():
        assert (row["status"], row["n"]) == (other[key]["status"], other[key]["n"]), key
        numbers = [[r[name] for name in ("value", "low", "high")] for r in (row, other[key])]
        assert [n is None for n in numbers[0]] == [n is None for n in numbers[1]], key
        known = [[n for n in some if n is not None] for some in numbers]
        assert np.isfinite(known[0]).all(), (key, row)
        np.testing.assert_allclose(*known, rtol=1e-6, atol=1e-9, err_msg=str(key))
    placed = [latents(s) for s in (a, b)]
    assert placed[0]["id"].to_pylist() == placed[1]["id"].to_pylist()
    for name in ("latent", "project_pca_1", "project_pca_2"):
        columns = [np.array(table[name].to_pylist()) for table in placed]
        np.testing.assert_allclose(*columns, rtol=0, atol=0 if name == "latent" else 1e-6, err_msg=name)
    pages = [(Path(s.uri).parent / "report.html").read_text() for s in (a, b)]
    for shown in (r'<section id="[^"]+"', r"data:image/", r"<h3>[^<]*</h3>", r"<circle"):
        found = [re.findall(shown, page) for page in pages]
        assert found[0] == found[1] and found[0], shown


def latents(store: Store) -> pa.Table:
    """Every row, in one fragment after the compact step, by id."""
    entry = store.current("shapes")
    assert entry is not None
    table = store.table(entry.table)
    assert len(lance.dataset(f"{store.uri}/{entry.table}.lance").get_fragments()) == 1
    return pa.Table.from_batches(table.scan(version=entry.version)).sort_by("id")


def rows(store: Store, table: str, key: tuple[str, ...]) -> dict[tuple[Any, ...], dict[str, Any]]:
    found = [row for batch in getattr(store, table)().scan() for row in batch.to_pylist()]
    return {tuple(row[k] for k in key): row for row in found}


def test_a_float_codec_trained_and_encoded(
    images: Path, local: Executor, ray_executor: Callable[..., Executor], tmp_path: Path
) -> None:
    """Training takes the same steps to rounding; the same weights give latents that agree to 1e-5, whoever encodes."""

    def trained(name: str, executor: Executor) -> list[float]:
        train = {"stage": "train", "variant": "vae", "latent_dim": 4, "channels": [8], "steps": 4, "batch_size": 8}
        run_job(parse_job(job(name, name, [train, ENCODE])), report=lambda event: None, executor=executor)
        return [point["loss"] for point in json.loads((tmp_path / name / "history.json").read_text())]

    def job(weights: str, store: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
        codec = {"family": "conv_vae", "weights": str(tmp_path / weights), "preprocess": {"size": 16}}
        return job_data(images, tmp_path / f"store-{store}", codec=codec, steps=steps)

    losses = trained("local", local)
    assert trained("ray", ray_executor(workers=1)) == pytest.approx(losses, rel=1e-4) and len(losses) == 4
    run_job(parse_job(job("ray", "again", [{**ENCODE, "batch_size": 5}])), report=lambda event: None, executor=local)
    tables = [rows_of(tmp_path / f"store-{name}") for name in ("ray", "again")]
    assert tables[0]["id"].to_pylist() == tables[1]["id"].to_pylist() and tables[0].num_rows == COUNT
    for name in ("latent", "logvar"):
        numbers = [np.array(table[name].to_pylist(), np.float64) for table in tables]
        assert np.abs(numbers[0]).max() > 1e-3
        np.testing.assert_allclose(*numbers, rtol=0, atol=1e-5, err_msg=name)
