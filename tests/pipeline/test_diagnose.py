"""The diagnose step end to end: numbers in the measurements table, scores as columns, readers served at once."""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import lance
import numpy as np
import pytest

from pipeline.executors.local import LocalExecutor
from pipeline.query import Query, run_query
from pipeline.readers import list_measurements
from pipeline.run import RunResult, run_job
from pipeline.store.store import Store
from schemas.errors import JobError, StoreError
from schemas.events import Event
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job
from tests.jobs import image_id, job_data, make_images, rows_of

CODEC = {
    "family": "custom",
    "entry": "tests.diagnosed_codec:DiagnosedCodec",
    "options": {"dim": 9},
    "preprocess": {"size": 12},
}
DIAGNOSE = {"stage": "diagnose", "decodes": 128, "sample": 100}


def run(folder: Path, *steps: dict[str, Any], **changes: Any) -> RunResult:
    data = job_data(folder, folder / "store", steps=list(steps), codec=CODEC, allow_code=True) | changes
    return run_job(parse_job(data), report=lambda event: None, executor=LocalExecutor(LocalSpec()))


def write_blocks(folder: Path, count: int, *, two_kinds: bool = False) -> np.ndarray:
    """Pictures of 9 blocks whose brightness is normal, or of a dark and a bright kind; image 7 is at the edge everywhere.

    Returns the factors (count, 9).
    """
    factors = np.random.default_rng(0).normal(size=(count, 9)).clip(-2.9, 2.9)
    if two_kinds:
        factors = np.where(factors[:, :1] > 0, 1.0, -1.0) + 0.2 * factors
    factors[7] = np.where(np.arange(9) % 2, 2.9, -2.9)
    for n, row in enumerate(factors):
        grey = np.round((row + 3) / 6 * 255).astype(np.uint8).reshape(3, 3)
        path = folder / "images" / image_id(n)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.kron(grey, np.ones((4, 4), np.uint8))[..., None].repeat(3, 2))
    with (folder / "labels.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "even"])
        out.writerows([image_id(n), str(n % 2 == 0).lower()] for n in range(count))
    return factors


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("diagnose")
    write_blocks(folder, 150)
    steps = [
        {"stage": "encode", "commit_rows": 40},
        DIAGNOSE | {"scores": ["typicality", "mahalanobis", "reconstruction"]},
    ]
    return folder, run(folder, *steps)


def test_the_numbers_are_stored_and_listed(done: tuple[Path, RunResult]) -> None:
    folder, result = done
    found = {m["metric"]: m for m in list_measurements(str(folder / "store"), {}, None, where=None)}
    assert found["rows"]["value"] == 150 and found["active_units"]["value"] == 9
    assert found["collapsed_dimensions"]["value"] == 0
    assert [name for name, m in found.items() if m["status"] != "ok"] == []
    counts = result.steps["diagnose"]
    assert counts["measurements"] == len(list_measurements(str(folder / "store"), {}, None, where=None))
    assert counts["columns"] == ["typicality", "mahalanobis", "anomaly", "reconstruction_error"]


def test_the_emptiest_draws_are_held_against_every_image(done: tuple[Path, RunResult]) -> None:
    folder, _ = done
    found = list_measurements(str(folder / "store"), {}, None, where="metric = 'hole_depth'")
    assert len(found) == 1 and found[0]["low"] <= found[0]["value"] <= found[0]["high"] and found[0]["value"] > 1


def test_every_image_has_its_scores_and_the_odd_one_leads(done: tuple[Path, RunResult]) -> None:
    folder, _ = done
    rows = rows_of(folder / "store").to_pylist()
    z = np.array([r["latent"] for r in rows], np.float64)
    typical = (np.square(z).sum(1) - 9) / np.sqrt(18)
    assert [r["typicality"] for r in rows] == pytest.approx(typical.tolist(), abs=1e-5)
    expected = []
    for i in range(len(z)):
        rest = np.delete(z, i, axis=0)
        away, n = z[i] - rest.mean(0), len(rest)
        # As if the row were not in the estimate, over the mean of that for a Gaussian.
        expected.append(away @ np.linalg.inv(np.cov(rest.T)) @ away * n * (n - 9 - 2) / ((n - 1) * (n + 1)))
    assert [r["mahalanobis"] for r in rows] == pytest.approx(expected, rel=1e-4)
    assert all(r["reconstruction_error"] < 1.5 for r in rows), "this codec brings pictures back to a grey level"
    found = run_query(Query(str(folder / "store"), {}, None, where="anomaly > 3", order="-anomaly")).rows
    assert found and found[0]["id"] == image_id(7) and found[0]["anomaly"] > 10


def test_again_replaces_and_new_images_wait(done: tuple[Path, RunResult], tmp_path: Path) -> None:
    write_blocks(tmp_path, 60)
    run(tmp_path, {"stage": "encode"}, DIAGNOSE)
    before = {r["id"]: r["anomaly"] for r in rows_of(tmp_path / "store").to_pylist()}
    assert None not in before.values() and "reconstruction_error" not in rows_of(tmp_path / "store").column_names
    write_blocks(tmp_path, 80)
    run(tmp_path, {"stage": "encode"})
    waiting = {r["id"]: r["anomaly"] for r in rows_of(tmp_path / "store").to_pylist()}
    assert {i for i, a in waiting.items() if a is None} == {image_id(n) for n in range(60, 80)}
    assert {i: a for i, a in waiting.items() if a is not None} == before
    run(tmp_path, DIAGNOSE)
    after = {r["id"]: r["anomaly"] for r in rows_of(tmp_path / "store").to_pylist()}
    assert None not in after.values() and len(after) == 80


def test_reconstruction_errors_of_rows_that_moved_meanwhile_are_not_lost_in_silence(tmp_path: Path) -> None:
    write_blocks(tmp_path, 60)
    run(tmp_path, {"stage": "encode", "batch_size": 4, "commit_rows": 8})
    step = DIAGNOSE | {"scores": ["reconstruction"]}
    data = job_data(tmp_path, tmp_path / "store", steps=[step], codec=CODEC, allow_code=True)
    seen: list[int] = []

    def compact(event: Event) -> None:
        # The first tells of the scan; the second comes while errors arrive, after the rows' addresses were read.
        if event.event == "progress":
            seen.append(event.computed)
            if len(seen) == 2:
                lance.dataset(str(next((tmp_path / "store").glob("*.latents.*.lance")))).optimize.compact_files()

    with pytest.raises(StoreError, match="changed while columns were computed"):
        run_job(parse_job(data), report=compact, executor=LocalExecutor(LocalSpec()))
    assert len(seen) > 1 and "reconstruction_error" not in rows_of(tmp_path / "store").column_names
    run(tmp_path, step)
    assert None not in [r["reconstruction_error"] for r in rows_of(tmp_path / "store").to_pylist()]


def test_statistics_follow_the_selection_and_scores_are_for_all(tmp_path: Path) -> None:
    write_blocks(tmp_path, 80)
    result = run(tmp_path, {"stage": "encode"}, DIAGNOSE | {"where": "labels.even = true"})
    assert result.steps["diagnose"]["rows"] == 40
    assert None not in [r["anomaly"] for r in rows_of(tmp_path / "store").to_pylist()]


def test_readers_see_the_scores_with_the_run_s_version(done: tuple[Path, RunResult]) -> None:
    folder, _ = done
    store = Store.open(str(folder / "store"))
    entry = store.current("shapes")
    assert entry is not None and entry.version == store.table(entry.table).version
    assert "anomaly" in store.table(entry.table).computed_at(entry.version)


def test_a_codec_that_only_encodes_is_not_asked(tmp_path: Path) -> None:
    make_images(tmp_path, 40)
    slow = CODEC | {"entry": "tests.slow_codec:SlowCodec", "options": {"seconds": 0}}
    result = run(tmp_path, {"stage": "encode"}, DIAGNOSE, codec=slow)
    found = {m["metric"]: m for m in list_measurements(str(tmp_path / "store"), {}, None, where=None)}
    assert found["collapsed_dimensions"]["status"] == "not_measured"
    assert found["prior_match"]["status"] == "no_prior" and result.steps["diagnose"]["columns"]


def test_no_columns_when_none_are_asked_for_and_no_rows_is_an_error(tmp_path: Path) -> None:
    write_blocks(tmp_path, 30)
    run(tmp_path, {"stage": "encode"}, DIAGNOSE | {"scores": []})
    assert "anomaly" not in rows_of(tmp_path / "store").column_names
    with pytest.raises(JobError, match="no row is left"):
        run(tmp_path, DIAGNOSE | {"where": "width > 9999"})


def test_details_are_json_that_a_page_can_draw(done: tuple[Path, RunResult]) -> None:
    folder, _ = done
    table = Store.open(str(folder / "store")).measurements()
    details = {
        r["metric"]: json.loads(r["detail"])
        for b in table.scan(["metric", "detail"])
        for r in b.to_pylist()
        if r["detail"]
    }
    histogram = details["norm"]
    assert sum(histogram["rows"]) == 150 and len(histogram["edges"]) == len(histogram["rows"]) + 1
    assert sum(histogram["expected"]) == pytest.approx(150, abs=1)
    assert len(details["ks_greatest"]["per_dimension"]) == 9 and len(details["hole_cells"]["draws"]) == 8


@pytest.mark.parametrize("holed", [False, True])
def test_an_index_holds_draws_against_every_image(tmp_path: Path, holed: bool) -> None:
    """Two kinds of pictures leave the space between them and around them empty: one number says so."""
    write_blocks(tmp_path, 400, two_kinds=holed)
    step = DIAGNOSE | {"sample": 400}
    run(tmp_path, {"stage": "encode"}, {"stage": "index", "kind": "ivf_flat"}, step)
    (found,) = list_measurements(str(tmp_path / "store"), {}, None, where="metric = 'indexed_precision'")
    assert found["n"] == 256 and found["low"] < found["high"] and found["threshold"] == pytest.approx(0.475)
    assert (found["status"], found["value"] < 0.05) == (("holes", True) if holed else ("ok", False))
    assert holed or found["value"] > 0.8
