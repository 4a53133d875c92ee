"""CKA and the Fréchet distances with their intervals: they cover, they are the reference's, and the 1/n bias leaves."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from stages.comparison.alignment import linear_cka
from stages.comparison.cka_terms import cka_terms, unbiased_cka
from stages.comparison.likeness import Likeness
from stages.comparison.paired import GROUPS, MAX_PARTED, PARTED_VALUES, Joint, Pairing, Pairs
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


def measured(pairs: Pairs, rows: np.ndarray, dim: int = DIM, other: int = DIM) -> dict[str, Any]:
    terms = cka_terms(rows, Joint.of(pairs.together, dim))
    found = Likeness(dim, other).measured(pairs, pairs.train, pairs.together, terms, confidence=0.95)
    return {m.metric: m for m in found}


def test_intervals_cover_and_the_bias_leaves() -> None:
    """300 images: the plain distances are too large by about d²/n, the corrected ones are not; 95 % is 95 %."""
    expected, rounds = truth(), 250
    rng = np.random.default_rng(0)
    inside: dict[str, list[bool]] = {metric: [] for metric in METRICS}
    plain: dict[str, list[float]] = {metric: [] for metric in METRICS}
    corrected: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for _ in range(rounds):
        rows = drawn(300, rng)
        for metric, m in measured(parted(rows), rows).items():
            inside[metric].append(m.low <= expected[metric] <= m.high)
            plain[metric].append(m.value)
            corrected[metric].append(json.loads(m.detail)["corrected"])
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
    rows = drawn(40, np.random.default_rng(0))
    one = measured(parted(rows, groups=2, training=1), rows)["latent_fid"]
    assert one.value is not None and one.low is None and "no interval: too few images" in one.message
    one = measured(parted(rows[:9], groups=2, training=1), rows[:9])["cka"]
    assert one.value is not None and one.low is None and "no interval: too few images" in one.message


@pytest.mark.parametrize("seed", range(3))
def test_any_split_gives_the_same_intervals(seed: int) -> None:
    rows = drawn(400, np.random.default_rng(3)).astype(np.float32)
    batch, stage = batch_of(rows, {"label": [None] * 400}), Pairing(DIM, DIM, 0.2)
    whole, parts = (reduced(stage, some) for some in ([[batch]], list(uneven(batch, seed))))
    mine, other = measured(whole, rows), measured(parts, rows)
    for metric in METRICS:
        one, two = mine[metric], other[metric]
        assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high), rel=1e-9)
        assert one.low <= one.value and one.high > one.low


def test_the_same_space_turned_has_no_distance() -> None:
    x = np.random.default_rng(4).standard_normal((500, DIM))
    turn = np.linalg.qr(np.random.default_rng(5).standard_normal((DIM, DIM)))[0]
    rows = np.concatenate([x, 2 * x @ turn + 1], axis=1)
    found = measured(parted(rows), rows)
    assert found["latent_fid_aligned"].value == pytest.approx(0, abs=1e-9)
    assert found["latent_fid_aligned"].high < 1e-6 and found["cka"].low == pytest.approx(1)


@pytest.mark.parametrize("width", [2, 100, 1024, MAX_PARTED, MAX_PARTED + 1, 4096])
def test_groups_are_held_in_bounded_memory(width: int) -> None:
    train, held_out = Pairing(width // 2, width - width // 2, 0.2).groups
    parted = (train, held_out) != (1, 1)
    assert parted == (width <= MAX_PARTED) and train >= 1 and held_out >= 1
    assert not parted or ((train + held_out) * width**2 <= PARTED_VALUES and 8 <= train + held_out <= GROUPS)


def test_wide_pairs_have_an_interval_of_cka_and_say_why_of_the_distance_there_is_none() -> None:
    dim, rng = MAX_PARTED // 2 + 1, np.random.default_rng(6)
    x = rng.standard_normal((60, dim)).astype(np.float32)
    rows = np.concatenate([x, x + 0.5 * rng.standard_normal((60, dim)).astype(np.float32)], axis=1)
    batch = batch_of(rows, {"label": [None] * 60})
    found = measured(reduced(Pairing(dim, dim, 0.2), [chunks(batch, 20)]), rows, dim, dim)
    assert found["latent_fid"].low is None and "up to 1,448 numbers" in found["latent_fid"].message
    assert found["cka"].value > 0.9, "60 images of 725 numbers look alike by chance"
    assert found["cka"].low < 1 / 1.25 < found["cka"].high < 0.9


def test_cka_is_without_bias_and_covered_also_with_few_images() -> None:
    """30 and 30 numbers, 40 and 100 images: the plain value is .1 and more too large. A jackknife of it covered .8 of 100 images."""
    dim, rng = 30, np.random.default_rng(10)
    mix, noise = rng.standard_normal((dim, dim)) / np.sqrt(dim), 0.5
    cross = mix.T @ mix + noise**2 * np.eye(dim)
    truth = (mix**2).sum() / np.sqrt(dim) / np.linalg.norm(cross)
    for n, rounds in ((40, 250), (100, 250)):
        inside, values, plain = [], [], []
        for _ in range(rounds):
            x = rng.standard_normal((n, dim))
            rows = np.concatenate([x, x @ mix + noise * rng.standard_normal((n, dim))], axis=1)
            joint = Joint.of(Moments.of(rows, full=True), dim)
            one = unbiased_cka(joint, cka_terms(rows, joint), confidence=0.95)
            assert one is not None
            inside.append(one.low <= truth <= one.high)
            values.append(one.value)
            plain.append(linear_cka(joint))
        assert 0.91 <= np.mean(inside) <= 0.99, n
        assert abs(np.mean(values) - truth) < 4 * np.std(values) / np.sqrt(rounds) + 0.005 < np.mean(plain) - truth


def test_the_norms_of_cka_are_those_of_song_et_al() -> None:
    """The unbiased estimate of HSIC by its kernels with their diagonals taken out, of rows far from zero, too."""
    rng, n = np.random.default_rng(12), 12
    x, y = rng.standard_normal((n, 3)) + 5, rng.standard_normal((n, 4)) - 2
    y[:, :3] += x

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        k, m, one = a @ a.T, b @ b.T, np.ones(n)
        np.fill_diagonal(k, 0), np.fill_diagonal(m, 0)
        both = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / (n - 1) / (n - 2) - 2 * one @ k @ m @ one / (n - 2)
        return float(both / n / (n - 3))

    rows = np.concatenate([x, y], axis=1)
    joint = Joint.of(Moments.of(rows, full=True), 3)
    found = unbiased_cka(joint, cka_terms(rows, joint), confidence=0.95)
    assert found is not None
    assert found.value == pytest.approx(hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y)), rel=1e-9)
    assert found.low < found.value < found.high


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
