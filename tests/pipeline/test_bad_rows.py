"""Latents that are not finite, or null, in the table: every step leaves them out and says how many; none stops or guesses."""

import math
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from pipeline.run import RunResult, run_job
from pipeline.selection import no_row_left
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.job import parse_job
from schemas.steps import DiagnoseStep
from tests.jobs import job_data, make_images

COUNT = 80
BAD = {3: np.nan, 10: np.inf, 25: -np.inf, 40: None, 41: None}
"""Row of the table → what one of its numbers became; None: the whole latent is null."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_images(tmp_path_factory.mktemp("bad"), COUNT)
    run(folder, {"stage": "encode"}, {"stage": "fit", "attributes": ["bright", "round"]})
    spoil(folder, BAD)
    return folder


def spoil(folder: Path, bad_rows: dict[int, float | None]) -> None:
    """One number of each of these rows becomes what is said; None: the whole latent is null."""
    table = lance.dataset(str(next((folder / "store").glob("*.latents.*.lance"))))
    rows = table.to_table()
    field = rows.schema.field("latent")
    z = np.array(rows["latent"].to_pylist(), np.float32)
    for row, bad in bad_rows.items():
        z[row, row % 8] = 1e30 if bad is None else bad
    missing = pa.array([bad_rows.get(row, 0.0) is None for row in range(COUNT)])
    column = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), type=field.type, mask=missing)
    spoilt = rows.set_column(rows.schema.names.index("latent"), field, column)
    table.merge_insert("id").when_matched_update_all().execute(spoilt)


def run(folder: Path, *steps: dict[str, Any]) -> RunResult:
    return run_job(parse_job(job_data(folder, folder / "store", steps=list(steps))), report=lambda event: None)


def measured(folder: Path, result: RunResult) -> list[dict[str, Any]]:
    table = Store.open(str(folder / "store")).measurements()
    return [r for b in table.scan(where=f"run_id = '{result.run_id}'") for r in b.to_pylist()]


STEPS: dict[str, dict[str, Any]] = {
    "fit": {"attributes": ["bright"], "bootstrap": 20},
    "components": {"count": 2},
    "compose": {"directions": ["bright", "round"], "method": "lowdin"},
    "diagnose": {"decodes": 16, "sample": 100},
    "evaluate": {"directions": ["bright"], "replicates": 20, "strengths": [1]},
    "disentanglement": {"scores": ["mig", "irs"], "permutations": 2},
    "project": {"methods": ["pca"]},
}
COUNTED = {"diagnose": "non_finite", "evaluate": "left_out", "disentanglement": "non_finite", "project": "non_finite"}


@pytest.mark.parametrize("stage", STEPS)
def test_every_step_leaves_them_out_and_counts_them(folder: Path, stage: str) -> None:
    result = run(folder, {"stage": stage, **STEPS[stage]})
    found = measured(folder, result)
    table = Store.open(str(folder / "store")).directions()
    made = [r for b in table.scan(where=f"run_id = '{result.run_id}'") for r in b.to_pylist()]
    if stage in ("disentanglement", "project"):
        assert [(m["value"], m["status"]) for m in found if m["metric"] == "left_out"] == [(len(BAD), "non_finite")]
    if stage in COUNTED:
        assert result.steps[stage][COUNTED[stage]] == len(BAD)
    elif stage == "fit":
        assert "5 rows with a non-finite latent left out" in made[0]["message"]
    else:
        assert [m["value"] for m in found if m["metric"] == "non_finite"] == [len(BAD)]
    assert all(math.isfinite(v) for r in made for v in (*r["vector"], *r["mean"], r["sigma"]))
    numbers = [m[f] for m in found for f in ("value", "low", "high") if m[f] is not None]
    assert numbers and all(map(math.isfinite, numbers))


def test_a_map_is_of_finite_rows_however_many_are_not(tmp_path: Path) -> None:
    """Of 40 rows 26 have no finite latent: the sample is ten of the other fourteen, not the two among ten of all."""
    folder = make_images(tmp_path, 40)
    run(folder, {"stage": "encode"})
    spoil(folder, {row: np.nan for row in range(40) if row % 3})
    counts = run(folder, {"stage": "project", "methods": ["pca", "tsne"], "sample": 10, "by": "bright"}).steps[
        "project"
    ]
    assert (counts["rows"], counts["non_finite"], counts["sampled"]) == (14, 26, 10)
    assert all(0 < t <= 1 for t in counts["trustworthiness"].values())


PCN = {"stage": "walk", "method": "pcn", "around": "data", "covariance": "diagonal"}
MOVED = {"coordinates": [0], "strengths": [1]}


@pytest.mark.parametrize(
    ("step", "subjects"),
    [
        ({"stage": "sample", "method": "gaussian", "count": 5}, ["gaussian"]),
        ({"stage": "sample", "method": "gmm", "components": 2, "count": 5}, ["mixture"]),
        ({"stage": "sample", "method": "flow", "count": 5}, ["flow"]),
        ({"stage": "traverse", **MOVED}, ["coordinates"]),
        (
            {"stage": "traverse", **MOVED, "strengths": [0.4], "unit": "quantile", "mode": "set_coordinate"},
            ["quantiles"],
        ),
        ({"stage": "traverse", **MOVED, "trust": {"by": "mahalanobis"}}, ["coordinates", "trust region"]),
        ({"stage": "traverse", "directions": ["bright"], "trust": {"by": "neighbours"}}, ["trust region"]),
        (PCN, ["gaussian"]),
    ],
)
def test_what_is_behind_a_code_set_counts_the_rows_it_leaves_out(
    folder: Path, tmp_path: Path, step: dict[str, Any], subjects: list[str]
) -> None:
    page = tmp_path / "page.html"
    result = run(folder, step, {"stage": "report", "to": str(page)})
    found = [m for m in measured(folder, result) if m["metric"] == "left_out"]
    assert sorted(m["subject"] for m in found) == subjects
    assert {(m["value"], m["target"], m["status"], m["stage"]) for m in found} == {
        (len(BAD), "non_finite", "non_finite", step["stage"])
    }
    assert {m["n"] for m in found} == {COUNT - len(BAD)}
    assert all(f"5 left out of the {subject}: non finite" in page.read_text() for subject in subjects)


def test_fidelity_leaves_them_out_of_the_reference_and_stores_how_many(folder: Path) -> None:
    score = {"stage": "fidelity", "neighbours": 3, "path_pairs": COUNT // 2}
    result = run(folder, {"stage": "sample", "count": 20, "method": "gaussian"}, score)
    found = [m for m in measured(folder, result) if m["stage"] == "fidelity"]
    left = {m["status"]: m for m in found if m["metric"] == "left_out"}
    assert left.keys() == {"not_made", "no_path"} and left["not_made"]["value"] == len(BAD)
    # Every row is in one pair: as many pairs go as have a bad end, at most one each.
    assert 3 <= left["no_path"]["value"] <= len(BAD)
    assert left["no_path"]["n"] == COUNT // 2 - left["no_path"]["value"]


def test_nearest_pairs_pass_them_over_and_say_so(folder: Path) -> None:
    result = run(folder, {"stage": "interpolate", "pairs": "nearest", "count": 70})
    counts = result.steps["interpolate"]
    assert counts["notices"] == ["interpolate: 5 images passed over: without finite numbers none is nearest"]
    rendered = run(
        folder,
        {"stage": "interpolate", "pairs": "nearest", "count": 70, "frames": 2},
        {"stage": "render", "to": str(folder / "out"), "layout": "image"},
    )
    assert rendered.steps["render"]["failed"] == 0


def test_an_index_is_measured_on_rows_that_can_be_asked_for(folder: Path) -> None:
    counts = run(folder, {"stage": "index", "kind": "ivf_flat"}).steps["index"]
    assert (counts["queries"], counts["recall"]) == (COUNT - len(BAD), 1.0)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"stage": "interpolate", "pairs": "nearest", "where": "width > 9999"}, "no row is left"),
        ({"stage": "interpolate", "limit": 1}, "made of 2 different images"),
        ({"stage": "analogy", "limit": 2}, "made of 3 different images"),
        ({"stage": "traverse", "directions": ["bright"], "where": "width > 9999"}, "no row is left"),
        ({"stage": "sample", "limit": 1}, "two rows with finite latents; there are 1"),
        (
            {"stage": "evaluate", "directions": ["bright"], "readout": "direction", "attributes": ["round"]},
            "name some of bright",
        ),
    ],
)
def test_too_little_to_work_on_is_told_with_what_is_needed(folder: Path, step: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        run(folder, step)


def labelled(tmp_path: Path, *columns: tuple[str, list[str]]) -> Path:
    """Twelve images with more labels: name → a text for each image, empty where it is missing."""
    folder = make_images(tmp_path, 12)
    file = folder / "labels.csv"
    lines = file.read_text().splitlines()
    for name, values in columns:
        lines = [",".join(pair) for pair in zip(lines, [name, *values], strict=True)]
    file.write_text("\n".join(lines))
    return folder


def labelled_run(folder: Path, *steps: dict[str, Any], types: dict[str, str] | None = None) -> RunResult:
    source = {"images": f"{folder}/images/**/*.png", "labels": {"uri": f"{folder}/labels.csv", "types": types or {}}}
    data = job_data(folder, folder / "store", steps=[{"stage": "encode"}, *steps], source=source)
    return run_job(parse_job(data), report=lambda event: None)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([""] * 12, "no row has a group `who`: every row stands on its own, and intervals are those without groups"),
        (["anna"] * 3 + [""] * 4 + ["tom"] * 5, "4 of 12 rows have no group `who`: each of them stands on its own"),
        (["anna"] * 6 + ["tom"] * 6, ""),
    ],
)
def test_rows_without_the_group_they_are_grouped_by_are_told(tmp_path: Path, values: list[str], said: str) -> None:
    folder = labelled(tmp_path, ("who", values))
    fit = {"stage": "fit", "attributes": ["bright"], "holdout": 0}
    steps = [
        {**fit, "name": "label", "group": "who"},
        {**fit, "name": "folder", "group": "id:/"},
        {**fit, "name": "nowhere", "group": "id:#"},
        {"stage": "evaluate", "directions": ["label.bright"], "group": "who", "replicates": 20, "strengths": [1]},
    ]
    counts = labelled_run(folder, *steps, types={"who": "category"}).steps
    for step in ("label", "evaluate"):
        told = [n for n in counts[step].get("notices", []) if "group" in n and "groups by" not in n]
        assert told == ([f"{step}: {said}"] if said else [])
    assert not [n for n in counts["folder"].get("notices", []) if "group" in n]
    assert any("no row has a group `id:#`" in n for n in counts["nowhere"]["notices"])


def test_a_value_of_a_category_that_no_row_has_is_told_with_those_there_are(tmp_path: Path) -> None:
    folder = labelled(tmp_path, ("hair", ["red", "brown", ""] * 4))
    fit = {"stage": "fit", "attributes": ["bright"], "holdout": 0}
    step = {"stage": "evaluate", "directions": ["bright"], "replicates": 20, "strengths": [1]}
    with pytest.raises(JobError) as caught:
        labelled_run(folder, fit, {**step, "attributes": ["bright", "hair=rd"]}, types={"hair": "category"})
    (problem,) = caught.value.problems
    assert (problem.field, problem.value) == ("evaluate.attributes", "hair=rd")
    assert "`hair` is brown, red" in problem.reason and "red" in problem.fix
    result = labelled_run(folder, fit, {**step, "attributes": ["bright", "hair=red"]}, types={"hair": "category"})
    assert result.steps["evaluate"]["rows"] == 12


def test_groups_too_few_for_intervals_are_told(folder: Path) -> None:
    """Pictures lie in seven folders: of so few groups a bootstrap knows too little."""
    fit = {"stage": "fit", "attributes": ["bright"], "bootstrap": 20}

    def notices(step: dict[str, Any]) -> list[str]:
        return list(run(folder, step).steps["fit"].get("notices", []))

    told = "fit: only 7 groups by `id:/`: intervals that resample fewer than 10 are too narrow to be relied on"
    assert told in notices({**fit, "group": "id:/"})
    assert not any("groups by" in n for n in notices({**fit, "group": "id:."})), "every picture has a name of its own"
    without = {"stage": "fit", "attributes": ["bright"], "group": "id:/"}
    assert not any("groups by" in n for n in notices(without)), "nothing is resampled"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("width > 9999", "look.where = 'width > 9999': no row is left to plot. Fix: loosen the filter"),
        (None, "look.where: no row is left to plot. Fix: no image has a latent: `latentmill failures` says why"),
    ],
)
def test_no_row_is_told_with_what_helps(where: str | None, said: str) -> None:
    assert str(no_row_left(DiagnoseStep(name="look", where=where), to=" to plot")) == said
