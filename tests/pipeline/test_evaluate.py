"""The evaluate step from job to measurements, on the exact codec, where what an edit does is known in closed form."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.job import parse_job
from tests.jobs import factors, job_data, make_images

FITS = [
    {"stage": "encode"},
    {"stage": "fit", "attributes": ["bright", "round"], "holdout": 0},
    {"stage": "fit", "name": "plain", "attributes": ["bright"], "estimator": "mean_difference", "holdout": 0},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("evaluate"), 60)


def measured(folder: Path, out: Path, step: dict[str, Any], **changes: Any) -> dict[tuple[str, str, str], Any]:
    job = parse_job(job_data(folder, out / "store", steps=[*FITS, {"stage": "evaluate", **step}], **changes))
    run_job(job, report=lambda event: None)
    rows = [r for b in Store.open(job.store).measurements().scan() for r in b.to_pylist()]
    return {(r["metric"], r["subject"], r["target"]): r for r in rows}


def directions(out: Path) -> dict[str, dict[str, Any]]:
    return {r["name"]: r for b in Store.open(str(out / "store")).directions().scan() for r in b.to_pylist()}


def test_effects_are_those_of_the_exact_codec(folder: Path, tmp_path: Path) -> None:
    step = {"directions": ["bright", "round"], "strengths": [0.5, -0.5], "readout": "direction", "slices": ["round"]}
    found = measured(folder, tmp_path, step)
    stored = directions(tmp_path)
    for name in ("bright", "round"):
        for other in ("bright", "round"):
            # Reading is v·z and decoding undoes encoding: one σ of strength moves a score by σ·cos.
            cosine = float(np.dot(stored[name]["vector"], stored[other]["vector"]))
            expected = stored[name]["sigma"] * cosine / found["score_sigma", "", other]["value"]
            cell = found["effect", name, other]
            assert cell["value"] == pytest.approx(expected, abs=0.02), (name, other)
            assert cell["low"] - 0.01 <= expected <= cell["high"] + 0.01
            assert (cell["n"], cell["status"]) == (60, "ok")
    assert found["linearity", "bright", "bright"]["value"] == pytest.approx(1, abs=1e-3)
    assert found["hit_rate", "bright", "bright"]["value"] == found["monotonicity", "bright", "bright"]["value"] == 1
    assert found["identity_cosine", "bright", ""]["value"] > 0.999
    assert found["direction_cosine", "bright", "round"]["value"] == pytest.approx(
        float(np.dot(stored["bright"]["vector"], stored["round"]["vector"]))
    )
    assert {t for m, _, t in found if m == "slice_effect"} == {"round=true", "round=false"}
    assert found["slice_interaction", "bright", "round=true"]["status"] == "ok"
    assert "label_correlation" in {m for m, _, _ in found}


def test_the_order_in_which_strengths_are_given_is_nothing(folder: Path, tmp_path: Path) -> None:
    step = {"directions": ["bright"], "readout": "direction", "identity": False}
    found = measured(folder, tmp_path / "a", {**step, "strengths": [-2, -1, 1, 2]})
    other = measured(folder, tmp_path / "b", {**step, "strengths": [2, -1, -2, 0, 1]})
    told = ("value", "low", "high", "detail", "status")
    assert found["monotonicity", "bright", "bright"]["value"] == 1
    assert {key: [row[k] for k in told] for key, row in found.items()} == {
        key: [row[k] for k in told] for key, row in other.items()
    }


def test_a_unit_of_effect_is_the_length_that_moves_the_directions_own_score_by_one(
    folder: Path, tmp_path: Path
) -> None:
    step = {"directions": ["bright", "round"], "strengths": [-0.5, 0.5], "readout": "direction", "unit": "effect"}
    found, stored = measured(folder, tmp_path, step), directions(tmp_path)
    for name in ("bright", "round"):
        cell = found["effect", name, name]
        # Reading is v·z, so what moves the score y = v·z/‖b‖ by 1 moves the reading by ‖b‖.
        moved = cell["value"] * found["score_sigma", "", name]["value"]
        assert moved == pytest.approx(stored[name]["raw_norm"], rel=0.01), name
        assert cell["unit"] == "σ a unit of its own score"
    with pytest.raises(JobError, match="no score"):
        compose = {"stage": "compose", "name": "apart", "directions": ["bright", "round"], "method": "lowdin"}
        steps = [*FITS, compose, {"stage": "evaluate", **step, "directions": ["apart.bright"]}]
        run_job(parse_job(job_data(folder, tmp_path / "store", steps=steps)), report=lambda event: None)


def test_fitted_scores_rank_the_estimators_of_one_attribute(folder: Path, tmp_path: Path) -> None:
    step = {"directions": ["bright", "plain.bright", "round"], "strengths": [1], "where": "labels.round = true"}
    found = measured(folder, tmp_path, step)
    ranks = [json.loads(found["bake_off", n, "bright"]["detail"])["rank"] for n in ("bright", "plain.bright")]
    assert sorted(ranks) == [1, 2]
    # The fits were repeated for these intervals: nothing is taken as given.
    assert not any("as given" in found[m, "bright", "round"]["message"] for m in ("leak_data", "leak_model"))
    assert found["effect", "bright", "bright"]["value"] > 0.5
    assert 10 < found["effect", "bright", "bright"]["n"] < 60


def test_label_correlations_are_of_the_selected_rows_and_scores_are_fitted_on_all(folder: Path, tmp_path: Path) -> None:
    step = {"directions": ["bright", "round"], "strengths": [1]}
    some = measured(folder, tmp_path / "some", step | {"where": "labels.shade < 0.5"})
    every = measured(folder, tmp_path / "all", step)
    factor = np.array([factors(i) for i in range(60)], float)
    for found, chosen in ((every, np.ones(60, bool)), (some, np.arange(60) % 5 < 3)):
        one = found["label_correlation", "bright", "round"]
        assert one["n"] == chosen.sum()
        assert one["value"] == pytest.approx(np.corrcoef(factor[chosen].T)[0, 1])
    assert some["readout_r2", "", "bright"]["n"] == 60
    assert some["readout_r2", "", "bright"]["value"] == every["readout_r2", "", "bright"]["value"]
    assert some["effect", "bright", "bright"]["n"] == 36


@pytest.mark.parametrize("readout", ["ols", "logistic"])
def test_scores_of_a_label_made_of_noise_are_told_apart(folder: Path, tmp_path: Path, readout: str) -> None:
    """`coin` is a hash of the id: a readout of 60 rows and 24 numbers finds it all the same, on the rows it was fitted on."""
    here = tmp_path / "images_and_labels"
    here.mkdir()
    (here / "images").symlink_to(folder / "images")
    lines = (folder / "labels.csv").read_text().splitlines()
    coins = np.random.default_rng(1).random(len(lines)) < 0.5
    lines = [f"{line},{'coin' if i == 0 else str(bool(coins[i])).lower()}" for i, line in enumerate(lines)]
    (here / "labels.csv").write_text("\n".join(lines))
    steps = [
        {"stage": "encode"},
        {"stage": "fit", "attributes": ["bright", "coin"], "holdout": 0},
        {"stage": "evaluate", "directions": ["bright", "coin"], "strengths": [1], "readout": readout},
    ]
    codec = {"family": "linear", "dim": 24, "preprocess": {"size": 16}}
    job = parse_job(job_data(here, tmp_path / "store", steps=steps, codec=codec))
    run_job(job, report=lambda event: None)
    found = {
        (r["metric"], r["subject"], r["target"]): r
        for b in Store.open(job.store).measurements().scan()
        for r in b.to_pylist()
    }
    assert found["effect", "coin", "coin"]["value"] > 0.5  # direction and score share their chance
    assert found["readout_r2", "", "coin"]["status"] == "at_chance"
    assert found["readout_r2", "", "bright"]["status"] == "ok"
    assert found["scorer_response", "coin", "coin"]["status"] == "unseen"
    assert "not fitted on" in found["scorer_response", "coin", "coin"]["message"]
    assert found["scorer_response", "bright", "bright"]["status"] == "ok"
    assert ("rows that the readout was fitted on" in found["scorer_response", "bright", "bright"]["message"]) == (
        readout == "logistic"
    )


def test_wide_latents_are_read_by_ridge(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = {"directions": ["bright", "round"], "strengths": [1]}
    exact = measured(folder, tmp_path / "ols", step)
    monkeypatch.setattr("pipeline.steps.evaluate.MAX_DIM", 4)
    found = measured(folder, tmp_path / "ridge", step)
    for name in ("bright", "round"):
        assert found["effect", "bright", name]["value"] == pytest.approx(
            exact["effect", "bright", name]["value"], abs=0.05
        )
    # Only least squares comes with its answer of rows that it was not fitted on; the others say what theirs is of.
    assert ("readout_r2", "", "bright") in exact and ("readout_r2", "", "bright") not in found
    told = [one["scorer_response", "bright", "bright"]["message"] for one in (exact, found)]
    assert told[0] == "" and "rows that the readout was fitted on" in told[1]


def test_a_scorer_of_ones_own(folder: Path, tmp_path: Path) -> None:
    step = {
        "directions": ["bright", "round"],
        "scorer": "tests.brightness:Brightness",
        "scorer_options": {"gain": 2.0},
        "identity": False,
    }
    found = measured(folder, tmp_path, step, allow_code=True)
    assert found["edit_strength", "bright", "bright"]["value"] > 0.3
    assert found["edit_strength", "round", ""]["status"] == "no_target"
    assert found["effect", "round", "corner"]["value"] is not None
    assert not any(metric == "identity_cosine" for metric, _, _ in found)


def test_a_scorer_of_ones_own_is_told_from_the_model_by_untouched_originals(folder: Path, tmp_path: Path) -> None:
    step = {
        "directions": ["bright", "plain.bright"],
        "scorer": "tests.brightness:BrightAndRound",
        "scorer_options": {"leak": 2.0},
        "identity": False,
        "originals": 50,
        "extractor": None,
    }
    found = measured(folder, tmp_path / "asked", step, allow_code=True)
    own = found["scorer_response", "bright", "bright"]
    assert own["n"] == 50  # pictures of the source, by hash of the id
    assert own["low"] > 0
    sigmas = [found["score_sigma", "", name]["value"] for name in ("bright", "round")]
    leak = found["scorer_leak", "bright", "round"]
    assert leak["value"] == pytest.approx(2.0 * sigmas[0] / sigmas[1], rel=0.2)
    assert leak["low"] > 0
    assert {found[m, "bright", "round"]["status"] for m in ("leak_data", "leak_model", "leak_scorer")} == {"ok"}
    assert not any(metric in ("frechet_distance", "kernel_distance") for metric, _, _ in found)
    none = measured(folder, tmp_path / "none", step | {"originals": 0}, allow_code=True)
    assert none["leak_scorer", "bright", "round"]["status"] == "not_measured"
    assert "the scorer's own leaks are in it" in none["leak_model", "bright", "round"]["message"]


def test_more_labels_than_are_kept_cost_the_blame_and_nothing_else(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.evaluation.on_labels.MAX_SUMS", 1000)
    found = measured(folder, tmp_path, {"directions": ["bright", "plain.bright", "round"], "strengths": [1]})
    assert found["leak_scorer", "bright", "round"]["status"] == "too_many_labels"
    assert found["leak_model", "bright", "round"]["value"] is not None
    assert found["effect", "bright", "bright"]["status"] == "ok"


def test_edited_pictures_are_held_against_the_unedited_ones(folder: Path, tmp_path: Path) -> None:
    step = {"directions": ["bright"], "strengths": [1, 4], "extractor_options": {"cells": 2}}
    found = measured(folder, tmp_path, step)
    near, far = (found["frechet_distance", "bright", f"{s:+g} sigma"] for s in (1, 4))
    assert 0 < near["low"] < near["value"] < near["high"] < far["value"]
    assert (near["n"], near["status"], json.loads(near["detail"])["features"]) == (60, "ok", 24)
    assert found["kernel_distance", "bright", "+4 sigma"]["low"] > 0


@pytest.mark.parametrize(
    ("step", "field", "value"),
    [
        ({"directions": ["brihgt"]}, "directions", "brihgt"),
        ({"directions": ["bright"], "slices": ["shade"]}, "slices", "shade"),
        ({"directions": ["bright"], "attributes": ["hair"]}, "attributes", "hair"),
        ({"directions": ["bright"], "group": "who"}, "", "who"),
        ({"directions": ["bright"], "scorer": "tests.brightness:Brightness"}, "scorer", None),
        ({"directions": ["bright"], "readout": "logistic", "attributes": ["shade"]}, "attributes", "shade"),
        ({"directions": ["bright"], "strengths": [0]}, "strengths", None),
        ({"directions": ["bright"], "masks": {"round": [0, 0, 1, 1]}}, "masks", "round"),
        ({"directions": ["bright"], "masks": {"bright": [0.5, 0, 0.2, 1]}}, "masks", None),
        ({"directions": ["bright"], "extractor": "my.model:Inception"}, "extractor", None),
        (
            {"directions": ["bright"], "fidelity_images": 50_000, "extractor_options": {"cells": 8}},
            "fidelity_images",
            50_000,
        ),
        ({"directions": ["bright"], "where": "labels.bright IS NULL"}, "where", None),
    ],
)
def test_bad_jobs_name_field_and_value(
    folder: Path, tmp_path: Path, step: dict[str, Any], field: str, value: Any
) -> None:
    with pytest.raises(JobError) as caught:
        measured(folder, tmp_path, step)
    problem = caught.value.problems[0]
    assert field in problem.field
    assert value is None or problem.value == value
