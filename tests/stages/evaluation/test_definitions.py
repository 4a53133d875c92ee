"""Each number of an evaluation against its definition, written out again, where the ordinary cases cannot tell two definitions apart.

Bent responses, uneven grids, edits that do nothing or the opposite, slices of several labels, groups: what a codec of known
effects (test_effects.py) never shows.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from schemas.measurements import Measurement
from stages.attributes import Column
from stages.evaluation.attribution import leaks
from stages.evaluation.bake_off import bake_off
from stages.evaluation.design import Design, Edit, Slice
from stages.evaluation.effects import Effects
from stages.evaluation.features import Layout, identity_features, no_features, picture_features, score_features
from stages.evaluation.groups import group_hashes
from stages.evaluation.questions import questions
from stages.evaluation.replicates import Results
from stages.evaluation.slices import slices
from stages.report.evaluated_edits import table
from stages.row_hash import hash_ids

N, GRID = 40, (-1.0, 0.5, 3.0)
AXES = np.eye(4)


def edit(name: str, at: int) -> Edit:
    return Edit(name, name, "ols", AXES[at], np.zeros(4), 1.0)


EDITS = (edit("a", 0), edit("b", 1))


def design(**changes: Any) -> Design:
    return Design(
        **{"edits": EDITS, "strengths": GRID, "unit": "latent", "attributes": ("a", "b"), "replicates": 40} | changes
    )


def results(
    asked: Design, deltas: np.ndarray, *, member: np.ndarray | None = None, weights: Any = None, still: bool = False
) -> Results:
    """Of N images whose scores change by `deltas` (n, edits, strengths, scores); `member` (n, slices). `still`: score 0 never varies."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((N, 1, len(asked.attributes)))
    if still:
        base[:, :, 0] = 3.0
    scores = np.concatenate([base, base + deltas.reshape(N, -1, len(asked.attributes))], axis=1)
    origin = base[:, 0].mean(axis=0)
    found = score_features(asked, scores, origin, np.zeros((N, 0)) if member is None else member.astype(float))
    found |= no_features(asked, ["identity", "beside", "inside", "change", "moving", "step_ratio", "bend"], N)
    layout = Layout.of(asked)
    if weights is None:
        weights = rng.poisson(1, (asked.replicates, N))
    sums = np.vstack([np.ones(N), weights]) @ layout.pack(found, N)
    return Results(asked, Effects(sums, origin, rows=N), 0.95)


def responses(rng: np.random.Generator, *, bent: float = 0.0, still: bool = False) -> np.ndarray:
    """(n, 2, strengths, 2): each edit's own score answers by a slope of the image's own, bent by α²; the others by noise."""
    alphas = np.array(GRID)
    own = rng.uniform(0.5, 2, (N, 2, 1)) * alphas + bent * rng.uniform(0.5, 1, (N, 2, 1)) * alphas**2
    deltas = 0.05 * rng.standard_normal((N, 2, len(GRID), 2))
    for i in range(2):
        deltas[:, i, :, i] = 0 if still and i == 0 else own[:, i]
    return deltas


def by(found: Any) -> dict[tuple[str, str, str], Measurement]:
    return {(m.metric, m.subject, m.target): m for m in found}


def value(found: dict[tuple[str, str, str], Measurement], *key: str) -> float:
    number = found[key].value  # type: ignore[index]
    assert number is not None
    return number


def test_linearity_and_curvature_of_a_bent_response() -> None:
    deltas = responses(np.random.default_rng(1), bent=0.6)
    found = by(questions(results(design(), deltas), false_discoveries=0.05))
    alphas, own = np.array(GRID), deltas[:, 0, :, 0]
    residual = [d - alphas * (alphas @ d) / (alphas @ alphas) for d in own]
    r2 = 1 - np.square(residual).sum() / np.square(own).sum()
    assert r2 < 0.97
    assert value(found, "linearity", "a", "a") == pytest.approx(r2)
    line, square = np.linalg.lstsq(np.stack([alphas, alphas**2], axis=1), own.mean(axis=0), rcond=None)[0]
    assert value(found, "curvature", "a", "a") == pytest.approx(square * 3 / line)


def test_a_share_of_everybody_is_not_certain() -> None:
    """All of 40 images say that at most 8.8 % of images do otherwise, not that none does: every replicate says 1."""
    found = by(questions(results(design(), responses(np.random.default_rng(2))), false_discoveries=0.05))
    told = found["hit_rate", "b", "b"]
    assert told.value == told.high == 1
    assert told.low == pytest.approx(0.025 ** (1 / N), abs=0.01)


def test_an_edit_that_does_nothing_hits_nobody_and_goes_back_on_nobody() -> None:
    deltas = responses(np.random.default_rng(2), still=True)
    found = by(questions(results(design(), deltas), false_discoveries=0.05))
    assert value(found, "hit_rate", "a", "a") == 0
    assert value(found, "monotonicity", "a", "a") == 1
    assert value(found, "hit_rate", "b", "b") == 1
    shares = {*questions(results(design(), deltas), false_discoveries=0.05), *leaks(results(design(), deltas))}
    none = {
        m.metric: m.status for m in shares if m.subject == "a" and m.value is None and m.metric != "identity_cosine"
    }
    assert none.pop("leak") == "no_effect"
    # The score varies; it is the edit that does not move it.
    assert none == dict.fromkeys(("linearity", "curvature", "step_ratio"), "no_change")
    still = by(questions(results(design(), np.zeros_like(deltas), still=True), false_discoveries=0.05))
    assert still["linearity", "a", "a"].status == "constant_score"
    assert all(m.message for m in still.values() if m.status != "ok"), "a reason beside every status"
    assert by(questions(results(design(), np.zeros_like(deltas)), false_discoveries=0.05))["leak_share", "a", "a"].status == "no_change"  # fmt: skip


def test_one_strength_says_nothing_of_the_way() -> None:
    """A line through 0 and one point is always straight, and one step always even: R² of 1 would be no finding."""
    asked = design(strengths=(2.0,))
    found = results(asked, responses(np.random.default_rng(1), bent=0.6)[:, :, 2:])
    found.sums("moving")[:] = 1
    told = by(questions(found, false_discoveries=0.05))
    for metric, target in (("linearity", "a"), ("curvature", "a"), ("step_ratio", ""), ("second_difference", "")):
        assert (told[metric, "a", target].value, told[metric, "a", target].status) == (None, "one_strength")
        assert "ask for two or more" in told[metric, "a", target].message
    assert value(told, "hit_rate", "a", "a") == 1
    shown = str(table(told, ["a", "b"]))
    assert "moved as asked" in shown and "evenness" not in shown and "straight" not in shown


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_handful_of_images_has_side_effects_too(n: int) -> None:
    """Some replicates draw none of them, which is no reason to say that a score is constant."""
    weights = np.random.default_rng(0).poisson(1, (40, N)) * (np.arange(N) < n)
    assert (weights.sum(axis=1) == 0).any() or n == 5
    found = results(design(), responses(np.random.default_rng(1)), weights=weights)
    found.state.sums[0] = found.state.sums[0] * n / N
    one = by(questions(found, false_discoveries=0.05))["side_effect", "a", ""]
    assert one.value is not None and (one.low, one.high, one.status) == (None, None, "ok")


def test_a_score_that_varies_by_rounding_alone_is_constant() -> None:
    """Seven tenths summed in another order: no unit for an effect, also where the origin is one of them."""
    scores = np.full((N, 7, 2), 0.7)
    scores[:, :, 0] += np.random.default_rng(0).integers(0, 2, (N, 7)) * 1.1e-16
    found = score_features(design(), scores, scores[0, 0], np.zeros((N, 0)))
    found |= no_features(design(), ["identity", "beside", "inside", "change", "moving", "step_ratio", "bend"], N)
    layout = Layout.of(design())
    sums = np.ones((41, N)) @ layout.pack(found, N)
    assert np.isnan(Results(design(), Effects(sums, scores[0, 0], rows=N), 0.95).sigma).all()


def test_a_slice_of_one_person_has_no_effect_however_many_images() -> None:
    """Twelve images of one person would else be a discovery at p = 1e-7, with an interval of the others' noise alone."""
    rng = np.random.default_rng(0)
    who = np.concatenate([np.zeros(12, int), np.arange(1, N - 11)])
    deltas, cap = responses(rng), who == 0
    deltas[cap, 0, :, 0] *= 0.5
    sliced = tuple(Slice(f"cap={h}", Column("cap", "cap", "bool"), holds=h) for h in (True, False))
    weights = rng.poisson(1, (200, N - 11))[:, who]
    asked = design(slices=sliced, replicates=200, group="who")
    told = by(slices(results(asked, deltas, member=np.stack([cap, ~cap], axis=1), weights=weights), false_discoveries=0.05))  # fmt: skip
    one = told["slice_effect", "a", "cap=True"]
    assert (one.value, one.status, one.n) == (None, "too_few", 12) and "of about 1 values of who" in one.message
    assert not any(metric == "slice_interaction" for metric, _, _ in told)


@pytest.mark.parametrize("way", [1, -1])
def test_less_is_less_of_what_the_edit_does_elsewhere_whichever_way_that_is(way: int) -> None:
    """An edit that lowers its score works less where it lowers it less."""
    sliced = tuple(Slice(f"cap={h}", Column("cap", "cap", "bool"), holds=h) for h in (True, False))
    cap, deltas = np.arange(N) % 2 == 0, way * responses(np.random.default_rng(0))
    deltas[cap, 0, :, 0] *= 0.2
    found = results(design(slices=sliced), deltas, member=np.stack([cap, ~cap], axis=1))
    told = by(slices(found, false_discoveries=0.05))
    assert told["slice_interaction", "a", "cap=True"].message == "the edit works less here than on other images"
    assert told["slice_interaction", "a", "cap=False"].message == "the edit works more here than on other images"


def test_a_score_that_never_varies_has_no_effect_in_a_slice_and_that_is_why() -> None:
    sliced = tuple(Slice(f"cap={h}", Column("cap", "cap", "bool"), holds=h) for h in (True, False))
    cap = np.arange(N) % 2 == 0
    asked, member = design(slices=sliced), np.stack([cap, ~cap], axis=1)
    told = by(slices(results(asked, responses(np.random.default_rng(0)), member=member, still=True), false_discoveries=0.05))  # fmt: skip
    assert {told["slice_effect", "a", s.name].status for s in sliced} == {"constant_score"}
    assert {told["slice_effect", "b", s.name].status for s in sliced} == {"ok"}


def test_equal_directions_share_their_rank() -> None:
    twins = tuple(Edit(name, "a", name, AXES[0], np.zeros(4), 1.0) for name in ("one", "two", "worse"))
    deltas = np.repeat(responses(np.random.default_rng(5))[:, :1], 3, axis=1)
    deltas[:, 2, :, 1] += 0.3
    told = by(bake_off(results(design(edits=twins), deltas)))
    found = {name: json.loads(told["bake_off", name, "a"].detail) for name in ("one", "two", "worse")}
    assert [found[n]["rank"] for n in found] == [1, 1, 3]
    assert [found[n]["first"] for n in found] == [0.5, 0.5, 0]


def test_smoothness_takes_steps_by_their_strength() -> None:
    """A picture that changes evenly with α on an uneven grid: one speed, no bend. And one that turns off halfway."""
    asked = design(edits=EDITS[:1])
    even, turned = torch.zeros(1, 4, 2, 2, 3, dtype=torch.uint8), torch.zeros(1, 4, 2, 2, 3, dtype=torch.uint8)
    for at, alpha in enumerate((0.0, *GRID)):
        even[:, at, 0, 0, 0] = int(100 + 40 * alpha)
        turned[:, at, 0, 0, 0] = int(100 + 40 * min(alpha, 0.5))
        turned[:, at, 0, 0, 1] = int(40 * max(alpha - 0.5, 0))
    straight, bent = (picture_features(asked, p) for p in (even, turned))
    assert straight["step_ratio"][0, 0] == pytest.approx(1) and straight["bend"][0, 0] == pytest.approx(0, abs=1e-5)
    assert bent["step_ratio"][0, 0] == pytest.approx(1)
    # Three speeds of 40 grey levels a unit, two turns between them: none, and one of a right angle.
    assert bent["bend"][0, 0] == pytest.approx(np.sqrt(2) / 2, rel=1e-3)


def test_a_mask_is_top_left_bottom_right_in_shares_of_the_sides() -> None:
    """Three rows of eight and half of four columns: of a picture that changes by its place, only those count."""
    asked = design(edits=(Edit("a", "a", "ols", AXES[0], np.zeros(4), 1.0, mask=(0.25, 0.5, 0.625, 1.0)),), strengths=(1.0,))  # fmt: skip
    pictures = torch.zeros(1, 2, 8, 4, 3, dtype=torch.uint8)
    pictures[0, 1] = torch.arange(96).view(8, 4, 3)
    found, moved = picture_features(asked, pictures), np.arange(96).reshape(8, 4, 3)
    assert found["inside"][0, 0, 0] == pytest.approx(moved[2:5, 2:4].sum() / 255)
    assert found["change"][0, 0, 0] == pytest.approx(moved.sum() / 255)


def test_identity_leaves_out_the_edits_own_direction_and_is_about_the_mean() -> None:
    rng = np.random.default_rng(3)
    mean = np.array([5.0, -3, 2, 1])
    asked = design(edits=(Edit("a", "a", "ols", AXES[0], mean, 1.0),), strengths=(1.0,))
    encoded = rng.standard_normal((6, 2, 4)) + mean
    found = identity_features(asked, encoded)["identity"][:, 0, 0]
    here, there = (encoded[:, k, 1:] - mean[1:] for k in (0, 1))
    expected = (here * there).sum(1) / np.linalg.norm(here, axis=1) / np.linalg.norm(there, axis=1)
    np.testing.assert_allclose(found, expected)


def test_pictures_with_nothing_beside_the_direction_have_no_identity_cosine_and_are_counted() -> None:
    rng = np.random.default_rng(3)
    mean = np.array([5.0, -3, 2, 1])
    asked = design(edits=(Edit("a", "a", "ols", AXES[0], mean, 1.0),), strengths=(-1.0, 1.0))
    encoded = (rng.standard_normal((6, 3, 4)) + mean).astype(np.float32)
    whole = identity_features(asked, encoded)
    assert whole["beside"].all()
    encoded[1, 0] = mean + 2 * AXES[0]  # the unedited code: no picture of this row has a cosine
    encoded[4, 2] = mean  # one edited code at the mean
    found = identity_features(asked, encoded)
    beside = np.ones((6, 1, 2))
    beside[1], beside[4, 0, 1] = 0, 0
    np.testing.assert_array_equal(found["beside"], beside)
    np.testing.assert_allclose(found["identity"], whole["identity"] * beside)
    alone = design(edits=(Edit("a", "a", "ols", np.array([-1.0]), np.array([0.3]), 1.0),), strengths=(1.0,))
    one = identity_features(alone, rng.standard_normal((6, 2, 1)).astype(np.float32))
    assert not one["beside"].any() and not one["identity"].any()


def test_an_identity_cosine_is_the_mean_of_the_pictures_that_have_one() -> None:
    found = results(design(), responses(np.random.default_rng(0)))
    pictures = N * len(GRID)
    found.sums("beside")[:, 0], found.sums("identity")[:, 0] = found.weight[:, None], 0.8 * found.weight[:, None]
    found.sums("beside")[:, 0, 0], found.sums("identity")[:, 0, 0] = 0, 0
    told = {m.subject: m for m in questions(found, false_discoveries=0.05) if m.metric == "identity_cosine"}
    one = told["a"]
    assert one.value == pytest.approx(0.8) and one.status == "ok"
    assert one.message == f"{N} of {pictures} pictures left out: nothing stands beside the direction"
    assert json.loads(one.detail) == {"curve": [None, *[0.8] * (len(GRID) - 1)], "left_out": N}
    assert (told["b"].value, told["b"].status) == (None, "nothing_beside")


def test_a_slice_is_held_against_the_others_of_its_own_label() -> None:
    rng = np.random.default_rng(4)
    deltas = responses(rng)
    cap, old = rng.random(N) < 0.5, rng.random(N) < 0.3
    deltas[cap, 0, :, 0] *= 0.2
    sliced = tuple(
        Slice(f"{name}={h}", Column(name, name, "bool"), holds=h) for name in ("cap", "old") for h in (True, False)
    )
    found = results(design(slices=sliced), deltas, member=np.stack([cap, ~cap, old, ~old], axis=1))
    told = by(slices(found, false_discoveries=0.05))
    alphas, sigma = np.array(GRID), found.sigma[0, 0]
    slope = deltas[:, 0, :, 0] @ alphas / (alphas @ alphas) / sigma
    for name, inside in (("cap=True", cap), ("old=True", old)):
        assert value(told, "slice_effect", "a", name) == pytest.approx(slope[inside].mean())
        gap = slope[inside].mean() - slope[~inside].mean()
        assert value(told, "slice_interaction", "a", name) == pytest.approx(gap)


def test_the_bake_off_gives_nothing_to_an_edit_that_goes_the_wrong_way() -> None:
    rng = np.random.default_rng(5)
    rivals = (edit("good", 0), edit("wrong", 1))
    rivals = tuple(Edit(e.name, "a", e.estimator, e.vector, e.mean, 1.0) for e in rivals)
    deltas = responses(rng)
    deltas[:, 1] = -deltas[:, 0]
    found = by(bake_off(results(design(edits=rivals), deltas)))
    assert value(found, "bake_off", "good", "a") > 0.9
    assert value(found, "bake_off", "wrong", "a") == 0


def test_a_score_that_never_varies_ranks_nobody() -> None:
    rivals = tuple(Edit(name, "a", name, np.eye(2)[i], np.zeros(2), 1.0) for i, name in enumerate(("one", "two")))
    found = by(bake_off(results(design(edits=rivals), responses(np.random.default_rng(9)), still=True)))
    assert {m.status for m in found.values()} == {"constant_score"} and {m.value for m in found.values()} == {None}


def test_images_without_the_group_label_stand_on_their_own() -> None:
    labels = pa.StructArray.from_arrays([pa.array(["ann", "ann", None, None])], names=["person"])
    own = hash_ids(pa.array(["1", "2", "3", "4"]))
    found = group_hashes(labels, "person", own)
    assert found[0] == found[1] and list(found[2:]) == list(own[2:])
    assert (group_hashes(labels, None, own) == own).all()


def test_images_without_groups_are_counted_not_estimated() -> None:
    """The variance of twenty replicates is a third off either way: eleven images must not become nine by it."""
    weights = np.random.default_rng(8).poisson(1, (20, 1)) * (np.arange(N) < 11)  # as spread as those of one image
    found = [results(design(replicates=20, group=g), responses(np.random.default_rng(7)), weights=weights) for g in (None, "who")]  # fmt: skip
    for one in found:
        one.state.sums[0] *= 11 / N
    assert found[0].images == pytest.approx(11) and found[1].images < 5


def test_few_groups_have_no_interval_however_many_images() -> None:
    """Forty images of five people are five: the weights of a person's images are one number."""
    weights = np.repeat(np.random.default_rng(6).poisson(1, (400, 5)), N // 5, axis=1)
    deltas = responses(np.random.default_rng(7))
    people = design(replicates=400, group="who")
    found = by(questions(results(people, deltas, weights=weights), false_discoveries=0.05))
    assert (found["effect", "a", "a"].low, found["effect", "a", "a"].high) == (None, None)
    alone = by(questions(results(design(replicates=400), deltas), false_discoveries=0.05))
    assert alone["effect", "a", "a"].low is not None
