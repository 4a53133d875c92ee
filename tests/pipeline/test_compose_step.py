"""The compose step in a job: three ways, stored by name, used by traverse, refused with the names where rank is missing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.plan import make_plan
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.job import parse_job
from tests.jobs import job_data, make_images, rows_of

FIT: list[dict[str, Any]] = [
    {"stage": "encode"},
    {"stage": "fit", "attributes": ["bright", "round"], "estimator": "mean_difference", "holdout": 0},
    {"stage": "components", "name": "pca", "count": 2},
]
ALL = ["bright", "round", "pca.0"]


def ran(folder: Path, *steps: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    job = parse_job(job_data(folder, folder / "store", steps=[*FIT, *steps]))
    result = run_job(job, report=lambda event: None)
    table = Store.open(str(folder / "store")).directions()
    return result.steps, {row["name"]: row for batch in table.scan() for row in batch.to_pylist()}


def vectors(rows: dict[str, dict[str, Any]], *names: str) -> np.ndarray:
    return np.array([rows[name]["vector"] for name in names])


def test_three_ways_to_compose(tmp_path: Path) -> None:
    make_images(tmp_path, 40)
    steps, rows = ran(
        tmp_path,
        {"stage": "compose", "name": "free", "directions": ["bright"], "method": "projection", "against": ALL[1:]},
        {"stage": "compose", "name": "sym", "directions": ALL, "method": "lowdin"},
        {"stage": "compose", "name": "dual", "directions": ALL, "method": "dual_basis"},
        {"stage": "traverse", "directions": ["dual.bright"], "strengths": [-1, 1], "limit": 2},
        {"stage": "render", "to": str(tmp_path / "out")},
        {"stage": "report", "to": str(tmp_path / "report.html")},
    )
    assert steps["sym"]["directions"] == 3 and steps["render"]["written"] == 4
    old = vectors(rows, *ALL)
    assert np.abs(vectors(rows, "free.bright") @ old[1:].T).max() < 1e-12
    sym = vectors(rows, *(f"sym.{n}" for n in ALL))
    np.testing.assert_allclose(sym @ sym.T, np.eye(3), atol=1e-12)
    dual = vectors(rows, *(f"dual.{n}" for n in ALL))
    steps_of_one = dual * np.array([[rows[f"dual.{n}"]["raw_norm"]] for n in ALL])
    np.testing.assert_allclose(steps_of_one @ old.T, np.eye(3), atol=1e-10)
    latents = np.array(rows_of(tmp_path / "store")["latent"].to_pylist(), np.float64)
    for name in ("free.bright", "sym.round", "dual.pca.0"):
        row = rows[name]
        assert row["sigma"] == pytest.approx((latents @ row["vector"]).std(ddof=1), rel=1e-9)
        np.testing.assert_allclose(row["mean"], latents.mean(0), atol=1e-9)
    row = rows["dual.bright"]
    assert (row["estimator"], row["attribute"], row["attributes"], row["n"]) == (
        "compose:dual_basis",
        "bright",
        ALL,
        40,
    )
    assert np.isfinite(row["intercept"])
    assert "compose" in (tmp_path / "report.html").read_text()


def test_intercepts_combine_as_the_directions_do(tmp_path: Path) -> None:
    make_images(tmp_path, 40)
    _, rows = ran(tmp_path, {"stage": "compose", "directions": ALL[:2], "method": "lowdin"})
    latents = np.array(rows_of(tmp_path / "store")["latent"].to_pylist(), np.float64)
    scores = [
        latents @ rows[n]["vector"] + rows[n]["intercept"] / rows[n]["raw_norm"]
        for n in ("bright", "round", "compose.bright", "compose.round")
    ]
    # The new scores are combinations of the old ones, constants and all.
    mix, *_ = np.linalg.lstsq(np.column_stack(scores[:2]), np.column_stack(scores[2:]), rcond=None)
    np.testing.assert_allclose(np.column_stack(scores[:2]) @ mix, np.column_stack(scores[2:]), atol=1e-8)


def test_dependent_directions_end_in_a_status_that_names_them(tmp_path: Path) -> None:
    make_images(tmp_path, 40)
    again = {"stage": "fit", "name": "again", "attributes": ["bright"], "estimator": "mean_difference", "holdout": 0}
    sets = {"directions": ["bright", "round", "again.bright"]}
    steps, rows = ran(
        tmp_path,
        again,
        {"stage": "compose", "name": "dual", "method": "dual_basis", **sets},
        {"stage": "compose", "name": "sym", "method": "lowdin", **sets},
        {"stage": "compose", "name": "free", "method": "projection", **sets},
    )
    for name in ("dual.round", "sym.bright", "dual.again.bright", "free.round"):
        assert (rows[name]["status"], rows[name]["vector"], rows[name]["sigma"]) == ("collinear", None, None)
        assert rows[name]["message"].startswith("bright, again.bright depend on one another")
    assert rows["free.bright"]["message"].startswith("bright, again.bright depend")
    assert steps["dual"]["directions"] == 0 and set(steps["free"]["odd"].values()) == {"collinear"}
    walk = {"stage": "traverse", "directions": ["dual.round"]}
    with pytest.raises(JobError, match="collinear"):
        ran(tmp_path, again, {"stage": "compose", "name": "dual", "method": "dual_basis", **sets}, walk)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"directions": ["bright"], "method": "lowdin"}, "nothing to compose with"),
        ({"directions": ["bright", "bright"], "method": "lowdin"}, "named twice"),
        (
            {"directions": ["bright", "round"], "against": ["pca.0"], "method": "dual_basis"},
            "treats all its directions",
        ),
        ({"directions": ["brigth", "round"], "method": "lowdin"}, "did you mean `bright`"),
        ({"directions": ["bright", "round"], "method": "gram"}, "lowdin"),
    ],
)
def test_impossible_sets_are_refused_while_planning(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    make_images(tmp_path, 4)
    with pytest.raises(JobError, match=said):
        make_plan(parse_job(job_data(tmp_path, tmp_path / "store", steps=[*FIT, {"stage": "compose", **fields}])))


def test_plans_know_the_new_names(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    steps = [
        *FIT,
        {"stage": "compose", "name": "sym", "directions": ALL, "method": "lowdin"},
        {"stage": "traverse", "directions": ["sym.pca.0"]},
    ]
    make_plan(parse_job(job_data(tmp_path, tmp_path / "store", steps=steps)))


def test_a_filter_that_leaves_no_row_ends_in_a_status(tmp_path: Path) -> None:
    make_images(tmp_path, 20)
    nobody = {"where": "width > 9999"}
    estimators = [
        "mean_difference",
        "balanced_mean_difference",
        "class_means",
        "ols",
        "ridge",
        "lda",
        "logistic",
        "svm",
    ]
    fits = [
        {"stage": "fit", "name": e, "attributes": ["bright", "round"], "estimator": e, **nobody} for e in estimators
    ]
    steps, rows = ran(
        tmp_path, *fits, {"stage": "compose", "directions": ["bright", "round"], "method": "lowdin", **nobody}
    )
    for name in (*estimators, "compose"):
        row = rows[f"{name}.bright"]
        assert (row["status"], row["vector"], row["sigma"]) == ("no_rows", None, None), name
        assert steps[name]["directions"] == 0 and set(steps[name]["odd"].values()) == {"no_rows"}
