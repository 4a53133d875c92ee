"""Is the aggregate of all codes the prior N(0, I)? Several distances, because each is blind to something.

The Gaussian KL sees two moments: a coordinate of two modes with mean 0 and variance 1 reads 0 nats. Per coordinate, the
Kolmogorov-Smirnov distance and W₁ see any marginal; sliced W₂ sees marginals along random directions; MMD (Gretton et al.
2012) and a classifier two-sample test (Lopez-Paz and Oquab 2017) see how coordinates hang together.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, psi
from sklearn.ensemble import HistGradientBoostingClassifier

Floats = npt.NDArray[np.float64]
BLOCK = 64


def diagonal_kl(mean: Floats, variance: Floats) -> Floats:
    """KL(N(m_j, v_j) ‖ N(0, 1)) of every coordinate in nats (d,). A coordinate without spread has infinite KL."""
    with np.errstate(divide="ignore"):
        return np.asarray(0.5 * (mean**2 + variance - 1 - np.log(variance)))


def full_kl(mean: Floats, covariance: Floats, n: int) -> float | None:
    """KL(N(m, C) ‖ N(0, I)) in nats, C estimated from `n` rows; None when C is singular.

    log det of an estimated C is too small by Σ log((n−1)/2) − ψ((n−i)/2) on average (Wishart), which is put back.
    """
    d = len(mean)
    if n <= d + 1:
        return None
    sign, logdet = np.linalg.slogdet(covariance)
    if sign <= 0 or not math.isfinite(logdet):
        return None
    bias = float(np.sum(psi((n - np.arange(1, d + 1)) / 2) - math.log((n - 1) / 2)))
    return max(float(0.5 * (np.trace(covariance) + mean @ mean - d - (logdet - bias))), 0.0)


def marginals(z: Floats) -> tuple[Floats, Floats]:
    """Kolmogorov-Smirnov distance and W₁ to N(0, 1) of every coordinate of `z` (n, d): two arrays (d,)."""
    n, d = z.shape
    steps = np.arange(n + 1) / n
    expected = ndtri((np.arange(n) + 0.5) / n)[:, None]
    ks, w1 = np.empty(d), np.empty(d)
    for start in range(0, d, BLOCK):
        ordered = np.sort(z[:, start : start + BLOCK], axis=0)
        under = ndtr(ordered)
        part = slice(start, start + BLOCK)
        ks[part] = np.maximum((steps[1:, None] - under).max(0), (under - steps[:-1, None]).max(0))
        w1[part] = np.abs(ordered - expected).mean(0)
    return ks, w1


def ks_bound(n: int, tests: int, alpha: float = 0.001) -> float:
    """What the largest of `tests` KS distances stays under when all are N(0, 1), with probability 1 − α (DKW-Massart)."""
    return math.sqrt(math.log(2 * tests / alpha) / (2 * n))


def sliced_w2(z: Floats, *, seed: int, directions: int = 64) -> float:
    """Root mean square over random directions of W₂ between projections of `z` (n, d) and N(0, 1)."""
    rng = np.random.default_rng(seed)
    axes = rng.normal(size=(z.shape[1], directions))
    axes /= np.linalg.norm(axes, axis=0)
    expected = ndtri((np.arange(len(z)) + 0.5) / len(z))[:, None]
    return math.sqrt(float(((np.sort(z @ axes, axis=0) - expected) ** 2).mean()))


@dataclass(frozen=True)
class Mmd:
    """Unbiased squared maximum mean discrepancy, and its p-value by permutation."""

    value: float
    p: float
    n: int


def mmd(x: Floats, y: Floats, *, seed: int, permutations: int = 200) -> Mmd:
    """Of equal numbers of rows (n, d): the mean of Gaussian kernels as wide as the median distance, half and a quarter of it.

    The widest sees means and variances, the narrow ones modes.
    """
    n = len(x)
    both = np.concatenate([x, y])
    squares = squared_distances(both, both)
    usual = max(float(np.median(squares[np.triu_indices(2 * n, 1)])), 1e-300)
    wide = np.exp(-squares / usual)
    kernel = (wide + wide**4 + wide**16) / 3
    np.fill_diagonal(kernel, 0.0)
    rng = np.random.default_rng(seed)
    signs = np.repeat([1.0, -1.0], n)
    shuffled = np.stack([signs, *(rng.permutation(signs) for _ in range(permutations))], axis=1)
    # With signs s: s'Ks = K_xx + K_yy − 2 K_xy, all sums without the diagonal.
    within = np.einsum("ij,ij->j", shuffled, kernel @ shuffled)
    total = float(kernel.sum())
    same, across = (total + within) / 2, (total - within) / 2
    values = same / (n * (n - 1)) - across / n**2
    p = (1 + int((values[1:] >= values[0]).sum())) / (permutations + 1)
    return Mmd(float(values[0]), p, n)


@dataclass(frozen=True)
class TwoSample:
    """Held-out accuracy of a classifier that tells codes from draws of the prior, with its interval; .5 says it cannot."""

    accuracy: float
    low: float
    high: float
    n: int


def two_sample(x: Floats, y: Floats, *, seed: int) -> TwoSample:
    """C2ST: boosted trees on half of both sets (n, d each), scored on the other half. Trees see marginals and interactions."""
    half = len(x) // 2
    train = np.concatenate([x[:half], y[:half]])
    test = np.concatenate([x[half:], y[half:]])
    sides = np.repeat([1, 0], half)
    model = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=15, random_state=seed, early_stopping=False)
    model.fit(train, sides)
    truth = np.repeat([1, 0], [len(x) - half, len(y) - half])
    right = int((model.predict(test) == truth).sum())
    low, high = wilson(right, len(truth))
    return TwoSample(right / len(truth), low, high, len(truth))


def wilson(successes: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share."""
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def squared_distances(a: Floats, b: Floats) -> Floats:
    """(len(a), len(b)), never below 0."""
    squares = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b) - 2 * (a @ b.T)
    np.maximum(squares, 0.0, out=squares)
    return np.asarray(squares)
