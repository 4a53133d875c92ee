"""The disentanglement step, from a job to the measurements table and the report."""

import json

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.plan import make_plan
from pipeline.run import run_job
from schemas.errors import JobError
from schemas.job import Job
from tests.jobs import factors, job_data, make_images

STEP = {
    "stage": "disentanglement",
    "permutations": 4,
    "model_permutations": 1,
    "votes": (40, 20),
    "train": 60,
    "test": 30,
    "model_train": 60,
    "scores": ["mig", "sap_continuous", "sap_discrete", "dci", "modularity", "irs"],
}


def test_scores_are_stored_and_shown(tmp_path):
    make_images(tmp_path, 90)
    report = {"stage": "report", "to": str(tmp_path / "report.html")}
    steps = [{"stage": "encode"}, STEP, STEP | {"factors": ["round"], "scores": ["mig"]}, report]
    result = run_job(Job.model_validate(job_data(tmp_path, tmp_path / "store", steps=steps)), report=lambda event: None)
    counts = result.steps["disentanglement"]
    assert (counts["rows"], counts["factors"], counts["non_finite"]) == (90, 3, 0)
    shown = CliRunner().invoke(app, ["measurements", "--store", str(tmp_path / "store"), "--json"])
    found = json.loads(shown.stdout)
    of_all = {(m["metric"], m["target"]): m for m in found if m["step"] == "disentanglement"}
    for metric in ("mig", "sap_continuous", "sap_discrete", "dci_completeness", "modularity", "irs"):
        row = of_all[metric, ""]
        assert 0 <= row["value"] <= 1 and row["threshold"] is not None and row["n"] == 60
    assert {t for m, t in of_all if m == "information"} == {"bright", "round", "shade"}
    # A bright ground moves the mean of every pixel: some coordinate of the linear codec must know it.
    assert of_all["information", "bright"]["value"] > 0.9
    assert [m["target"] for m in found if m["step"] == "disentanglement2" and m["metric"] == "information"] == ["round"]
    page = (tmp_path / "report.html").read_text()
    assert "What each coordinate knows of each factor" in page and "with labels shuffled" in page


def test_pictures_of_a_group_stay_together(tmp_path):
    make_images(tmp_path, 140)  # seven folders
    scores = {"scores": ["mig"], "train": 95, "test": 45}
    grouped = STEP | scores | {"group": "id:/", "name": "folders"}
    by_label = STEP | scores | {"group": "bright", "name": "by_label"}
    steps = [{"stage": "encode"}, STEP | scores | {"name": "alone"}, grouped, by_label]
    run_job(Job.model_validate(job_data(tmp_path, tmp_path / "store", steps=steps)), report=lambda event: None)
    shown = CliRunner().invoke(app, ["measurements", "--store", str(tmp_path / "store"), "--json"])
    found = {m["step"]: m for m in json.loads(shown.stdout) if m["metric"] == "mig"}
    assert found["alone"]["n"] == 95 and found["alone"]["low"] is not None
    assert found["folders"]["n"] == 80 and "fewer than 10 groups" in found["folders"]["message"]  # four folders of 20
    bright = sum(factors(i)[0] for i in range(140))
    assert found["by_label"]["n"] in (bright, 140 - bright)


def test_a_group_that_is_not_there_is_refused_in_the_plan(tmp_path):
    make_images(tmp_path, 6)
    for group, said in (("persn", "no such label"), ("shade", "this is float"), ("id:", "no separator")):
        data = job_data(tmp_path, tmp_path / "store", steps=[{"stage": "encode"}, STEP | {"group": group}])
        with pytest.raises(JobError, match=rf"disentanglement.*group.*{said}"):
            make_plan(Job.model_validate(data))


def test_a_job_without_factors_is_refused_in_the_plan(tmp_path):
    make_images(tmp_path, 6)
    data = job_data(tmp_path, tmp_path / "store", steps=[{"stage": "encode"}, STEP | {"factors": ["brigt"]}])
    with pytest.raises(JobError, match=r"brigt.*no such label.*bright"):
        make_plan(Job.model_validate(data))
    data["source"] = {"images": data["source"]["images"]}
    data["steps"][1] = STEP
    with pytest.raises(JobError, match="there are no labels to be factors"):
        make_plan(Job.model_validate(data))
