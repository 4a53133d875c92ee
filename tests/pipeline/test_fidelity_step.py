"""The fidelity step, from a job to the measurements table and the report."""

import json

import pytest

from pipeline.plan import make_plan
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.job import Job
from tests.jobs import factors, job_data, make_images

FIT = [{"stage": "encode"}, {"stage": "fit", "attributes": ["bright"], "estimator": "mean_difference"}]
TRAVERSE = {"stage": "traverse", "directions": ["bright"], "strengths": [0, 3]}


def test_edits_are_held_against_reconstructions(tmp_path):
    make_images(tmp_path, 60)
    report = {"stage": "report", "to": str(tmp_path / "report.html")}
    draws = {"stage": "sample", "method": "gaussian", "count": 20}
    steps = [*FIT, TRAVERSE, draws, {"stage": "fidelity", "neighbours": 3, "path_pairs": 20}, report]
    data = job_data(tmp_path, tmp_path / "store", steps=steps)
    result = run_job(Job.model_validate(data), report=lambda event: None)
    assert result.steps["fidelity"]["sets"] == 3 and result.steps["fidelity"]["left_out"] == 0
    table = Store.open(data["store"]).measurements()
    rows = [r for b in table.scan() for r in b.to_pylist() if r["stage"] == "fidelity"]
    distance = {r["subject"]: r for r in rows if r["metric"] == "frechet_distance"}
    still, moved = distance["traverse/bright +0 sigma"], distance["traverse/bright +3 sigma"]
    assert still["value"] == pytest.approx(still["threshold"], rel=1e-6)
    assert moved["value"] > 2 * moved["threshold"] and moved["target"] == "pixel_moments"
    (drawn,) = [r for name, r in distance.items() if name.startswith("sample/")]
    assert drawn["n"] == 20 and drawn["status"] == "ok"  # draws have no parents: all of them count
    (path,) = [r for r in rows if r["metric"] == "path_length"]
    assert path["n"] == 20 and path["low"] < path["value"] < path["high"] and path["target"] == "squared_l2"
    page = (tmp_path / "report.html").read_text()
    assert "Fréchet distance: a covariance asks for more pictures than features" in page
    (covered,) = [r for r in rows if r["metric"] == "coverage" and r["subject"] == still["subject"]]
    assert covered["low"] < covered["value"] <= covered["high"]
    assert "Fréchet distance" in page and "Features: pixel moments" in page and "Smaller is smoother" in page


@pytest.mark.parametrize("group", ["id:/", "bright"])
def test_pictures_of_a_group_stay_together(tmp_path, group):
    make_images(tmp_path, 60)
    pairs = {"stage": "interpolate", "pairs": [["0/000000.png", "0/000007.png"]], "frames": 3}
    draws = {"stage": "sample", "method": "gaussian", "count": 20}
    steps = [*FIT, TRAVERSE, pairs, draws, {"stage": "fidelity", "neighbours": 3, "path_pairs": 20, "group": group}]
    run_job(Job.model_validate(job_data(tmp_path, tmp_path / "store", steps=steps)), report=lambda event: None)
    table = Store.open(str(tmp_path / "store")).measurements()
    rows = {(r["metric"], r["subject"]): r for b in table.scan() for r in b.to_pylist() if r["stage"] == "fidelity"}
    path = rows["path_length", ""]
    if group == "id:/":
        still = rows["frechet_distance", "traverse/bright +0 sigma"]
        of = json.loads(still["detail"])
        # By their hash folders 0 to 3, of nine pictures each, are not the reference; an edit of nothing is the floor.
        assert still["value"] == pytest.approx(still["threshold"], rel=1e-6)
        assert (still["n"], of["n_reference"]) == (36, 24)
        assert rows["kernel_distance", still["subject"]]["message"] == "fewer than 10 groups of images: no interval"
        assert path["n"] == 3  # one picture a folder
    else:
        # Two groups, so a half has one: that of the bright pictures gives the edits, of which nothing can be said.
        moved = rows["frechet_distance", "traverse/bright +3 sigma"]
        assert moved["n"] == sum(factors(i)[0] for i in range(60)) and "are of one group" in moved["message"]
        assert {r["status"] for r in rows.values()} == {"too_few"} and path["n"] == 1


@pytest.mark.parametrize(("entry", "space", "said"), [("Shell", "z", "great circles"), ("", "w", "straight lines")])
def test_paths_run_in_the_space_that_the_codec_declares(tmp_path, entry, space, said):
    make_images(tmp_path, 40)
    shell = {"family": "custom", "entry": "tests.codec_cases:ShellCodec", "preprocess": {"size": 16}}
    codec = {"codec": shell, "allow_code": True} if entry else {}
    draws = {"stage": "sample", "method": "gaussian", "count": 20}
    report = {"stage": "report", "to": str(tmp_path / "report.html")}
    steps = [{"stage": "encode"}, draws, {"stage": "fidelity", "neighbours": 3, "path_pairs": 15}, report]
    data = job_data(tmp_path, tmp_path / "store", steps=steps, **codec)
    run_job(Job.model_validate(data), report=lambda event: None)
    table = Store.open(data["store"]).measurements()
    (path,) = [r for b in table.scan(where="metric = 'path_length'") for r in b.to_pylist()]
    assert json.loads(path["detail"]) == {"space": space, "paths": 15} and path["n"] == 15
    assert f"15 random pairs of images on {said}" in (tmp_path / "report.html").read_text()


def test_what_cannot_be_scored_is_refused_in_the_plan(tmp_path):
    make_images(tmp_path, 6)

    def problems(*steps):
        with pytest.raises(JobError) as caught:
            make_plan(Job.model_validate(job_data(tmp_path, tmp_path / "store", steps=[*FIT, *steps])))
        return str(caught.value)

    assert "there are no code sets above this step" in problems({"stage": "fidelity"}, TRAVERSE)
    unknown = problems(TRAVERSE, {"stage": "fidelity", "of": ["travers"]})
    assert "no code set above has this name" in unknown and "traverse" in unknown
    assert "no such label" in problems(TRAVERSE, {"stage": "fidelity", "group": "brigt"})
    assert "set allow_code: true" in problems(TRAVERSE, {"stage": "fidelity", "extractor": "my.model:Inception"})
