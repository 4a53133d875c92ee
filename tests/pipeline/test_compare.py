"""The compare step from job to directions: a codec that is the old one turned, one that is unrelated, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.query import Query, run_query
from pipeline.run import RunResult, run_job
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.job import parse_job
from stages.codecs.basis import orthonormal_rows
from tests.jobs import job_data, make_images

OLD = {"family": "linear", "dim": 8, "preprocess": {"size": 16}}
ENCODE = [{"stage": "encode"}]
COUNT = 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("compare"), COUNT)


def turned(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """The old codec with its latent space turned: z′ = Qz. Returns its spec and Q."""
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((8, 8)))[0]
    basis = turn @ orthonormal_rows(8, 16 * 16 * 3, seed=0)
    folder.mkdir()
    save_file({"basis": basis, "mean": np.full(16 * 16 * 3, 0.5)}, folder / "model.safetensors")
    return {**OLD, "weights": str(folder)}, turn


def run(folder: Path, out: Path, steps: list[dict[str, Any]], **changes: Any) -> RunResult:
    job = parse_job(job_data(folder, out / "store", steps=steps, **changes))
    return run_job(job, report=lambda event: None)


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    store = Store.open(str(out / "store"))
    found = store.directions() if table == "directions" else store.measurements()
    return [r for b in found.scan() for r in b.to_pylist()]


@pytest.fixture
def old(folder: Path, tmp_path: Path) -> str:
    """The old codec's latents and directions are in the store; its fingerprint."""
    result = run(
        folder, tmp_path, [*ENCODE, {"stage": "fit", "attributes": ["bright", "round"], "holdout": 0}], codec=OLD
    )
    return str(result.plan.fingerprint)


def test_directions_follow_a_turned_codec(folder: Path, tmp_path: Path, old: str) -> None:
    new, turn = turned(tmp_path / "weights")
    fit = {"stage": "fit", "attributes": ["bright", "round"], "holdout": 0}
    use = {"stage": "traverse", "directions": ["ported.bright"], "limit": 3}
    result = run(folder, tmp_path, [*ENCODE, fit, {"stage": "compare", "fingerprint": old[:10]}, use], codec=new)
    assert result.steps["compare"] == {
        **result.steps["compare"],
        "rows": COUNT,
        "status": "ok",
        "ported": 2,
        "refused": 0,
        "with": old[:16],
    }
    by = {(r["metric"], r["subject"]): r for r in rows(tmp_path, "measurements")}
    assert by["row_cosine", ""]["value"] == pytest.approx(1, abs=1e-5)
    assert by["row_cosine", ""]["message"] == "each image's own: column compare_cosine"
    assert all(by[m, ""]["low"] <= by[m, ""]["high"] for m in ("cka", "latent_fid", "latent_fid_aligned"))
    assert by["cka", ""]["value"] == pytest.approx(1, abs=1e-6)
    assert by["disparity", ""]["value"] == pytest.approx(0, abs=1e-6)
    assert by["ported_agreement", "ported.bright"]["value"] == pytest.approx(1, abs=1e-6)
    stored = {(r["name"], r["fingerprint"]): r for r in rows(tmp_path, "directions")}
    here = str(result.plan.fingerprint)
    ported = stored["ported.bright", here]
    np.testing.assert_allclose(ported["vector"], turn @ stored["bright", old]["vector"], atol=1e-5)
    # Fitted anew on the new codec's latents, it is the same direction, score and spread.
    for field in ("vector", "raw_norm", "intercept", "sigma", "mean"):
        np.testing.assert_allclose(ported[field], stored["bright", here][field], atol=1e-4)
    assert (ported["estimator"], ported["attribute"], ported["status"]) == ("ported", "bright", "ok")


def test_an_unrelated_codec_gets_nothing(folder: Path, tmp_path: Path, old: str) -> None:
    codec = {"family": "custom", "entry": "tests.codec_cases:NoiseCodec", "preprocess": {"size": 16}}
    step = {"stage": "compare", "name": "drift", "codec": OLD, "directions": ["bright"]}
    result = run(folder, tmp_path, [*ENCODE, step], codec=codec, allow_code=True)
    assert (result.steps["drift"]["status"], result.steps["drift"]["ported"]) == ("refused", 0)
    (stored,) = [r for r in rows(tmp_path, "directions") if r["name"] == "drift.bright"]
    assert (stored["status"], stored["vector"]) == ("refused", None)
    assert "disparity" in stored["message"]
    with pytest.raises(JobError, match="refused"):
        run(folder, tmp_path, [{"stage": "traverse", "directions": ["drift.bright"]}], codec=codec, allow_code=True)


def test_a_direction_in_what_the_new_space_has_lost_is_refused_alone(folder: Path, tmp_path: Path) -> None:
    """The new codec sees half of what the old one saw: brightness is in both, the faintest component of the old one is not."""
    components = {"stage": "components", "name": "pca", "count": 8}
    run(folder, tmp_path, [*ENCODE, {"stage": "fit", "attributes": ["bright"]}, components], codec=OLD)
    basis = orthonormal_rows(8, 16 * 16 * 3, seed=0)
    other = np.random.default_rng(2).standard_normal((4, 16 * 16 * 3))
    other = np.linalg.qr((other - other @ basis.T @ basis).T)[0].T
    new = np.vstack([basis[:4], other])
    (tmp_path / "half").mkdir()
    save_file({"basis": new, "mean": np.full(16 * 16 * 3, 0.5)}, tmp_path / "half" / "model.safetensors")
    step = {"stage": "compare", "codec": OLD, "directions": ["bright", "pca.7"], "max_disparity": 0.95}
    result = run(folder, tmp_path, [*ENCODE, step], codec={**OLD, "weights": str(tmp_path / "half")})
    assert result.steps["compare"]["ported"] == 1
    stored = {r["name"]: r for r in rows(tmp_path, "directions")}
    assert stored["ported.bright"]["status"] == "ok"
    faint = stored["ported.pca.7"]
    assert (faint["status"], faint["vector"]) == ("refused", None) and "no more than by chance" in faint["message"]


def test_only_images_that_both_have_are_compared(folder: Path, tmp_path: Path, old: str) -> None:
    new, _ = turned(tmp_path / "weights")
    half = {"source": {"images": f"{folder}/images/[0-3]/*.png", "labels": f"{folder}/labels.csv"}}
    result = run(
        folder, tmp_path, [*ENCODE, {"stage": "compare", "fingerprint": old, "holdout": 0.3}], codec=new, **half
    )
    assert 60 < result.steps["compare"]["rows"] == result.steps["encode"]["in_latents"] < COUNT


def cosines(out: Path, old: str, fingerprint: str, column: str) -> tuple[dict[str, float | None], dict[str, float]]:
    """The stored column of the present codec, and each image's cosine by NumPy after the rotation of all rows."""
    store = Store.open(str(out / "store"))
    mine, other = (
        {r["id"]: r for b in store.latents("shapes", f).scan() for r in b.to_pylist()} for f in (fingerprint, old)
    )
    both = sorted(mine.keys() & other.keys())
    x, y = (np.array([rows[i]["latent"] for i in both], np.float64) for rows in (mine, other))
    x, y = x - x.mean(0), y - y.mean(0)
    left, _, right = np.linalg.svd(y.T @ x)
    y = y @ left @ right
    found = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    return {i: row[column] for i, row in mine.items()}, dict(zip(both, found.tolist(), strict=True))


def test_each_image_s_cosine_is_a_column(folder: Path, tmp_path: Path, old: str) -> None:
    """Of images that both codecs know; the others have none. Written again it is replaced, and readers can order by it."""
    noisy = {**OLD, "dim": 8, "seed": 3}  # other axes of the same pictures: alike, and not the same
    compare: dict[str, Any] = {"stage": "compare", "fingerprint": old, "holdout": 0.05}
    result = run(folder, tmp_path, [*ENCODE, compare], codec=noisy)
    assert result.steps["compare"]["columns"] == ["compare_cosine"]
    stored, expected = cosines(tmp_path, old, str(result.plan.fingerprint), "compare_cosine")
    assert stored.keys() == expected.keys() and None not in stored.values()
    # The alignment is that of the 95 % of the rows which are not held out.
    assert np.corrcoef([stored[i] for i in expected], list(expected.values()))[0, 1] > 0.99
    assert [stored[i] for i in expected] == pytest.approx(list(expected.values()), abs=0.15)
    listed = run_query(Query(str(tmp_path / "store"), {}, None, where="compare_cosine < 2", order="compare_cosine"))
    assert listed.rows[0]["compare_cosine"] == pytest.approx(min(stored.values()), abs=1e-6)
    for holdout, expected_rows in ((0.2, 75), (0.02, 0)):  # of 75, so few are held out that nothing is aligned
        some = {**compare, "where": "labels.bright = true", "holdout": holdout}
        found = run(folder, tmp_path, [some], codec=noisy).steps["compare"]
        stored, _ = cosines(tmp_path, old, str(result.plan.fingerprint), "compare_cosine")
        held = sum(v is not None for v in stored.values())
        assert (found["rows"], held) == (75, expected_rows), "what was not compared holds no older value"


def test_a_turned_codec_s_cosines_are_one(folder: Path, tmp_path: Path, old: str) -> None:
    new, _ = turned(tmp_path / "weights")
    drift = {"stage": "compare", "name": "drift", "fingerprint": old}
    listed = {"stage": "project", "methods": ["pca"], "where": "drift_cosine > 0.9"}
    result = run(folder, tmp_path, [*ENCODE, drift, listed], codec=new)
    stored, expected = cosines(tmp_path, old, str(result.plan.fingerprint), "drift_cosine")
    assert list(stored.values()) == pytest.approx([1.0] * COUNT, abs=1e-5) and len(expected) == COUNT
    assert result.steps["project"]["rows"] == COUNT, "a step below may filter by it"


@pytest.mark.parametrize(
    ("step", "field", "reason"),
    [
        ({"fingerprint": "0123"}, "fingerprint", "no latents"),
        ({}, "fingerprint", "named once"),
        ({"codec": {**OLD, "dim": 5}}, "codec", "no latents"),
        ({"codec": OLD, "directions": ["brihgt"]}, "directions", "no such direction"),
        ({"codec": {**OLD, "dim": 6}}, "codec", "own codec"),
        ({"codec": OLD, "where": "width > 9999"}, "where", "no row is left"),
    ],
)
def test_bad_jobs_name_field_and_fix(
    folder: Path, tmp_path: Path, old: str, step: dict[str, Any], field: str, reason: str
) -> None:
    here = {**OLD, "dim": 6}
    run(folder, tmp_path, ENCODE, codec=here)
    with pytest.raises(JobError) as caught:
        run(folder, tmp_path, [{"stage": "compare", **step}], codec=here)
    (problem,) = caught.value.problems
    assert field in problem.field
    assert reason in problem.reason
