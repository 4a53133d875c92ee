"""The project step in a job: columns that can be queried, maps in the report, and bad input told before or beside."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.plan import make_plan
from pipeline.run import RunResult, run_job
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.job import parse_job
from schemas.measurements import MEASUREMENTS
from tests.jobs import job_data, make_images, rows_of


def run(folder: Path, *steps: dict[str, Any]) -> RunResult:
    job = parse_job(job_data(folder, folder / "store", steps=[{"stage": "encode"}, *steps]))
    return run_job(job, report=lambda event: None)


def told(folder: Path) -> dict[str, dict[str, Any]]:
    table = Store.open(str(folder / "store")).measurements()
    return {row["subject"]: row for batch in table.scan(MEASUREMENTS.names) for row in batch.to_pylist()}


def test_every_row_gets_its_pca_and_the_sample_its_map(tmp_path: Path) -> None:
    make_images(tmp_path, 60)
    step = {"stage": "project", "methods": ["pca", "tsne"], "by": "bright", "sample": 20, "perplexity": 5}
    result = run(tmp_path, step, {"stage": "report", "to": str(tmp_path / "report.html")})
    assert (result.steps["project"]["rows"], result.steps["project"]["sampled"]) == (60, 20)
    rows = rows_of(tmp_path / "store")
    latents = np.array(rows["latent"].to_pylist(), np.float64)
    centred = latents - latents.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
    for axis, name in enumerate(("project_pca_1", "project_pca_2")):
        mine, exact = np.array(rows[name].to_pylist()), centred @ axes[axis]
        np.testing.assert_allclose(mine * np.sign(mine @ exact), exact, atol=1e-4)
    placed = np.array([v is not None for v in rows["project_tsne_1"].to_pylist()])
    assert placed.sum() == 20
    # Half of the sample is bright, however many of all rows are.
    bright = np.array([label["bright"] for label in rows["labels"].to_pylist()])
    assert (bright[placed].sum(), (~bright[placed]).sum()) == (10, 10)
    found = told(tmp_path)
    assert set(found) == {"pca", "tsne"}
    assert all(0 < found[m]["value"] <= 1 and found[m]["n"] == 20 for m in found)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<circle") == 2 * 20 and "bright: true" in page and "trustworthiness" in page
    # Once more: the same numbers in the same columns.
    before = rows.select(["id", "project_pca_1", "project_tsne_1"])
    run(tmp_path, step)
    assert rows_of(tmp_path / "store").select(before.schema.names).equals(before)


@pytest.mark.slow
def test_umap_in_a_job(tmp_path: Path) -> None:
    make_images(tmp_path, 30)
    result = run(tmp_path, {"stage": "project", "name": "map", "methods": ["umap"]})
    assert set(result.steps["map"]["trustworthiness"]) == {"umap"}
    rows = rows_of(tmp_path / "store")
    assert rows["map_umap_2"].null_count == 0 and rows["map_pca_1"].null_count == 0


def test_a_label_that_no_row_carries_is_told(tmp_path: Path) -> None:
    make_images(tmp_path, 12)
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join([lines[0] + ",hat", *(line + "," for line in lines[1:])]))
    said = run(tmp_path, {"stage": "project", "methods": ["pca"], "by": "hat"}).steps["project"]["notices"]
    assert said == ["project: no row carries a value of `hat`; the sample is not stratified, the map has one colour"]


def test_too_few_rows_are_a_status(tmp_path: Path) -> None:
    make_images(tmp_path, 6)
    result = run(tmp_path, {"stage": "project", "methods": ["pca", "tsne"]})
    assert result.steps["project"]["status"] == "too_few"
    assert {row["status"] for row in told(tmp_path).values()} == {"too_few"}
    assert "project_pca_1" not in rows_of(tmp_path / "store").schema.names


@pytest.mark.parametrize(("by", "words"), [("brite", "no such label"), ("shade", "parts rows into no groups")])
def test_labels_are_checked_while_planning(tmp_path: Path, by: str, words: str) -> None:
    make_images(tmp_path, 4)
    data = job_data(tmp_path, tmp_path / "store", steps=[{"stage": "encode"}, {"stage": "project", "by": by}])
    with pytest.raises(JobError, match=words):
        make_plan(parse_job(data))
