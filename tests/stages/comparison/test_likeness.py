"""CKA and the Fréchet distances with their intervals: they cover, they are the reference's, and the 1/n bias leaves."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from stages.comparison.likeness import Likeness
from stages.comparison.paired import GROUPS, MAX_PARTED, PARTED_VALUES, Pairing, Pairs
from stages.jackknife import jackknife
from stages.moments import Moments
from stages.sample import Sample
from tests.labelled import batch_of, chunks, reduced, uneven

DIM = 4
MIX = np.array([[1.0, 0.3, 0, 0], [0, 0.8, 0, 0.2], [0, 0, 1.4, 0], [0.1, 0, 0, 0.6]])
SHIFT, NOISE = np.array([0.7, 0, 0, -0.3]), 0.5
METRICS = ("cka", "latent_fid", "latent_fid_aligned")


def drawn(n: int, rng: np.random.Generator) -> np.ndarray:
    """[x | y] with y = x·MIX + SHIFT and noise."""
    x = rng.standard_normal((n, DIM))
    return np.concatenate([x, x @ MIX + SHIFT + NOISE * rng.standard_normal((n, DIM))], axis=1)


def truth() -> dict[str, float]:
    """The measures of the population's moments."""
    cross = MIX.T @ MIX + NOISE**2 * np.eye(DIM)
    covariance = np.block([[np.eye(DIM), MIX], [MIX.T, cross]])
    n, mean = 10**9, np.concatenate([np.zeros(DIM), SHIFT])
    none = np.zeros((2 * DIM, 0)), np.zeros((0, 0))
    whole = Moments(n, mean, np.zeros(2 * DIM), covariance * (n - 1), *none)
    return Likeness(DIM, DIM).of(whole, whole)


def parted(rows: np.ndarray, groups: int = GROUPS, training: int = 16) -> Pairs:
    """Groups of unequal size, as hashes make them."""
    edges = np.linspace(0, len(rows), groups + 1).astype(int)
    edges[1:-1] += np.arange(groups - 1) % 3
    parts = tuple(Moments.of(rows[a:b], full=True) for a, b in pairwise(edges))
    return Pairs(parts, training, Sample.empty(rows.shape[1], columns=0))


def measured(pairs: Pairs, dim: int = DIM, other: int = DIM) -> dict[str, Any]:
    found = Likeness(dim, other).measured(pairs, pairs.train, pairs.together, confidence=0.95)
    return {m.metric: m for m in found}


def test_intervals_cover_and_the_bias_leaves() -> None:
    """300 images: the plain distances are too large by about d²/n, the corrected ones are not; 95 % is 95 %."""
    expected, rounds = truth(), 250
    rng = np.random.default_rng(0)
    inside: dict[str, list[bool]] = {metric: [] for metric in METRICS}
    plain: dict[str, list[float]] = {metric: [] for metric in METRICS}
    corrected: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for _ in range(rounds):
        pairs = parted(drawn(300, rng))
        for metric, m in measured(pairs).items():
            inside[metric].append(m.low <= expected[metric] <= m.high)
            plain[metric].append(m.value)
            corrected[metric].append(float(m.detail.split('"corrected": ')[1].split(",")[0]))
    for metric in METRICS:
        assert 0.91 <= np.mean(inside[metric]) <= 0.985, metric
        error = np.std(corrected[metric]) / np.sqrt(rounds)
        biased, left = (np.mean(found[metric]) - expected[metric] for found in (plain, corrected))
        assert abs(left) < 3 * error, metric
        assert abs(left) < abs(biased), metric


def test_a_mean_s_jackknife_is_its_standard_error() -> None:
    """Of groups of one row, for a mean: the interval of the textbook and no correction."""
    x = np.random.default_rng(1).standard_normal(40)
    without = [float(np.delete(x, i).mean()) for i in range(40)]
    found = jackknife(float(x.mean()), without, [1] * 40, confidence=0.95, bounds=(-np.inf, np.inf))
    assert found is not None and found.corrected == pytest.approx(x.mean())
    reach = 2.0226909 * x.std(ddof=1) / np.sqrt(40)
    assert (found.low, found.high) == pytest.approx((x.mean() - reach, x.mean() + reach))


def test_a_variance_loses_its_bias() -> None:
    """Σ(x − x̄)²/n is too small by a factor (n − 1)/n, which is exactly what the jackknife takes out."""
    x = np.random.default_rng(2).standard_normal(30)
    without = [float(np.delete(x, i).var()) for i in range(30)]
    found = jackknife(float(x.var()), without, [1] * 30, confidence=0.9, bounds=(0, np.inf))
    assert found is not None and found.corrected == pytest.approx(x.var(ddof=1))


def test_few_groups_or_a_missing_value_are_no_interval() -> None:
    assert jackknife(1.0, [1.0] * 4, [5] * 4, confidence=0.95, bounds=(0, 2)) is None
    assert jackknife(1.0, [1.0] * 5 + [np.nan], [5] * 6, confidence=0.95, bounds=(0, 2)) is None
    one = measured(parted(drawn(40, np.random.default_rng(0)), groups=2, training=1))["cka"]
    assert one.value is not None and one.low is None and "no interval: too few images" in one.message


@pytest.mark.parametrize("seed", range(3))
def test_any_split_gives_the_same_intervals(seed: int) -> None:
    rows = drawn(400, np.random.default_rng(3)).astype(np.float32)
    batch, stage = batch_of(rows, {"label": [None] * 400}), Pairing(DIM, DIM, 0.2)
    whole, parts = (reduced(stage, some) for some in ([[batch]], list(uneven(batch, seed))))
    mine, other = measured(whole), measured(parts)
    for metric in METRICS:
        one, two = mine[metric], other[metric]
        assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high), rel=1e-9)
        assert one.low <= one.value and one.high > one.low


def test_the_same_space_turned_has_no_distance() -> None:
    x = np.random.default_rng(4).standard_normal((500, DIM))
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((DIM, DIM)))[0]
    found = measured(parted(np.concatenate([x, 2 * x @ turn + 1], axis=1)))
    assert found["latent_fid_aligned"].value == pytest.approx(0, abs=1e-9)
    assert found["latent_fid_aligned"].high < 1e-6 and found["cka"].low == pytest.approx(1)


@pytest.mark.parametrize("width", [2, 100, 1024, MAX_PARTED, MAX_PARTED + 1, 4096])
def test_groups_are_held_in_bounded_memory(width: int) -> None:
    train, held_out = Pairing(width // 2, width - width // 2, 0.2).groups
    parted = (train, held_out) != (1, 1)
    assert parted == (width <= MAX_PARTED) and train >= 1 and held_out >= 1
    assert not parted or ((train + held_out) * width**2 <= PARTED_VALUES and 8 <= train + held_out <= GROUPS)


def test_wide_pairs_say_why_they_have_no_interval() -> None:
    dim, rng = MAX_PARTED // 2 + 1, np.random.default_rng(6)
    stage = Pairing(dim, dim, 0.2)
    batch = batch_of(rng.standard_normal((40, 2 * dim)).astype(np.float32), {"label": [None] * 40})
    found = measured(reduced(stage, [chunks(batch, 20)]), dim, dim)
    assert found["cka"].low is None and "up to 1,448 numbers" in found["cka"].message


def test_moments_of_groups_are_counted_once() -> None:
    pairs = parted(drawn(200, np.random.default_rng(7)))
    assert pairs.train.n + pairs.held_out.n == pairs.together.n == 200
    assert pairs.train.n == sum(part.n for part in pairs.parts[:16])


def test_groups_follow_the_id_alone() -> None:
    rows = drawn(300, np.random.default_rng(8)).astype(np.float32)
    batch, stage = batch_of(rows, {"label": [None] * 300}), Pairing(DIM, DIM, 0.2)
    a, b = reduced(stage, [[batch]]), reduced(stage, [chunks(batch.slice(0, 150), 7), chunks(batch.slice(150), 11)])
    assert [part.n for part in a.parts] == [part.n for part in b.parts]
    assert min(part.n for part in a.parts) >= 5 and max(part.n for part in a.parts) <= 30
