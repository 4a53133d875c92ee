"""Data or model: labels that go together (ρ) and a codec that ties two latents (κ), told apart from decoded pictures.

latent-science §6: leak_raw = ρμ₁/μ₀ + κ and leak_balanced = κ. With ρ=.6, μ₁/μ₀=1.5, κ=.5 that is 1.4 and .5: "1.392 and .500" are
the two leaks of one simulation. The issue's ".892/.500" is the same simulation's split: the data's part, leak_raw −
leak_balanced (.9 in truth), and the model's. Leaks here are in score units, as in the simulation.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from schemas.measurements import Measurement
from schemas.source import LabelType
from stages.attributes import Column
from stages.evaluation.attribution import blame, leaks
from stages.evaluation.design import Design, Edit
from stages.evaluation.entanglement import LabelCorrelation, direction_cosines, label_correlations
from stages.evaluation.refits import Refit, Refits, gradient
from stages.evaluation.replicates import Results
from stages.moments import Moments
from tests.labelled import batch_of, directions, reduced, step, uneven
from tests.stages_evaluation import leaky_stage

RHO, RATIO, KAPPA = 0.6, 1.5, 0.5
TYPES: dict[str, LabelType] = {"a": "bool", "b": "bool"}
COLUMNS = (Column("a", "a", "bool"), Column("b", "b", "bool"))


def simulated(n: int, seed: int) -> tuple[pa.RecordBatch, np.ndarray]:
    """z = (±μ₀, ±μ₁, 0, 0) + noise, the two labels balanced and correlated by ρ."""
    rng = np.random.default_rng(seed)
    first = rng.random(n) < 0.5
    second = np.where(rng.random(n) < (1 + RHO) / 2, first, ~first)
    latents = 0.4 * rng.standard_normal((n, 4))
    latents[:, 0] += 0.5 * (2 * first - 1)
    latents[:, 1] += 0.5 * RATIO * (2 * second - 1)
    return batch_of(latents.astype(np.float32), {"a": first, "b": second}), latents


def split(n: int, seed: int, *, evaluated: int = 120, replicates: int = 100) -> dict[tuple[str, str, str], Measurement]:
    batch, latents = simulated(n, seed)
    plain = directions(step(estimator="mean_difference", holdout=0.0), TYPES, batch)["a"]
    ols = directions(step(holdout=0.0), TYPES, batch)["a"]
    edits = tuple(
        Edit(name, "a", name, d.vector, d.mean, d.sigma)  # type: ignore[arg-type]
        for name, d in (("mean_difference", plain), ("ols", ols))
    )
    design = Design(edits, (-1.0, 1.0), "sigma", ("a", "b"), identity=False, replicates=replicates, gradient=True)
    stage = leaky_stage(design, kappa=KAPPA)
    state = stage.add(stage.start(), batch.slice(0, evaluated))
    assert state.response is not None
    slopes = gradient(state.response)
    assert slopes is not None
    refit = Refit(COLUMNS, slopes, latents.mean(axis=0), replicates, 0, None)
    refits = Refits.of(reduced(refit, [[batch]]))
    found = Results(design, state, 0.95)
    return {(m.metric, m.subject, m.target): m for m in (*leaks(found), *blame(found, None, refits))}


def units(one: Measurement) -> tuple[float, float, float]:
    detail: dict[str, Any] = json.loads(one.detail)
    return detail["in_score_units"], detail["low"], detail["high"]


def test_data_and_model_are_told_apart() -> None:
    found = split(20_000, 0, evaluated=200)
    raw = units(found["leak", "mean_difference", "b"])[0]
    balanced = units(found["leak", "ols", "b"])[0]
    assert raw == pytest.approx(RHO * RATIO + KAPPA, abs=0.05)
    assert balanced == pytest.approx(KAPPA, abs=0.03)
    data, low, high = units(found["leak_data", "a", "b"])
    assert data == pytest.approx(raw - balanced, abs=1e-5)
    assert low < RHO * RATIO < high
    assert 0 < high - low < 0.1
    _, low, high = units(found["leak_model", "a", "b"])
    assert low < KAPPA < high
    assert 0 < high - low < 0.1


def test_the_split_is_within_its_interval_as_often_as_it_says() -> None:
    """60 simulations of 1,500 labels: 95 % intervals hold both truths at least 90 % of the time, and are not vacuous."""
    inside, width = np.zeros(2), []
    for seed in range(60):
        found = split(1500, seed, evaluated=60)
        for at, (metric, truth) in enumerate((("leak_data", RHO * RATIO), ("leak_model", KAPPA))):
            _, low, high = units(found[metric, "a", "b"])
            inside[at] += low <= truth <= high
            width.append(high - low)
    assert (inside >= 54).all(), inside
    assert max(width) < 0.25


def test_without_the_refits_the_interval_says_what_it_leaves_out() -> None:
    batch, _ = simulated(200, 0)
    axes = np.eye(4)
    edits = tuple(Edit(e, "a", e, axes[0], np.zeros(4), 1.0) for e in ("mean_difference", "ols"))
    stage = leaky_stage(Design(edits, (1.0,), "latent", ("a", "b"), identity=False))
    found = list(blame(Results(stage.design, stage.add(stage.start(), batch), 0.95)))
    assert [m.metric for m in found] == ["leak_data", "leak_model", "leak_scorer"]
    assert all("as given" in m.message for m in found[:2])
    assert (found[2].value, found[2].status) == (None, "not_measured")


def test_refits_are_the_fits_themselves() -> None:
    """Unweighted, the projections' fits are the directions' own, projected; any split gives the same."""
    batch, latents = simulated(900, 3)
    slopes = np.random.default_rng(0).standard_normal((2, 4))
    stage = Refit(COLUMNS, slopes, latents.mean(axis=0), 12, 0, None)
    sums = reduced(stage, [[batch]])
    np.testing.assert_allclose(reduced(stage, list(uneven(batch, 1))), sums, atol=1e-9)
    refits = Refits.of(sums)
    for estimator, mine in (("mean_difference", refits.plain), ("ols", refits.balanced)):
        fitted = directions(step(estimator=estimator, holdout=0.0), TYPES, batch)
        for i, name in enumerate(TYPES):
            one = fitted[name]
            assert one.vector is not None and one.raw_norm is not None
            np.testing.assert_allclose(mine[0, i], slopes @ one.vector * one.raw_norm, atol=1e-6)


def test_a_gradient_asks_for_twice_as_many_rows_as_numbers() -> None:
    rng = np.random.default_rng(1)
    z, slopes = rng.standard_normal((20, 4)), rng.standard_normal((2, 4))
    enough, few = (Moments.of(z[:n], y=z[:n] @ slopes.T, full=True) for n in (10, 9))
    assert gradient(few) is None
    np.testing.assert_allclose(gradient(enough), slopes, atol=1e-6)


def test_label_correlations_of_pairs_that_are_known() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(500) < 0.4, rng.standard_normal(500)
    second += first
    gaps = rng.random(500) < 0.3
    columns = (COLUMNS[0], Column("b", "b", "float"), Column("c", "c", "bool"))
    held = [None if gap else float(v) for v, gap in zip(second, gaps, strict=True)]
    batch = batch_of(np.zeros((500, 2), np.float32), {"a": first, "b": held, "c": [True] * 500})
    stage = LabelCorrelation(columns)
    sums = reduced(stage, list(uneven(batch, 0)))
    found = {(m.subject, m.target): m for m in label_correlations(sums, columns, confidence=0.95)}
    expected = np.corrcoef(first[~gaps], second[~gaps])[0, 1]
    assert found["a", "b"].value == pytest.approx(expected)
    assert found["a", "b"].n == int((~gaps).sum())
    assert found["a", "b"].low < expected < found["a", "b"].high
    assert found["a", "c"].status == "constant"


@pytest.mark.parametrize("offset", [0.0, 1e6, 1.7e9])
def test_correlations_of_labels_far_from_zero_are_those_of_the_labels(offset: float) -> None:
    """A year or a time is a label, too: sums of squares there have no digits left for a deviation of one."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(500)
    y, gaps = 0.5 * x + rng.standard_normal(500), rng.random(500) < 0.2
    labels = {
        "x": [None if g else v + offset for v, g in zip(x, gaps, strict=True)],
        "y": [*(y + offset)],
        "c": [offset] * 500,
    }
    stage = LabelCorrelation(tuple(Column(name, name, "float") for name in labels))
    state = reduced(stage, list(uneven(batch_of(np.zeros((500, 2), np.float32), labels), 1)))
    found = {(m.subject, m.target): m for m in label_correlations(state, stage.columns, confidence=0.95)}
    expected = np.corrcoef((x + offset)[~gaps], (y + offset)[~gaps])[0, 1]
    assert found["x", "y"].value == pytest.approx(expected, rel=1e-6) and found["x", "y"].n == int((~gaps).sum())
    assert found["x", "c"].status == found["y", "c"].status == "constant"


def correlation(labels: dict[str, Any], *, group: str | None = None, seed: int = 0) -> Measurement:
    n = len(labels["a"])
    ids = [f"{seed} {i}" for i in range(n)]
    stage = LabelCorrelation(COLUMNS, 200, 0, group)
    sums = stage.add(stage.start(), batch_of(np.zeros((n, 1), np.float32), labels, ids=ids))
    (found,) = label_correlations(sums, COLUMNS, confidence=0.95)
    return found


def covered(rho: float, *, people: int, pictures: int, told: bool, runs: int = 150) -> float:
    """How often the interval of two even labels that go together by ρ holds ρ. A person's labels are the same on all pictures."""
    inside = []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        first = rng.random(people) < 0.5
        second = np.where(rng.random(people) < (1 + rho) / 2, first, ~first)
        labels = {"a": np.repeat(first, pictures), "b": np.repeat(second, pictures)}
        who = {"who": np.repeat([f"{seed} {i}" for i in range(people)], pictures)}
        found = correlation(labels | who, group="who" if told else None, seed=seed)
        inside.append(found.low <= rho <= found.high)  # type: ignore[operator]
    return float(np.mean(inside))


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_interval_of_labels_covers(rho: float) -> None:
    """Fisher's 1/√(n − 3) holds ρ = .8 three times in four: φ of classes is no correlation of Gaussians."""
    assert 0.915 <= covered(rho, people=150, pictures=1, told=True) <= 0.985


def test_pictures_of_one_person_are_one_finding_of_their_labels() -> None:
    assert 0.915 <= covered(0.3, people=100, pictures=4, told=True) <= 0.985
    assert covered(0.3, people=100, pictures=4, told=False, runs=60) < 0.8


def test_labels_that_are_one_on_every_image_are_bounded_not_certain() -> None:
    """At most 8.8 % of images differ where 40 do not (Clopper and Pearson), which takes twice that from φ of even classes."""
    first = np.arange(40) % 2 == 0
    same, other = correlation({"a": first, "b": first}), correlation({"a": first, "b": ~first})
    assert (same.value, same.high) == (1, 1) and same.low == pytest.approx(1 - 2 * (1 - 0.025 ** (1 / 40)), abs=0.02)
    assert (other.value, other.low, other.high) == (-1, -1, -same.low)  # type: ignore[operator]


def test_numbers_that_follow_from_each_other_are_said_to() -> None:
    columns = (Column("a", "a", "float"), Column("b", "b", "int"))
    batch = batch_of(np.zeros((40, 1), np.float32), {"a": np.arange(40) / 2, "b": [-i for i in range(40)]})
    stage = LabelCorrelation(columns)
    (found,) = label_correlations(stage.add(stage.start(), batch), columns, confidence=0.95)
    assert (found.value, found.low, found.high) == (pytest.approx(-1),) * 3
    assert found.message == "one label follows from the other on every image"


def test_few_people_have_no_interval() -> None:
    labels = {"a": np.arange(40) % 2 == 0, "b": np.arange(40) % 3 == 0, "who": [str(i // 8) for i in range(40)]}
    found = correlation(labels, group="who")
    assert found.value is not None and (found.low, found.high) == (None, None) and "no interval" in found.message


@pytest.mark.parametrize("seed", range(2))
def test_any_split_gives_the_same_interval_of_labels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = {"a": rng.random(300) < 0.4, "b": rng.random(300) < 0.7, "who": [str(i // 3) for i in range(300)]}
    stage, batch = LabelCorrelation(COLUMNS, 40, 0, "who"), batch_of(np.zeros((300, 1), np.float32), labels)
    whole, parts = (reduced(stage, some) for some in ([[batch]], list(uneven(batch, seed))))
    np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-9)


def test_cosines_of_directions() -> None:
    edits = [Edit(str(i), "", "pca", v, np.zeros(2), 1.0) for i, v in enumerate(([1.0, 0.0], [0.6, 0.8]))]
    edits = [Edit(e.name, "", "pca", np.array(e.vector), e.mean, 1.0) for e in edits]
    (one,) = direction_cosines(edits)
    assert (one.subject, one.target, one.value) == ("0", "1", 0.6)
