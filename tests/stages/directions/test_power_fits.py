"""The planner of fitted estimators: it keeps its promise, knows inflation and unequal cells, and is checked by disjoint fits."""

from typing import Any

import numpy as np
import pytest

from schemas.source import LabelType
from stages.attributes import Column
from stages.directions import linearised
from stages.directions.fit import fit
from stages.directions.power import plan_labels
from stages.directions.power_law import Plan, labels_needed
from stages.grouping import with_groups
from tests.labelled import batch_of, carried, step, uneven

Y, OTHER = Column("y", "y", "bool"), Column("other", "other", "bool")
D = 40
BOTH: dict[str, LabelType] = {"y": "bool", "other": "bool"}


def plan(labels: dict[str, Any], latents: np.ndarray, estimator: str, *, cosine: float = 0.8, **drawn: Any) -> Plan:
    batch = batch_of(latents.astype(np.float32), labels, ids=drawn.get("ids"))
    splits = list(uneven(batch, drawn["seed"])) if "seed" in drawn else [[batch]]
    controls = (OTHER,) if "other" in labels else ()
    passes = plan_labels(Y, dim=latents.shape[1], cosine=cosine, estimator=estimator, controls=controls)
    found, _ = carried(with_groups(passes, drawn.get("group")), splits)
    return found


def correlated(n: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Two attributes with correlation .6, each along its own axis of isotropic noise."""
    rng, v = np.random.default_rng(seed), np.zeros(D)
    v[3] = 1.0
    other = rng.random(n) < 0.5
    y = rng.random(n) < np.where(other, 0.8, 0.2)
    return (
        rng.standard_normal((n, D)) + np.outer(y, v) + np.outer(other, np.roll(v, 5)) + 3,
        {"y": y, "other": other},
        v,
    )


def curved(n: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Two classes whose noise is short along some axes and long along others: a plane's normal is not the difference of means."""
    rng, spread, v = np.random.default_rng(seed), np.linspace(0.5, 1.5, D), np.zeros(D)
    v[3], v[30] = 0.35, 0.35
    y = rng.random(n) < 0.4
    return rng.standard_normal((n, D)) * spread + np.outer(y, v) + 3, {"y": y}, v / spread**2


@pytest.mark.parametrize("estimator", ["ols", "balanced_mean_difference"])
def test_noise_of_correlated_attributes_is_inflated_as_it_should_be(estimator: str) -> None:
    latents, labels, _ = correlated(6000, seed=1)
    found = plan(labels, latents, estimator)
    # OLS: variance inflation 1/(1 − ρ²). Balanced: Σπ²(1/n₊ + 1/n₋) over two cells of .2 and .8, the same by chance of symmetry.
    truth = labels_needed(1.0, (D - 1, D - 1), cosine=0.8) / (1 - 0.6**2)
    assert found.status == "ok" and (found.estimator, found.basis) == (estimator, "bootstrap")
    assert found.in_all == pytest.approx(truth, rel=0.15)
    assert found.per_class_low <= truth / 2 <= found.per_class_high
    np.testing.assert_allclose([c.measured for c in found.checks], [c.predicted for c in found.checks], atol=0.04)
    if estimator.startswith("balanced"):
        assert "effective n" in found.message


@pytest.mark.parametrize("estimator", ["ols", "balanced_mean_difference", "lda", "logistic", "svm"])
def test_the_number_of_labels_does_what_it_promises(estimator: str) -> None:
    make = correlated if estimator in ("ols", "balanced_mean_difference") else curved
    latents, labels, _ = make(12000, seed=2)
    wanted = 0.9 if estimator in ("logistic", "svm") else 0.8  # .8 takes so few rows that the plan says it is hopeful
    asked = plan(labels, latents, estimator, cosine=wanted).in_all
    reached = []
    for seed in range(20):
        latents, labels, v = make(asked, seed=100 + seed)
        batch = batch_of(latents.astype(np.float32), labels)
        fields = {"controls": ("other",)} if estimator.startswith("balanced") else {}
        attributes = BOTH if estimator == "ols" else {"y": BOTH["y"]}
        types = {name: kind for name, kind in BOTH.items() if name in labels}
        found, _ = carried(
            fit(step(estimator=estimator, holdout=0, **fields), attributes, dim=D, labels=types), [[batch]]
        )
        reached.append(found[0].vector @ v / np.linalg.norm(v))
    assert np.mean(reached) == pytest.approx(wanted, abs=0.03)


def test_subsamples_of_a_classifier_agree_with_its_bootstrap_and_grow() -> None:
    latents, labels, _ = curved(6000, seed=3)
    found = plan(labels, latents, "logistic", cosine=0.9)
    assert [c.subsamples for c in found.checks] == [8, 4, 2]
    measured, predicted = ([getattr(c, name) for c in found.checks] for name in ("measured", "predicted"))
    np.testing.assert_allclose(measured, predicted, atol=0.04)
    assert (np.diff(measured) > 0).all() and found.message == ""


def test_noise_fills_as_many_dimensions_as_it_has_whatever_the_classes_shares() -> None:
    rng = np.random.default_rng(0)
    y = rng.random(3000) < 0.15
    found = plan({"y": y}, rng.normal(size=(3000, 30)) + np.outer(y, np.eye(30)[0]), "ols")
    assert found.effective_dimension == pytest.approx(29, rel=0.2) and found.separation == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("estimator", ["ols", "lda"])
def test_a_single_dimension_needs_a_label_of_each_class(estimator: str) -> None:
    rng = np.random.default_rng(0)
    y = rng.random(300) > 0.4
    found = plan({"y": y}, rng.normal(size=(300, 1)) + y[:, None], estimator)
    assert (found.status, found.per_class, found.in_all) == ("ok", 1, 2)
    assert [c.subsamples for c in found.checks] == [8, 4, 2] and "too few rows to check" not in found.message


@pytest.mark.slow
def test_independent_rows_are_not_accused_by_chance() -> None:
    accused = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        y = rng.random(800) > 0.5
        accused.append(
            "not independent" in plan({"y": y}, rng.normal(size=(800, 8)) + np.outer(y, np.eye(8)[0]), "lda").message
        )
    assert sum(accused) <= 1


def test_groups_are_one_row_each() -> None:
    latents, labels, _ = curved(1200, seed=4)
    copies, y = np.repeat(latents, 5, axis=0), np.repeat(labels["y"], 5)
    ids = [f"{i // 5}/{i}" for i in range(len(y))]
    alone = plan(labels, latents, "lda")
    together = plan({"y": y}, copies, "lda", ids=ids, group="id:/")
    # Five copies of a row are worth no more than one, so five times the rows are needed. (Shrinkage knows of no groups.)
    assert together.in_all == pytest.approx(5 * alone.in_all, rel=0.25)


def test_too_few_rows_a_coefficient_plan_by_subsampling_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, labels, _ = curved(12000, seed=5)
    law = plan(labels, latents, "logistic")
    monkeypatch.setattr(linearised, "ROWS_A_PARAMETER", 1000)
    found = plan(labels, latents, "logistic")
    assert (law.basis, found.basis) == ("bootstrap", "subsampling")
    assert found.in_all == pytest.approx(law.in_all, rel=0.3)
    assert found.per_class_low is None


def test_a_plan_with_few_rows_a_coefficient_says_that_it_is_hopeful() -> None:
    latents, labels, _ = curved(3000, seed=2)
    found = plan(labels, latents, "logistic", cosine=0.7)
    assert found.in_all < 10 * (D + 1) and "too few for 41 coefficients" in found.message


def test_any_split_gives_the_same_plan() -> None:
    latents, labels, _ = correlated(500, seed=6)
    whole, split = plan(labels, latents, "ols"), plan(labels, latents, "ols", seed=9)
    assert split.in_all == whole.in_all and split.per_class_low == whole.per_class_low
    np.testing.assert_allclose([c.measured for c in split.checks], [c.measured for c in whole.checks], rtol=1e-9)


@pytest.mark.slow
def test_the_interval_covers() -> None:
    truth, hits = labels_needed(1.0, (D - 1, D - 1), cosine=0.8) / (1 - 0.6**2) / 2, []
    for seed in range(100):
        latents, labels, _ = correlated(1000, seed=200 + seed)
        found = plan(labels, latents, "ols")
        assert found.per_class_low is not None
        hits.append(found.per_class_low <= truth and (found.per_class_high is None or truth <= found.per_class_high))
    assert np.mean(hits) == pytest.approx(0.95, abs=0.02 + 0.044)  # two standard errors of 100 runs


def test_noise_and_single_classes_have_a_status() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((80, 200))
    found = plan({"y": np.arange(80) % 2 == 0, "other": np.arange(80) % 3 == 0}, noise, "ols")
    assert found.status == "no_signal" and found.in_all is None
    assert plan({"y": np.ones(80, bool)}, noise, "lda").status == "single_class"
    both = {"y": np.arange(80) < 40, "other": np.arange(80) < 40}
    assert plan(both, noise, "balanced_mean_difference").status == "no_overlap"
