"""Evaluation on codecs whose effects are known: the numbers, their independence of how rows are split, and what leaves."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.codec import LinearCodec, Preprocess
from schemas.errors import JobError
from schemas.measurements import Measurement
from stages.attributes import Column
from stages.evaluation.attribution import leaks
from stages.evaluation.bake_off import bake_off
from stages.evaluation.design import Design, Edit, Slice
from stages.evaluation.effects import Effects, Evaluation
from stages.evaluation.models import CodecSource
from stages.evaluation.questions import questions
from stages.evaluation.readout import directions_readout
from stages.evaluation.replicates import Results
from stages.evaluation.slices import slices
from tests.labelled import batch_of, chunks, reduced, uneven
from tests.stages_evaluation import leaky_stage as leaky

AXES = np.eye(4)
GRID = (-2.0, -1.0, 1.0, 2.0)
KAPPA = 0.5


def edit(name: str, vector: Any, **more: Any) -> Edit:
    vector = np.asarray(vector, float)
    return Edit(name, more.pop("attribute", name), more.pop("estimator", "ols"), vector / np.linalg.norm(vector), np.zeros(4), 1.0, **more)  # fmt: skip


EDITS = (edit("a", AXES[0]), edit("b", AXES[1]))


def rows(n: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 4)).astype(np.float32)


def labels(n: int = 80) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    return {"old": rng.random(n) < 0.5, "who": [f"person {i // 4}" for i in range(n)]}


def design(**changes: Any) -> Design:
    return Design(**{"edits": EDITS, "strengths": GRID, "unit": "latent", "attributes": ("a", "b")} | changes)


def answers(found: Results) -> dict[tuple[str, str, str], Measurement]:
    answered = [
        *questions(found, false_discoveries=0.05),
        *leaks(found),
        *slices(found, false_discoveries=0.05),
        *bake_off(found),
    ]
    return {(m.metric, m.subject, m.target): m for m in answered}


def evaluated(stage: Evaluation, batch: pa.RecordBatch) -> dict[tuple[str, str, str], Measurement]:
    return answers(Results(stage.design, stage.add(stage.start(), batch), 0.95))


def test_every_question_in_closed_form() -> None:
    latents = rows()
    stage = leaky(design(edits=(edit("a", AXES[0], mask=(0, 0, 1, 1 / 16)), EDITS[1])))
    found = evaluated(stage, batch_of(latents, labels()))
    sigma = [float(latents[:, 0].std()), float((latents[:, 1] + KAPPA * latents[:, 0]).std())]
    for metric, subject, target, expected in [
        ("score_sigma", "", "a", sigma[0]),
        ("score_sigma", "", "b", sigma[1]),
        ("edit_strength", "a", "a", 1 / sigma[0]),
        ("effect", "a", "b", KAPPA / sigma[1]),
        ("effect", "b", "a", 0),
        ("effect", "b", "b", 1 / sigma[1]),
        ("preservation", "a", "b", 1.5 * KAPPA / sigma[1]),
        ("leak", "a", "b", KAPPA * sigma[0] / sigma[1]),
        ("leak_share", "b", "b", 0),
        ("hit_rate", "a", "a", 1),
        ("monotonicity", "a", "a", 1),
        ("linearity", "a", "a", 1),
        ("curvature", "a", "a", 0),
        ("step_ratio", "a", "", 1),
        ("locality_mask", "a", "", 1 / (1 + KAPPA)),
    ]:
        got = found[metric, subject, target]
        assert got.value == pytest.approx(expected, abs=0.02), (metric, subject, target)
        assert got.low is not None and got.high is not None
        assert got.low <= got.value <= got.high
        assert (got.n, got.status) == (80, "ok")
    detail = json.loads(found["leak", "a", "b"].detail)
    assert detail["in_score_units"] == pytest.approx(KAPPA, abs=0.01)
    curve = json.loads(found["effect", "a", "b"].detail)["curve"]
    assert curve == pytest.approx([KAPPA * s / sigma[1] for s in GRID], abs=0.02)


@pytest.mark.parametrize("blind", [False, True])
def test_identity_is_what_stays_beside_the_direction(blind: bool) -> None:
    """The edit's own latent does not count. A blind encoder sees latent 1 move by κα as well, and that counts."""
    one = design(edits=EDITS[:1], strengths=(-2.0, 2.0))
    latents = rows().astype(float)
    found = evaluated(leaky(one, blind=blind), batch_of(rows(), labels()))["identity_cosine", "a", ""]
    here = latents[:, 1:] + np.array([KAPPA, 0, 0]) * latents[:, :1] * blind
    cosines = []
    for alpha in one.strengths:
        there = here + np.array([KAPPA * alpha, 0, 0]) * blind
        cosines.append((here * there).sum(1) / np.linalg.norm(here, axis=1) / np.linalg.norm(there, axis=1))
    assert found.value == pytest.approx(np.mean(cosines), abs=2e-3)
    assert blind == (found.value < 0.95)


@pytest.mark.parametrize("seed", range(3))
def test_any_split_gives_the_same_sums(seed: int) -> None:
    batch = batch_of(rows(200) + 3, labels(200))
    stage = leaky(design(slices=(Slice("old=true", Column("old", "old", "bool")),), group="who", replicates=40))
    whole = stage.add(stage.start(), batch)
    parts: Effects = reduced(stage, list(uneven(batch, seed)))
    assert (parts.rows, parts.non_finite) == (whole.rows, 0) == (200, 0)
    assert whole.origin is not None
    together = stage._about(whole.origin, parts)
    np.testing.assert_allclose(together, whole.sums, rtol=1e-9, atol=1e-9)


def test_scores_far_from_zero_keep_their_spread() -> None:
    """σ of scores that sit at 10⁶: squares about zero would leave nothing of it."""
    readout = directions_readout({"a": (AXES[0], np.array([-1e6, 0, 0, 0])), "b": (AXES[1], np.zeros(4))})
    spec = LinearCodec(dim=4, preprocess=Preprocess(size=8))
    stage = Evaluation(design(readout=readout), CodecSource(spec, lambda: None))
    stage.open("cpu")
    batch = batch_of(rows() / 10, labels())
    state = reduced(stage, [[part] for part in chunks(batch, 7)])
    sigma = Results(stage.design, state, 0.95).sigma[0]
    assert sigma == pytest.approx(rows()[:, :2].std(axis=0) / 10, rel=0.02)


def test_rows_that_cannot_be_paired_leave_and_are_counted() -> None:
    latents = rows()
    latents[3, 0] = np.nan
    latents[5, 3] = 2e6  # the codec raises on it
    latents[7, 1] = 4.5  # the scorer gives NaN where b goes above 6
    clean = np.delete(latents, [3, 5, 7], axis=0)
    options = {"dislikes": 6.0, "kappa": 0.0}
    stage = leaky(design(), **options)
    state = stage.add(stage.start(), batch_of(latents, labels()))
    assert (state.rows, state.non_finite, state.not_decoded, state.not_scored) == (77, 1, 1, 1)
    kept = stage.add(stage.start(), batch_of(clean, labels(77), ids=[f"faces/{i:06d}.jpg" for i in range(80) if i not in (3, 5, 7)]))  # fmt: skip
    assert kept.origin is not None
    np.testing.assert_allclose(stage._about(kept.origin, state), kept.sums, atol=1e-9)


def test_nothing_left_is_a_status() -> None:
    stage = leaky(design())
    found = evaluated(stage, batch_of(np.full((2, 4), np.nan, np.float32), labels(2)))
    assert {m.status for m in found.values() if m.metric in ("effect", "hit_rate")} == {"too_few"}
    assert all(m.value is None for m in found.values() if m.metric != "step_ratio")


def test_few_images_have_a_value_and_no_interval() -> None:
    found = evaluated(leaky(design()), batch_of(rows(5), labels(5)))["effect", "a", "a"]
    assert found.value is not None
    assert (found.low, found.high) == (None, None)
    assert "no interval" in found.message


def test_a_score_that_never_varies_has_no_unit() -> None:
    latents = rows()
    latents[:, 2] = 0
    stage = leaky(design(attributes=("a", "b", "c")))
    found = evaluated(stage, batch_of(latents, labels()))
    assert found["effect", "a", "c"].status == "constant_score"
    assert found["effect", "a", "c"].value is None
    assert found["effect", "a", "a"].status == "ok"


def test_an_edit_that_fails_on_a_slice_is_found_and_no_other() -> None:
    """Where latent 3 is positive the codec shows nothing of latent 0: the edit of `a` fails on `cap`, and `old` is innocent."""
    latents = rows(300)
    given = {"cap": latents[:, 3] > 0, "old": labels(300)["old"]}
    sliced = tuple(
        Slice(f"{name}={word}", Column(name, name, "bool"), holds=holds)
        for name in given
        for word, holds in (("true", True), ("false", False))
    )
    found = evaluated(leaky(design(slices=sliced), deaf=3), batch_of(latents, given))
    assert found["slice_effect", "a", "cap=true"].value == pytest.approx(0, abs=0.01)
    assert found["slice_effect", "a", "cap=false"].value > 1
    assert found["slice_interaction", "a", "cap=true"].status == "differs"
    assert "less" in found["slice_interaction", "a", "cap=true"].message
    assert found["slice_interaction", "a", "old=true"].status == "ok"
    assert found["slice_interaction", "b", "cap=true"].status == "ok"


def test_a_slice_with_too_few_images_is_a_status() -> None:
    given = {"cap": [True] * 4 + [False] * 76}
    sliced = tuple(Slice(f"cap={h}", Column("cap", "cap", "bool"), holds=h) for h in (True, False))
    found = evaluated(leaky(design(slices=sliced)), batch_of(rows(), given))
    assert found["slice_effect", "a", "cap=True"].status == "too_few"


def test_the_bake_off_ranks_by_effect_over_leak_not_by_auc() -> None:
    """The direction with the worse AUC moves only its target; the one that tells classes apart best leaks."""
    rivals = (edit("clean", [1, -KAPPA, 0, 0], attribute="a", auc=0.6), edit("keen", AXES[0], attribute="a", auc=0.99), EDITS[1])  # fmt: skip
    found = evaluated(leaky(design(edits=rivals)), batch_of(rows(), labels()))
    first, second = (json.loads(found["bake_off", n, "a"].detail) for n in ("clean", "keen"))
    assert (first["rank"], second["rank"]) == (1, 2)
    assert first["first"] == 1.0
    assert found["bake_off", "clean", "a"].value == pytest.approx(1, abs=0.01)


def test_groups_widen_the_interval() -> None:
    """Scores spread with the group alone: ten groups are not eighty images."""
    latents = np.repeat(rows(20), 4, axis=0)
    width = []
    for group in (None, "who"):
        found = evaluated(leaky(design(group=group, replicates=400)), batch_of(latents, labels()))
        sigma = found["score_sigma", "", "a"]
        width.append(sigma.high - sigma.low)
    assert width[1] > 1.5 * width[0]


def test_sums_that_would_not_fit_are_refused() -> None:
    many = tuple(edit(f"e{i}", AXES[i % 4]) for i in range(60))
    with pytest.raises(JobError, match="fewer directions"):
        leaky(design(edits=many, attributes=tuple(f"s{i}" for i in range(60)), replicates=5000))
