"""Filters of steps: a wrong one is refused by the plan, one over columns that steps above will write is not."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.filters import written_by
from pipeline.plan import make_plan
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.job import parse_job
from schemas.steps import DiagnoseStep, ProjectStep
from tests.jobs import job_data, make_images


def job(folder: Path, *steps: dict[str, Any]) -> Any:
    return parse_job(job_data(folder, folder / "store", steps=[{"stage": "encode"}, *steps]))


def refused(folder: Path, *steps: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(JobError) as caught:
        make_plan(job(folder, *steps))
    return [(p.field, str(p)) for p in caught.value.problems]


@pytest.mark.parametrize("encoded", [False, True])
def test_every_wrong_filter_is_refused_by_the_plan(tmp_path: Path, encoded: bool) -> None:
    make_images(tmp_path, 4)
    if encoded:
        run_job(job(tmp_path), report=lambda event: None)
    found = refused(
        tmp_path,
        {"stage": "traverse", "coordinates": [99], "where": "labels.brihgt = true"},
        {"stage": "fit", "attributes": ["bright"], "where": "labels.bright) OR (labels.round"},
        {"stage": "interpolate", "where": "widht > 3"},
        {"stage": "traverse", "coordinates": [0], "where": "anomaly > 3"},
        {"stage": "diagnose", "scores": ["typicality"]},
    )
    told = dict(found)
    assert [field for field, _ in found] == [
        "steps.1 (traverse).coordinates",
        "steps.1 (traverse).where",
        "steps.2 (fit).where",
        "steps.3 (interpolate).where",
        "steps.4 (traverse).where",
    ], "all problems together, and `anomaly` is not there yet where the filter stands above the step that writes it"
    assert "did you mean `labels.bright`" in told["steps.1 (traverse).where"]
    assert "not closed" in told["steps.2 (fit).where"]
    assert "did you mean `width`" in told["steps.3 (interpolate).where"]
    assert (tmp_path / "store").exists() == encoded, "a plan touches nothing"


def test_without_rows_nobody_is_told_that_a_label_is_unknown(tmp_path: Path) -> None:
    make_images(tmp_path, 2)
    steps = [{"stage": "traverse", "coordinates": [0], "where": "labels.bright"}]
    with pytest.raises(JobError) as caught:
        make_plan(parse_job(job_data(tmp_path, tmp_path / "store", steps=steps)))
    assert [p.field for p in caught.value.problems] == ["steps.0 (traverse)"]


def test_a_filter_of_a_job_that_has_yet_to_train_its_codec(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    steps = [
        {"stage": "train", "steps": 1},
        {"stage": "encode"},
        {"stage": "traverse", "coordinates": [0], "where": "labels.brihgt"},
    ]
    codec = {"family": "conv_vae", "weights": str(tmp_path / "codec"), "preprocess": {"size": 16}}
    with pytest.raises(JobError, match=r"steps\.2 \(traverse\)\.where.*labels\.bright"):
        make_plan(parse_job(job_data(tmp_path, tmp_path / "store", codec=codec, steps=steps)))


def test_a_filter_may_name_what_steps_above_will_write(tmp_path: Path) -> None:
    """Accepted before the columns are there, and what was accepted runs: the names are those the steps write."""
    make_images(tmp_path, 40)
    diagnosis = {"stage": "diagnose", "scores": ["typicality", "reconstruction"]}
    drawing = {"stage": "project", "name": "map", "methods": ["pca"]}
    over = "anomaly < 1e9 AND reconstruction_error >= 0 AND typicality IS NOT NULL AND map_pca_1 IS NOT NULL"
    asked = job(tmp_path, diagnosis, drawing, {"stage": "components", "estimator": "pca", "count": 2, "where": over})
    make_plan(asked)
    run_job(job(tmp_path), report=lambda event: None)
    assert make_plan(asked).steps[-1].total is None, "rows are there, the columns are not: only the run can count"
    run_job(asked, report=lambda event: None)
    latents = Store.open(str(tmp_path / "store")).latents("shapes", str(make_plan(asked).fingerprint))
    said = {n for s in asked.steps[1:] for n in written_by(s)}
    assert said == set(latents.computed_at())
    assert make_plan(asked).steps[-1].total == 40


def test_the_columns_that_steps_write() -> None:
    assert written_by(DiagnoseStep(scores=())) == ()
    assert written_by(DiagnoseStep(scores=("mahalanobis",))) == ("mahalanobis", "anomaly")
    assert written_by(ProjectStep(name="m", methods=("umap",))) == ("m_pca_1", "m_pca_2", "m_umap_1", "m_umap_2")


def test_a_filter_cannot_close_the_brackets_put_around_it(tmp_path: Path) -> None:
    """Joined with `ids` unchecked, `false) OR (true` would select every row."""
    from pipeline.selection import selection_clause
    from schemas.steps import FitStep

    make_images(tmp_path, 4)
    run_job(job(tmp_path), report=lambda event: None)
    latents = Store.open(str(tmp_path / "store")).latents("shapes", str(make_plan(job(tmp_path)).fingerprint))
    step = FitStep(name="fit", where="false) OR (true", ids=("0/000000.png",))
    with pytest.raises(JobError, match=r"fit\.where.*not closed"):
        selection_clause(step, latents, latents.version)
    one = step.model_copy(update={"where": "true OR false"})
    assert latents.count_rows(selection_clause(one, latents, latents.version)) == 1
