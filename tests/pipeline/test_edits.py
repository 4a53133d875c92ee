"""Edits, analogies, walks and samples as steps: from the job to renders rows and the report, and what the plan refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.executors.local import LocalExecutor
from pipeline.plan import make_plan
from pipeline.run import RunResult, run_job
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job
from stages.code_sets import flow
from tests.jobs import image_id, job_data, make_images, rows_of

TRIPLES = [[image_id(0), image_id(1), image_id(2)], [image_id(3), image_id(4), image_id(5)]]
CODE_SETS: list[dict[str, Any]] = [
    {
        "stage": "edit",
        "changes": [{"direction": "bright", "strength": 2}, {"direction": "round", "strength": -1}],
        "mode": "set_projection",
        "trust": {"by": "mahalanobis", "limit": 1, "covariance": "diagonal"},
        "limit": 5,
    },
    {
        "stage": "traverse",
        "directions": ["bright"],
        "unit": "effect",
        "trust": {"by": "neighbours", "k": 3},
        "limit": 2,
    },
    {
        "stage": "traverse",
        "name": "places",
        "coordinates": [1],
        "mode": "set_coordinate",
        "unit": "quantile",
        "strengths": [0.05, 0.5, 0.95],
        "limit": 2,
    },
    {"stage": "analogy", "triples": TRIPLES},
    {"stage": "walk", "frames": 4, "limit": 3},
    {"stage": "sample", "count": 6, "truncation": [0.5, 1]},
    {"stage": "sample", "name": "mixed", "method": "gmm", "components": 2, "covariance": "diagonal", "count": 7},
    {"stage": "sample", "name": "bent", "method": "flow", "count": 5, "seed": 2, "truncation": [0.7, 1]},
]


def run(folder: Path, steps: list[dict[str, Any]]) -> RunResult:
    job = parse_job(job_data(folder, folder / "store", steps=steps))
    return run_job(job, report=lambda event: None, executor=LocalExecutor(LocalSpec()))


def renders(folder: Path) -> list[dict[str, Any]]:
    table = Store.open(str(folder / "store")).renders("shapes")
    return [r for batch in table.scan() for r in batch.to_pylist()]


def test_every_step_is_rendered_with_its_operation_unit_and_status_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "STEPS", 50)  # a short training
    make_images(tmp_path, 60)
    steps = [{"stage": "encode"}, {"stage": "fit", "attributes": ["bright", "round"]}, *CODE_SETS]
    steps += [
        {"stage": "render", "to": str(tmp_path / "out")},
        {"stage": "report", "to": str(tmp_path / "report.html")},
    ]
    counts = run(tmp_path, steps).steps
    assert (counts["edit"]["strips"], counts["edit"]["frames"]) == (5, 2)
    assert (
        counts["render"]["codes"] == 5 * 2 + 2 * 5 + 2 * 3 + 2 * 3 + 3 * 4 + 6 * 2 + 7 + 5 * 2
        and counts["render"]["failed"] == 0
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for row in renders(tmp_path):
        found.setdefault(json.loads(row["operation"])["step"], []).append(row)
        assert row["status"] == "done" and Path(row["uri"]).exists()
    assert {name: (len(rows), rows[0]["unit"]) for name, rows in found.items()} == {
        "edit": (5, "part"),
        "traverse": (2, "effect"),
        "places": (2, "quantile"),
        "analogy": (2, "t"),
        "walk": (3, "step"),
        "sample": (6, "psi"),
        "mixed": (7, "psi"),
        "bent": (5, "psi"),
    }
    assert any("clipped" in row["flags"] for row in found["edit"])
    stored = [row["latent"][1] for row in rows_of(tmp_path / "store").to_pylist()]
    assert json.loads(found["places"][0]["operation"])["values"] == np.quantile(stored, [0.05, 0.5, 0.95]).tolist()
    assert sorted(row["parents"] for row in found["analogy"]) == sorted(TRIPLES)
    assert all(row["parents"] == [] for row in found["sample"] + found["mixed"] + found["bent"])
    told = [m for b in Store.open(str(tmp_path / "store")).measurements().scan() for m in b.to_pylist()]
    assert {(m["step"], m["subject"]) for m in told if m["metric"] == "log_likelihood"} == {
        ("bent", "flow"),
        ("bent", "gaussian"),
    }
    assert all(m["n"] == 12 and m["low"] < m["value"] < m["high"] for m in told if m["step"] == "bent")
    page = (tmp_path / "report.html").read_text()
    for words in (
        "Edits and analogies",
        "Walks and samples",
        "bright +2 σ",
        "done to c",
        "Draws from a mixture",
        "a normalising flow",
        "log likelihood gain",
        "quantile .05",
        "in quantiles",
    ):
        assert words in page
    again = run(tmp_path, steps).steps["render"]
    assert (again["codes"], again["already"]) == (0, counts["render"]["codes"]), "the same codes, bit by bit"


def test_a_trust_region_stands_on_the_part_of_the_covariance_that_was_asked_for(tmp_path: Path) -> None:
    """A code that goes far out ends where (z − μ)ᵀΣ⁻¹(z − μ) = d + limit·√(2d), Σ whole or its diagonal."""
    make_images(tmp_path, 60)
    walk = {"stage": "traverse", "coordinates": [0], "unit": "latent", "strengths": [1e4], "limit": 2}
    kinds = ("full", "diagonal")
    walks = [{**walk, "name": kind, "trust": {"limit": 2, "covariance": kind}} for kind in kinds]
    run(tmp_path, [{"stage": "encode"}, *walks, {"stage": "render", "to": str(tmp_path / "out")}])
    stored = {row["id"]: np.array(row["latent"], np.float64) for row in rows_of(tmp_path / "store").to_pylist()}
    mean, whole = np.mean([*stored.values()], axis=0), np.cov(np.array([*stored.values()]).T)
    inverses = {"full": np.linalg.inv(whole), "diagonal": np.diag(1 / np.diag(whole))}
    for row in renders(tmp_path):
        inverse, z = inverses[json.loads(row["operation"])["step"]], stored[row["parents"][0]] - mean
        edge = max(len(mean) + 2 * np.sqrt(2 * len(mean)), z @ inverse @ z)
        roots = np.roots([inverse[0, 0], 2 * inverse[0] @ z, z @ inverse @ z - edge])
        assert row["moved"] == pytest.approx([roots.max()], rel=1e-4)


def test_the_gaussian_is_that_of_the_rows_the_step_selects(tmp_path: Path) -> None:
    make_images(tmp_path, 60)
    sample = {"stage": "sample", "where": "labels.bright = true", "truncation": [0], "count": 1}
    run(tmp_path, [{"stage": "encode"}, sample, {"stage": "render", "to": str(tmp_path / "out"), "layout": "image"}])
    import cv2
    import torch

    from schemas.codec import LinearCodec, Preprocess
    from stages.codecs.factory import open_codec

    rows = [r for r in rows_of(tmp_path / "store").to_pylist() if r["labels"]["bright"]]
    mean = np.mean([r["latent"] for r in rows], axis=0)
    codec = open_codec(LinearCodec(dim=8, preprocess=Preprocess(size=(16, 16))))
    expected = codec.decode(torch.from_numpy(mean[None].astype(np.float32)))[0].numpy()
    (path,) = (tmp_path / "out").rglob("*.png")
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], expected)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (
            {"stage": "edit", "changes": [{"direction": "brigth", "strength": 1}]},
            ["changes.0.direction", "did you mean `bright`"],
        ),
        ({"stage": "edit", "changes": [{"coordinate": 9, "strength": 1}]}, ["changes.0.coordinate", "use 0 to 7"]),
        ({"stage": "edit", "changes": [{"coordinate": 1, "strength": 1, "layers": [0, 1]}]}, ["have no layer"]),
        ({"stage": "sample", "method": "prior"}, ["linear codec has no prior", "gaussian"]),
        ({"stage": "walk", "start": "prior"}, ["linear codec has no prior"]),
        ({"stage": "walk", "around": "prior"}, ["linear codec has no prior"]),
        ({"stage": "analogy", "method": "lol", "around": "prior"}, ["linear codec has no prior"]),
        ({"stage": "traverse", "coordinates": [0], "trust": {"by": "typicality"}}, ["trust.by", "use by: mahalanobis"]),
    ],
)
def test_the_plan_refuses_what_cannot_be_done(tmp_path: Path, step: dict[str, Any], words: list[str]) -> None:
    make_images(tmp_path, 4)
    steps = [{"stage": "encode"}, {"stage": "fit", "attributes": ["bright"]}, step]
    with pytest.raises(JobError) as caught:
        make_plan(parse_job(job_data(tmp_path, tmp_path / "store", steps=steps)))
    (problem,) = caught.value.problems
    for word in words:
        assert word in str(problem)


def test_the_plan_refuses_covariances_that_fit_nowhere(tmp_path: Path) -> None:
    make_images(tmp_path, 4, size=64)
    codec = {"family": "linear", "dim": 2100, "preprocess": {"size": 64}}
    for sample, told in (
        ({"method": "gmm", "components": 4}, "end at 2048"),
        ({"method": "gmm", "components": 4, "covariance": "diagonal"}, ""),
        ({"method": "gaussian"}, ""),
        ({"method": "flow"}, "flows end at 256"),
    ):
        steps = [{"stage": "encode"}, {"stage": "sample", **sample}]
        job = parse_job(job_data(tmp_path, tmp_path / "store", codec=codec, steps=steps))
        if told:
            with pytest.raises(JobError, match=told):
                make_plan(job)
        else:
            make_plan(job)


def test_an_unknown_parent_and_twins_are_named_when_the_step_is_defined(tmp_path: Path) -> None:
    make_images(tmp_path, 20)
    with pytest.raises(JobError, match="nobody"):
        run(tmp_path, [{"stage": "encode"}, {"stage": "analogy", "triples": [[image_id(0), "nobody", image_id(1)]]}])
    fits = [{"stage": "fit", "attributes": ["bright"], "name": name} for name in ("one", "two")]
    changes = [{"direction": f"{name}.bright", "strength": 1} for name in ("one", "two")]
    edit = {"stage": "edit", "changes": changes, "mode": "set_projection"}
    with pytest.raises(JobError, match=r"one\.bright, two\.bright"):
        run(tmp_path, [{"stage": "encode"}, *fits, edit])
