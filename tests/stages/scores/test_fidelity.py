"""FID, KID and path length: closed forms, unbiasedness, and the same answer from any split."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stages.moments import Moments
from stages.scores.frechet import frechet_distance
from stages.scores.kernel_distance import discrepancy, grouped_kernel_distance, kernel, kernel_distance
from stages.scores.path_length import path_length, path_lengths, squared_l2


def exactly(mean: np.ndarray, covariance: np.ndarray) -> Moments:
    """Moments of rows whose sample mean and covariance are these."""
    d = len(mean)
    half = np.linalg.cholesky(covariance).T * np.sqrt((2 * d - 1) / 2)
    return Moments.of(np.concatenate([half, -half]) + mean, full=True)


def spd(rng: np.random.Generator, d: int) -> np.ndarray:
    a = rng.standard_normal((d, d))
    return a @ a.T + 0.1 * np.eye(d)


def test_frechet_distance_of_gaussians_in_closed_form() -> None:
    rng = np.random.default_rng(0)
    p, q, shift = rng.uniform(0.1, 4, 6), rng.uniform(0.1, 4, 6), rng.standard_normal(6)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]  # commuting covariances: Σ (√p − √q)²
    a, b = exactly(np.zeros(6), turn @ np.diag(p) @ turn.T), exactly(shift, turn @ np.diag(q) @ turn.T)
    expected = shift @ shift + ((np.sqrt(p) - np.sqrt(q)) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(a, a) < 1e-10
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-10)


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), d=st.integers(1, 12), far=st.sampled_from([0.0, 1e6]))
def test_frechet_distance_equals_the_matrix_root(seed: int, d: int, far: float) -> None:
    """Also far from the origin, where means have few digits left, and with fewer rows than dimensions."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((9, d)), rng.standard_normal((40, d)) @ spd(rng, d) + 0.5
    first, second = (np.atleast_2d(np.cov(rows.T)) for rows in (x, y))
    tiny = 1e-12 * np.eye(d)
    root = scipy.linalg.sqrtm((first + tiny) @ (second + tiny)).real
    shift = x.mean(0) - y.mean(0)
    expected = shift @ shift + np.trace(first + second - 2 * root)
    found = frechet_distance(Moments.of(x + far, full=True), Moments.of(y + far, full=True))
    assert found == pytest.approx(expected, rel=1e-4 if far == 0 else 1e-3, abs=1e-4)


def test_frechet_distance_does_not_depend_on_the_split() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((300, 5)) + 1e4, rng.standard_normal((200, 5)) * 2 + 1e4
    whole = frechet_distance(Moments.of(x, full=True), Moments.of(y, full=True))
    parts = Moments.empty(5, full=True)
    for part in np.split(x[np.argsort(x[:, 0])], [7, 40, 41, 190]):
        parts = parts.merged(Moments.of(part, full=True))
    assert frechet_distance(parts, Moments.of(y, full=True)) == pytest.approx(whole, rel=1e-10)


def test_its_bias_on_one_distribution_falls_as_one_over_n() -> None:
    rng = np.random.default_rng(2)

    def mean_distance(n: int, times: int) -> float:
        pairs = (rng.standard_normal((2, n, 4)) for _ in range(times))
        return float(np.mean([frechet_distance(*(Moments.of(x, full=True) for x in pair)) for pair in pairs]))

    sizes = (100, 200, 400, 800)
    means = [mean_distance(n, 300) for n in sizes]
    slope = np.polyfit(np.log(sizes), np.log(means), 1)[0]
    assert slope == pytest.approx(-1, abs=0.08), means
    assert min(means) > 0


def test_kernel_distance_is_unbiased_where_frechet_is_not() -> None:
    rng = np.random.default_rng(3)
    values = [discrepancy(*rng.standard_normal((2, 20, 4))) for _ in range(4000)]
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values)) < 3.5 * error
    assert min(values) < 0


def test_kernel_distance_equals_the_sum_over_pairs() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.standard_normal((7, 3)), rng.standard_normal((5, 3)) + 1

    def kernel(p: np.ndarray, q: np.ndarray) -> float:
        return (p @ q / 3 + 1) ** 3

    same_x = [kernel(p, q) for i, p in enumerate(x) for j, q in enumerate(x) if i != j]
    same_y = [kernel(p, q) for i, p in enumerate(y) for j, q in enumerate(y) if i != j]
    across = [kernel(p, q) for p in x for q in y]
    assert discrepancy(x, y) == pytest.approx(np.mean(same_x) + np.mean(same_y) - 2 * np.mean(across), rel=1e-12)


def test_the_interval_of_blocks_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    shifted = 0.3
    truth = np.mean(
        [discrepancy(rng.standard_normal((400, 2)), rng.standard_normal((400, 2)) + shifted) for _ in range(60)]
    )
    covered = []
    for _ in range(400):
        found = kernel_distance(rng.standard_normal((500, 2)), rng.standard_normal((530, 2)) + shifted, block=50)
        assert (found.n, found.blocks) == (500, 10)
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.035)


def test_few_rows_are_one_block_without_an_interval() -> None:
    x = np.random.default_rng(6).standard_normal((30, 2))
    found = kernel_distance(x, x[:20] + 1)
    assert (found.low, found.high, found.n, found.blocks) == (None, None, 20, 1)
    with pytest.raises(ValueError, match="1 and 30 rows"):
        kernel_distance(x[:1], x)
    with pytest.raises(ValueError, match="1 rows; a covariance needs at least 2"):
        frechet_distance(Moments.of(x[:1], full=True), Moments.of(x, full=True))
    with pytest.raises(ValueError, match="full second moments"):
        frechet_distance(Moments.of(x, full=False), Moments.of(x, full=False))


def test_path_length_of_a_linear_decoder() -> None:
    """‖A(z₁−z₀)‖² a path, 2‖A‖_F² on average."""
    rng = np.random.default_rng(7)
    a = rng.standard_normal((12, 6))
    ends = rng.standard_normal((2, 20_000, 6))
    lengths = path_lengths(lambda z: z @ a.T, squared_l2, tuple(ends), rng.uniform(size=20_000), space="w")
    assert lengths == pytest.approx((((ends[1] - ends[0]) @ a.T) ** 2).sum(1), rel=1e-6)
    assert lengths.mean() == pytest.approx(2 * (a**2).sum(), rel=0.02)
    score = path_length(lengths)
    assert score.value == pytest.approx(
        2 * (a**2).sum(), rel=0.04
    )  # the trimmed mean of a skewed distribution is lower
    assert score.low < score.value < score.high
    assert score.n == pytest.approx(0.98 * 20_000, abs=4)


def test_path_length_in_z_runs_on_the_unit_sphere_at_constant_speed() -> None:
    """Whatever the ends' norms, ‖dz/dt‖ = ω; the trimmed mean of ω² is the score of the identity."""
    rng = np.random.default_rng(8)
    a, b = rng.standard_normal((2, 500, 5)) * np.array([3.0, 0.1])[:, None, None]
    seen = []

    def identity(latents: np.ndarray) -> np.ndarray:
        seen.append(latents)
        return latents

    lengths = path_lengths(identity, squared_l2, (a, b), rng.uniform(size=500), space="z")
    cosine = np.einsum("ij,ij->i", a, b) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert lengths == pytest.approx(np.arccos(cosine) ** 2, rel=1e-4)
    assert np.linalg.norm(np.concatenate(seen), axis=1) == pytest.approx(np.ones(1000), abs=1e-12)


def test_pairs_without_a_path_on_the_sphere_are_left_out() -> None:
    a = np.array([[1.0, 0, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]])
    b = np.array([[0.0, 1, 0], [-2, 0, 0], [1, 0, 0], [1, 1, 0]])
    lengths = path_lengths(lambda z: z, squared_l2, (a, b), np.full(4, 0.3), space="z")
    assert lengths == pytest.approx([(np.pi / 2) ** 2, 0], abs=1e-6)


def test_the_interval_of_few_paths_covers_too() -> None:
    """Eight paths are no hundred: with a normal quantile the interval held the mean 88 times in 100."""
    rng = np.random.default_rng(9)
    found = [path_length(rng.standard_normal(8) + 5) for _ in range(1500)]
    assert 0.93 <= np.mean([one.low <= 5 <= one.high for one in found]) <= 0.97


def test_the_interval_of_a_trimmed_mean_is_tukeys() -> None:
    """Lengths beyond the percentiles count as the percentiles; the trimmed share makes it 1/(1 − 2·.01) wider."""
    lengths = np.exp(2 * np.random.default_rng(10).standard_normal(400))
    found = path_length(lengths)
    ends = np.sort(lengths)[[3, -4]]
    kept = lengths[(lengths >= ends[0]) & (lengths <= ends[1])]
    reach = stats.t.ppf(0.975, len(kept) - 1) * np.std(np.clip(lengths, *ends), ddof=1) / 0.98 / 20
    assert (found.n, found.value) == (394, pytest.approx(kept.mean()))
    assert (found.low, found.high) == (pytest.approx(kept.mean() - reach), pytest.approx(kept.mean() + reach))


def test_outlying_paths_are_dropped_from_both_ends() -> None:
    lengths = np.concatenate([np.ones(200), [1e9, 1e9], [-1e9, -1e9]])
    assert (path_length(lengths).value, path_length(lengths).n) == (1, 200)
    with pytest.raises(ValueError, match="1 paths"):
        path_length(np.ones(1))


def test_the_kernel_distance_of_groups_is_of_pairs_from_different_ones() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((60, 3)), rng.standard_normal((50, 3)) + 0.3
    of_a, of_b = rng.integers(0, 12, 60), rng.integers(0, 12, 50)

    def directly(a: np.ndarray, of_a: np.ndarray, b: np.ndarray, of_b: np.ndarray) -> float:
        inside = [kernel(x, x)[g[:, None] != g].mean() for x, g in ((a, of_a), (b, of_b))]
        return sum(inside) - 2 * kernel(a, b).mean()

    found = grouped_kernel_distance(a, of_a, b, of_b)
    assert found.value == pytest.approx(directly(a, of_a, b, of_b), rel=1e-10)
    left = [directly(a[of_a != g], of_a[of_a != g], b[of_b != g], of_b[of_b != g]) for g in range(12)]
    reach = 2.20099 * np.sqrt(11 * np.var(left))  # t of 11 degrees
    assert (found.low, found.high) == pytest.approx((found.value - reach, found.value + reach), rel=1e-4)
    alone = grouped_kernel_distance(a, np.arange(60), b, np.arange(50))
    assert alone.value == pytest.approx(discrepancy(a, b), rel=1e-10)
    assert grouped_kernel_distance(a, of_a % 8, b, of_b % 8).low is None
    with pytest.raises(ValueError, match="fewer than 2 groups"):
        grouped_kernel_distance(a, of_a * 0, b, of_b)


def test_copies_of_a_row_do_not_move_the_kernel_distance_of_groups() -> None:
    """Pairs of one row with itself would: two sets of the same people, each there five times, seemed apart."""
    rng = np.random.default_rng(1)
    values = {"grouped": [], "plain": []}
    for _ in range(80):
        a, b = (np.repeat(rng.standard_normal((12, 2)), 5, axis=0) for _ in range(2))
        of = np.repeat(np.arange(12), 5)
        values["grouped"].append(grouped_kernel_distance(a, of, b, of).value)
        values["plain"].append(discrepancy(a, b))
    error = {name: np.std(found) / np.sqrt(80) for name, found in values.items()}
    assert abs(np.mean(values["grouped"])) < 4 * error["grouped"]
    assert np.mean(values["plain"]) > 5 * error["plain"]
