"""The components step in a job: stored by name, used by traverse, checked while planning, told in the report."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load

from pipeline.plan import make_plan
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.job import parse_job
from tests.codec_cases import network, weights_of
from tests.jobs import job_data, make_images, rows_of

PCA: list[dict[str, Any]] = [{"stage": "encode"}, {"stage": "components", "name": "pca", "count": 3}]


def job_of(folder: Path, steps: list[dict[str, Any]], **changes: Any) -> Any:
    return parse_job(job_data(folder, folder / "store", steps=steps, **changes))


def stored(folder: Path) -> dict[str, dict[str, Any]]:
    table = Store.open(str(folder / "store")).directions()
    return {row["name"]: row for batch in table.scan() for row in batch.to_pylist()}


def test_components_are_stored_and_traversed_by_name(tmp_path: Path) -> None:
    make_images(tmp_path, 40)
    walk = {"stage": "traverse", "directions": ["pca.0", "pca.2"], "strengths": [-2, 0, 2], "limit": 2}
    steps = [*PCA, walk, {"stage": "render", "to": str(tmp_path / "out")}]
    steps.append({"stage": "report", "to": str(tmp_path / "report.html")})
    result = run_job(job_of(tmp_path, steps), report=lambda event: None)
    assert result.steps["pca"]["directions"] == 3
    assert result.steps["render"]["written"] == 2 * 2 * 3
    latents = np.array(rows_of(tmp_path / "store")["latent"].to_pylist(), np.float64)
    values, axes = np.linalg.eigh(np.cov(latents.T))
    found = stored(tmp_path)
    assert sorted(found) == ["pca.0", "pca.1", "pca.2"]
    for i, axis in enumerate(axes.T[::-1][:3]):
        row = found[f"pca.{i}"]
        assert abs(np.dot(row["vector"], axis)) == pytest.approx(1, abs=1e-10)
        assert row["sigma"] ** 2 == pytest.approx(values[::-1][i], rel=1e-10)
        assert (row["estimator"], row["status"], row["n"]) == ("pca", "ok", 40)
    page = (tmp_path / "report.html").read_text()
    assert "Variance of the rows along each component" in page and "pca.2" in page
    assert "held-out AUC" not in page  # no labels, no evidence on labels


def test_fewer_components_leave_no_older_ones(tmp_path: Path) -> None:
    """Of the step's own name; those of others, and a fitted direction that looks like one, stay."""
    make_images(tmp_path, 20)
    fit = {"stage": "fit", "name": "pca", "attributes": ["9"]}
    other = {"stage": "components", "name": "pca.x", "count": 4}
    labels = tmp_path / "labels.csv"
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([f"{lines[0]},9", *(f"{line},{n % 2}" for n, line in enumerate(lines[1:]))]))
    run_job(job_of(tmp_path, [*PCA, other]), report=lambda event: None)
    run_job(job_of(tmp_path, [{"stage": "encode"}, fit]), report=lambda event: None)
    assert {"pca.0", "pca.1", "pca.2", "pca.9", "pca.x.3"} <= set(stored(tmp_path))
    fewer = {"stage": "components", "name": "pca", "count": 2, "estimator": "whitening"}
    result = run_job(job_of(tmp_path, [{"stage": "encode"}, fewer]), report=lambda event: None)
    assert result.steps["pca"]["notices"] == ["pca: 1 components of an earlier run that found more are taken out"]
    found = stored(tmp_path)
    assert sorted(found) == ["pca.0", "pca.1", "pca.9", *(f"pca.x.{i}" for i in range(4))]
    assert found["pca.9"]["estimator"] != "whitening" and found["pca.1"]["estimator"] == "whitening"
    again = run_job(job_of(tmp_path, [{"stage": "encode"}, fewer]), report=lambda event: None)
    assert "notices" not in again.steps["pca"] or not again.steps["pca"]["notices"]


def test_where_limit_and_rank_beyond_the_rows(tmp_path: Path) -> None:
    make_images(tmp_path, 20)
    step = {"stage": "components", "name": "few", "limit": 3, "count": 5}
    result = run_job(job_of(tmp_path, [*PCA, step]), report=lambda event: None)
    assert result.steps["few"] | {"seconds": 0} == {
        "stage": "components", "seconds": 0, "directions": 2, "rows": 3,
        "odd": {f"few.{i}": "no_variance" for i in (2, 3, 4)}, "notices": ["few: 3 of 5 components: no_variance"],
    }  # fmt: skip
    walk = {"stage": "traverse", "directions": ["few.4"]}
    with pytest.raises(JobError, match="no_variance"):
        run_job(job_of(tmp_path, [*PCA, step, walk]), report=lambda event: None)


def problems(folder: Path, *steps: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(JobError) as caught:
        make_plan(job_of(folder, [{"stage": "encode"}, *steps], **changes))
    return str(caught.value)


def test_plans_know_what_a_step_will_store(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    make_plan(job_of(tmp_path, [*PCA, {"stage": "traverse", "directions": ["pca.2"]}]))
    told = problems(tmp_path, PCA[1], {"stage": "traverse", "directions": ["pca.3"]})
    assert "no such direction" in told and "pca." in told
    # Eight numbers a latent: the ninth component does not exist.
    told = problems(
        tmp_path,
        {"stage": "components", "name": "pca", "count": 20},
        {"stage": "traverse", "directions": ["pca.8"]},
    )
    assert "no such direction" in told


def test_plans_refuse_what_cannot_be_found(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    assert "no weights to factorise" in problems(tmp_path, {"stage": "components", "estimator": "sefa"})
    wide = {"family": "linear", "dim": 5000, "preprocess": {"size": 64}}
    told = problems(tmp_path, {"stage": "components", "count": 600}, codec=wide)
    assert "use at most 512" in told
    with pytest.raises(JobError, match="no such choice"):
        job_of(tmp_path, [{"stage": "components", "weights": "stem.weight"}])


def test_a_network_is_opened_in_workers_and_watched(tmp_path: Path) -> None:
    make_images(tmp_path, 12)
    codec = network(tmp_path)
    steps: list[dict[str, Any]] = [{"stage": "encode"}]
    steps += [
        {"stage": "components", "name": name, "estimator": name, "count": 2}
        for name in ("sefa", "ganspace", "jacobian")
    ]
    names = ["sefa.0", "ganspace.1", "jacobian.0"]
    steps.append({"stage": "traverse", "directions": names, "strengths": [0, 1], "limit": 1})
    steps.append({"stage": "report", "to": str(tmp_path / "report.html")})
    run_job(job_of(tmp_path, steps, codec=codec), report=lambda event: None)
    found = stored(tmp_path)
    assert {name: found[name]["status"] for name in names} == dict.fromkeys(names, "ok")
    # The stem is linear, so moving along its strongest direction is what its weights respond to most, of all directions.
    stem = load(weights_of().tensors)["stem.weight"].double().numpy()
    unit = stem / np.linalg.norm(stem, axis=1, keepdims=True)
    assert np.linalg.norm(unit @ found["sefa.0"]["vector"]) == pytest.approx(np.linalg.norm(unit, 2), rel=1e-6)
    page = (tmp_path / "report.html").read_text()
    for words in ("first weights respond", "layer&#x27;s activations", "decoded picture changes"):
        assert words in page, words


def test_plans_open_the_codec_to_find_the_layer(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    step = {"stage": "components", "estimator": "ganspace", "layer": "decoder.9"}
    assert "no such layer" in problems(tmp_path, step, codec=network(tmp_path))
    assert "shows no layers" in problems(tmp_path, {"stage": "components", "estimator": "ganspace"})
