"""The report's sections of evaluate and compare: sentences a reader needs, every status drawn, nothing unescaped."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest

from schemas.measurements import Measurement
from stages.attributes import Column
from stages.comparison.compare import Settings, agreement, compare
from stages.evaluation.attribution import blame, leaks, scorer_leaks
from stages.evaluation.bake_off import bake_off
from stages.evaluation.design import Design, Edit, Fidelity, Slice
from stages.evaluation.entanglement import direction_cosines
from stages.evaluation.fidelity import fidelity
from stages.evaluation.on_labels import add_rows, empty_sums
from stages.evaluation.questions import questions
from stages.evaluation.replicates import Results
from stages.evaluation.response import ScorerResponse
from stages.evaluation.slices import slices
from stages.report.data import Measured
from stages.report.evaluate import evaluate
from stages.report.evaluated_blame import together
from stages.report.evaluated_edits import curves
from stages.report.evaluated_slices import where_it_works
from stages.report.measured import measured
from stages.row_hash import hash_ids
from tests.labelled import batch_of, carried
from tests.stages_evaluation import leaky_stage

AXES = np.eye(4)


def answered(names: tuple[str, str]) -> ScorerResponse:
    """A scorer that takes the first label for .3 of the second."""
    rng = np.random.default_rng(1)
    labels = (rng.random((200, 2)) < 0.5).astype(float)
    scores = labels @ np.array([[1.0, 0.3], [0.0, 1.0]]) + 0.3 * rng.standard_normal((200, 2))
    sums = empty_sums(2, 2, replicates=200)
    add_rows(sums, labels, scores, hash_ids(pa.array([f"faces/{i:06d}.jpg" for i in range(200)])), seed=0)
    return ScorerResponse.of(names, sums, confidence=0.95)


def evaluated(*, rows: int = 120, name: str = "a", scorer: bool = True) -> list[Measurement]:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((rows, 4)).astype(np.float32)
    cap = latents[:, 3] > 0
    edits = (
        Edit("plain", name, "mean_difference", AXES[0], np.zeros(4), 1.0, auc=0.9, mask=(0, 0, 1, 0.5)),
        Edit("fair", name, "ols", AXES[0], np.zeros(4), 1.0, auc=0.8),
        Edit("free", "", "pca", AXES[1], np.zeros(4), 1.0),
    )
    sliced = tuple(Slice(f"cap={h}", Column("cap", "cap", "bool"), holds=h) for h in (True, False))
    looked = Fidelity("pixel_moments", {"cells": 1}, 100)
    design = Design(edits, (-1.0, 1.0), "sigma", (name, "b", "still"), slices=sliced, fidelity=looked)
    stage = leaky_stage(design, deaf=3)
    latents[:, 2] = 0
    found = Results(design, stage.add(stage.start(), batch_of(latents, {"cap": cap})), 0.95)
    response = answered((name, "b")) if scorer else None
    return [
        *questions(found, false_discoveries=0.05),
        *fidelity(found),
        *(scorer_leaks(found, response) if response else ()),
        *direction_cosines(edits),
        *leaks(found),
        *blame(found, response),
        *slices(found, false_discoveries=0.05),
        *bake_off(found),
        Measurement("label_correlation", 0.3, subject=name, target="b", low=0.2, high=0.4, n=100),
        Measurement("left_out", 3.0, target="not_decoded", n=rows, status="not_decoded"),
    ]


def page(stage: str, rows: list[Measurement]) -> str:
    return str(measured(Measured("step", stage, tuple(rows))))


def test_an_evaluation_reads_as_sentences() -> None:
    text = page("evaluate", evaluated())
    for part in (
        "one σ of strength moves <b>a by +",
        "It also moves b +",
        "no score of its own",
        "3 images left out: not decoded",
        "constant score",
        "Data, model or scorer?",
        "the edit works less here than on other images",
        "Which direction does it best",
        "<details><summary>How each number is defined",
        "Labels: which go together",
        "Scorer: what it takes for what",
        "from the scorer",
        "The parts add up to the whole leak",
        "How far edited pictures drift",
        "the same 100 images unedited",
    ):
        assert part in text, part
    assert ">nan" not in text.lower()


def test_without_a_response_no_culprit_is_named() -> None:
    text = page("evaluate", evaluated(scorer=False))
    assert "model, or scorer" in text
    assert "own leaks are in it" in text
    assert "not measured" in text
    assert "Scorer: what it takes for what" not in text


def test_names_are_escaped() -> None:
    text = page("evaluate", evaluated(name="<script>"))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_few_images_still_make_a_page(rows: int) -> None:
    assert "How each number is defined" in page("evaluate", evaluated(rows=rows))


def comparison(*, related: bool) -> list[Measurement]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 4))
    y = x[:, ::-1] if related else rng.standard_normal((200, 4))
    batch = batch_of(np.concatenate([x, y], axis=1).astype(np.float32), {"label": [None] * 200})
    found, _ = carried(compare(Settings(4, 4)), [[batch]])
    about = Measurement("compared", 200.0, subject="ab" * 32, n=200, status=found.status, message=found.message)
    ported = (
        agreement(0.98, 40, subject="ported.smile", kept=1.0, confidence=0.95)
        if related
        else Measurement("ported_agreement", subject="ported.smile", status="refused", message=found.message)
    )
    return [about, *found.measurements, ported]


def test_a_comparison_says_its_verdict_first() -> None:
    text = page("compare", comparison(related=True))
    assert "The spaces match: 1 of 1 directions were carried over." in text
    assert "0.980" in text
    refused = page("compare", comparison(related=False))
    assert "Nothing was carried over: held-out disparity" in refused
    assert 'class="note">refused' in refused
    assert "Same geometry?" in refused


def test_a_comparison_of_nothing_says_so() -> None:
    about = Measurement("compared", 0.0, subject="ab", n=0, status="no_rows", message="no image has both")
    assert "no image has both" in page("compare", [about])


def test_an_edit_that_goes_backwards_in_a_slice_is_drawn_as_far_as_it_goes() -> None:
    rows = [
        Measurement("slice_effect", v, "a", at, v - 0.1, v + 0.1, 40)
        for v, at in ((1.0, "cap=True"), (-2.0, "cap=False"))
    ]
    page = where_it_works(rows)
    assert page is not None
    assert [float(w) for w in re.findall(r'class="fill" style="width:([\d.]+)%', page)] == [47.62, 95.24]


def test_a_score_that_tells_nothing_is_said_beside_its_effect() -> None:
    effect = Measurement("effect", 0.7, "old", "old", 0.6, 0.8, 40, "σ a sigma", detail='{"own": true}')
    blind = Measurement(
        "readout_r2", 0.01, "", "old", n=40, status="at_chance", message="the score of old tells nothing"
    )
    assert "The score of old tells nothing." in evaluate([effect, blind])
    assert "tells nothing" not in evaluate([effect])


def test_curves_carry_their_intervals_and_pass_through_zero() -> None:
    told = {
        "own": True,
        "strengths": [-1, 1, 2],
        "curve": [-1.0, 1.0, 1.5],
        "low": [-1.2, 0.9, 1.0],
        "high": [-0.8, 1.1, 2.0],
    }
    made = Measurement("effect", 0.9, "a", "a", 0.8, 1.0, 40, "σ a σ of strength", detail=json.dumps(told))
    page = curves({("effect", "a", "a"): made}, ["a"], ["a"])
    assert page is not None
    (band,) = re.findall(r'<polygon points="([^"]+)" class="band ink0"', page)
    corners = [tuple(map(float, p.split(","))) for p in band.split()]
    assert len(corners) == 8 and corners[1] == corners[6], "no interval at strength 0"
    assert corners[0][1] < corners[7][1] and corners[3][1] < corners[4][1], "the upper end lies above"
    few = Measurement("effect", 0.9, "a", "a", detail=json.dumps(told | {"low": [None] * 3, "high": [None] * 3}))
    assert "polygon" not in curves({("effect", "a", "a"): few}, ["a"], ["a"])


def test_labels_and_effects_that_may_be_nothing_are_pale() -> None:
    rows = [
        Measurement("label_correlation", 0.02, "a", "b", -0.1, 0.14, 200),
        Measurement("label_correlation", 0.6, "a", "c", 0.5, 0.7, 200),
        Measurement("label_correlation", 0.33, "b", "c", n=5, message="no interval"),
        Measurement("effect", 0.9, "a", "a", detail='{"real": true}'),
        Measurement("effect", 0.01, "a", "b", detail='{"real": false}'),
    ]
    page = together({(m.metric, m.subject, m.target): m for m in rows}, ["a"], ["a", "b"])
    assert page is not None and "correlation, of 200 images" in page and "−0.10 – 0.14" in page
    cells = re.findall(r'<td[^>]*class="([^"]*)"[^>]*>(?:<[^>]*>)*([−0-9.]+)', page)
    assert {text for kind, text in cells if "pale" in kind} == {"0.02", "0.01", "0.33"}


@pytest.mark.parametrize("stage", ["fidelity", "disentanglement", "project"])
def test_rows_that_took_no_part_are_told_under_the_section(stage: str) -> None:
    gone = Measurement("left_out", 5, target="non_finite", n=60, status="non_finite")
    assert "5 left out: non finite" in measured(Measured("x", stage, (gone,)))
    assert "left out" not in measured(Measured("x", stage, ()))
