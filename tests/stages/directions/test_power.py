"""The power planner: the golden numbers of the law, the truth recovered on drawn data, the law checked by subsampling."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from stages.attributes import Column
from stages.directions.power import plan_labels
from stages.directions.power_law import NO_SIGNAL, Plan, labels_needed, predicted_cosine
from stages.grouping import with_groups
from tests.labelled import batch_of, carried, uneven

Y = Column("y", "y", "bool")


def plan(latents: np.ndarray, y: Sequence[bool] | np.ndarray, *, cosine: float = 0.9, seed: int | None = None) -> Plan:
    batch = batch_of(latents.astype(np.float32), {"y": np.asarray(y)})
    splits = [[batch]] if seed is None else list(uneven(batch, seed))
    found, names = carried(plan_labels(Y, dim=latents.shape[1], cosine=cosine), splits)
    assert names == ["Dealing", "Scoring"][: len(names)]
    return found


def drawn(n: tuple[int, int], v: np.ndarray, spread: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives with coordinates' standard deviations `spread`, their means `v` apart, off centre."""
    rng, y = np.random.default_rng(seed), np.arange(sum(n)) < n[0]
    return rng.standard_normal((sum(n), len(v))) * spread + 5 + y[:, None] * v, y


@pytest.mark.parametrize(("dim", "per_class", "cosine"), [(512, 100, 0.30), (512, 1000, 0.70), (16384, 10_000, 0.48)])
def test_golden_numbers(dim: int, per_class: int, cosine: float) -> None:
    exact = predicted_cosine(1.0, (dim, dim), (per_class, per_class))
    assert round(exact, 2) == cosine
    assert labels_needed(1.0, (dim, dim), cosine=exact) in (2 * per_class, 2 * per_class + 1)


def test_unequal_classes_need_more() -> None:
    even = labels_needed(1.0, (512, 512), cosine=0.9)
    assert even == 8731  # 4d/(δ²(1/c² − 1))
    skewed = labels_needed(1.0, (512, 512), cosine=0.9, share=0.1)
    assert predicted_cosine(1.0, (512, 512), (0.1 * skewed, 0.9 * skewed)) == pytest.approx(0.9, abs=1e-4)
    assert 2.7 < skewed / even < 2.8  # 1/(4·.1·.9)


def test_the_plan_is_the_truth_of_drawn_data() -> None:
    # Long and short axes; the classes differ along a middling one: σ = 2 there, tr Σ/σ² = 65.
    spread = np.concatenate([np.full(20, 3.0), np.full(76, 1.0), [2.0]])
    v = np.zeros(97)
    v[-1] = 2.0
    found = plan(*drawn((3000, 6000), v, spread, seed=1))
    dimension = (spread**2).sum() / 4
    assert found.status == "ok" and found.message == ""
    assert found.separation == pytest.approx(1, abs=0.1)
    assert found.effective_dimension == pytest.approx(dimension, rel=0.08)
    assert found.cosine_now == pytest.approx(predicted_cosine(1, (dimension, dimension), (3000, 6000)), abs=0.01)
    truth = labels_needed(1, (dimension, dimension), cosine=0.9) / 2
    assert found.per_class == pytest.approx(truth, rel=0.15)
    assert found.per_class_low <= truth <= found.per_class_high
    assert found.in_all == pytest.approx(labels_needed(1, (dimension, dimension), cosine=0.9, share=1 / 3), rel=0.15)


def test_the_number_of_labels_does_what_it_promises() -> None:
    v, spread = np.zeros(64), np.linspace(0.5, 2, 64)
    v[5] = 1.5
    asked = plan(*drawn((800, 800), v, spread, seed=2), cosine=0.8).per_class
    reached = []
    for seed in range(30):
        latents, y = drawn((asked, asked), v, spread, seed=100 + seed)
        difference = latents[y].mean(0) - latents[~y].mean(0)
        reached.append(difference[5] / np.linalg.norm(difference))
    assert np.mean(reached) == pytest.approx(0.8, abs=0.04)


def test_the_interval_covers() -> None:
    v, spread, hits = np.zeros(24), np.ones(24), []
    v[0] = 0.7
    truth = 24 / (0.7**2 * (0.9**-2 - 1)) * 2
    for seed in range(150):
        found = plan(*drawn((250, 250), v, spread, seed=seed))
        hits.append(found.per_class_low <= truth and (found.per_class_high is None or truth <= found.per_class_high))
    assert 0.9 <= np.mean(hits) <= 0.99


def test_subsamples_agree_with_the_law_and_grow_towards_the_whole() -> None:
    found = plan(*drawn((1600, 3200), np.full(128, 0.1), np.linspace(0.5, 1.5, 128), seed=3))
    assert [c.subsamples for c in found.checks] == [32, 16, 8, 4, 2]
    assert all(c.low <= c.measured <= c.high for c in found.checks)
    np.testing.assert_allclose([c.measured for c in found.checks], [c.predicted for c in found.checks], atol=0.03)
    assert (np.diff([c.measured for c in found.checks]) > 0).all()
    assert found.checks[0].n_positive == 50 and found.checks[-1].n_negative == 1600


def test_rows_that_are_not_independent_are_noticed_when_groups_are_told() -> None:
    latents, y = drawn((400, 400), np.full(64, 0.2), np.ones(64), seed=4)
    copies, labels = np.repeat(latents, 8, axis=0).astype(np.float32), np.repeat(y, 8)
    batch = batch_of(copies, {"y": labels}, ids=[f"{i // 8}/{i}" for i in range(len(labels))])
    found, _ = carried(with_groups(plan_labels(Y, dim=64, cosine=0.9), "id:/"), [[batch]])
    assert "rows are not independent" in found.message
    assert found.checks[0].measured < found.checks[0].predicted - 0.1
    # The interval knows too: it comes from whole groups, and is as wide as that of the rows without their copies.
    alone = plan(latents, y)
    assert found.per_class_high / found.per_class_low == pytest.approx(
        alone.per_class_high / alone.per_class_low, rel=0.4
    )


def test_independent_rows_are_not_accused_by_chance() -> None:
    """Small subsamples of few dimensions scatter widely about the law."""
    accused = [
        "not independent" in plan(*drawn((200, 200), np.eye(8)[0], np.ones(8), seed=seed)).message for seed in range(60)
    ]
    assert sum(accused) <= 2
    # One dimension: subsamples do better than the law, and that is no reason to label more.
    found = plan(*drawn((200, 200), np.ones(1), np.ones(1), seed=0))
    assert found.checks[0].measured > found.checks[0].predicted + 0.05 and found.message == ""


def test_noise_alone_has_no_number_of_labels() -> None:
    for seed in range(20):
        found = plan(*drawn((40, 40), np.zeros(200), np.ones(200), seed=seed))
        if found.status == NO_SIGNAL:
            assert found.per_class is found.separation is found.in_all is None
            assert "no further apart than chance" in found.message
            break
    else:
        pytest.fail("half of such draws have less signal than noise")
    assert plan(*drawn((40, 40), np.zeros(200), np.ones(200), seed=0)).per_class_high is None


@pytest.mark.parametrize(
    ("y", "status"),
    [([True] * 9, "single_class"), ([None] * 9, "no_labels"), ([True] * 8 + [False], "too_few")],
)
def test_what_cannot_be_planned_has_a_status(y: list, status: str) -> None:
    batch = batch_of(
        np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32), {"y": pa.array(y, pa.bool_())}
    )
    found, _ = carried(plan_labels(Y, dim=3, cosine=0.9), [[batch]])
    assert (found.status, found.per_class, found.checks) == (status, None, ())


def test_classes_without_spread_have_a_status() -> None:
    points = np.repeat([[0.0, 0, 0], [1, 2, 3]], 20, axis=0)
    found = plan(points, np.arange(40) >= 20)
    assert (found.status, found.per_class) == ("no_spread", None) and "one label of each" in found.message
    # The same where sums leave rounding for a spread.
    uneven = np.random.default_rng(0).random(400) > 0.4
    found = plan(np.tile(uneven[:, None], (1, 3)).astype(float), uneven)
    assert (found.status, found.separation) == ("no_spread", None)


def test_equal_means_and_bad_rows() -> None:
    latents = np.repeat(np.random.default_rng(0).standard_normal((8, 3)), 2, axis=0)
    assert plan(latents, [True, False] * 8).status == "zero_norm"
    spoiled, y = drawn((200, 200), np.ones(4), np.ones(4), seed=5)
    clean = plan(spoiled[3:], y[3:])
    spoiled[:3] = np.nan
    found = plan(spoiled, y)
    assert (found.non_finite, found.rows) == (3, 397)
    assert found.n_positive == clean.n_positive == 197


def test_any_split_gives_the_same_plan() -> None:
    latents, y = drawn((300, 500), np.full(8, 0.3), np.ones(8), seed=6)
    whole, split = plan(latents, y), plan(latents, y, seed=11)
    assert split.per_class == whole.per_class and split.in_all == whole.in_all
    assert split.separation == pytest.approx(whole.separation, rel=1e-10)
    np.testing.assert_allclose([c.measured for c in split.checks], [c.measured for c in whole.checks], rtol=1e-10)
