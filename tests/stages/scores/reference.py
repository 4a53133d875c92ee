"""The published definitions, literally: loops over single dimensions and factors, as disentanglement_lib's NumPy core has them.

Codes are (dimensions, points) and factors (factors, points), as there. Nothing here is fast, and nothing is shared with the
code under test.
"""

import numpy as np
import scipy.stats
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.svm import LinearSVC


def binned(rows: np.ndarray, bins: int = 20) -> np.ndarray:
    return np.array([np.digitize(row, np.histogram(row, bins)[1][:-1]) for row in rows])


def mutual_information(mus: np.ndarray, ys: np.ndarray) -> np.ndarray:
    discrete = binned(mus)
    return np.array([[mutual_info_score(y, mu) for y in ys] for mu in discrete])


def mig(mus: np.ndarray, ys: np.ndarray) -> float:
    gaps = []
    information = mutual_information(mus, ys)
    for j, y in enumerate(ys):
        best, second = sorted(information[:, j], reverse=True)[:2]
        gaps.append((best - second) / mutual_info_score(y, y))
    return float(np.mean(gaps))


def modularity(mus: np.ndarray, ys: np.ndarray) -> float:
    scores = []
    for row in mutual_information(mus, ys):
        best = max(row)
        template = sum(v**2 for i, v in enumerate(row) if i != int(np.argmax(row)))
        scores.append(0.0 if best == 0 else 1 - template / (best**2 * (len(row) - 1)))
    return float(np.mean(scores))


def sap_continuous(mus: np.ndarray, ys: np.ndarray) -> float:
    gaps = []
    for y in ys:
        scores = []
        for mu in mus:
            c = np.cov(mu, y, ddof=1)
            scores.append(c[0, 1] ** 2 / (c[0, 0] * c[1, 1]) if c[0, 0] > 1e-12 else 0.0)
        scores.sort()
        gaps.append(scores[-1] - scores[-2])
    return float(np.mean(gaps))


def sap_discrete(mus: np.ndarray, ys: np.ndarray, mus_test: np.ndarray, ys_test: np.ndarray) -> float:
    gaps = []
    for y, y_test in zip(ys, ys_test, strict=True):
        scores = []
        for mu, mu_test in zip(mus, mus_test, strict=True):
            model = LinearSVC(C=0.01, class_weight="balanced").fit(mu[:, None], y)
            scores.append(np.mean(model.predict(mu_test[:, None]) == y_test))
        scores.sort()
        gaps.append(scores[-1] - scores[-2])
    return float(np.mean(gaps))


def dci(mus: np.ndarray, ys: np.ndarray, *, seed: int) -> tuple[float, float]:
    columns = []
    for y in ys:
        columns.append(GradientBoostingClassifier(random_state=seed).fit(mus.T, y).feature_importances_)
    matrix = np.abs(np.stack(columns, axis=1))
    per_code = 1 - scipy.stats.entropy(matrix.T + 1e-11, base=matrix.shape[1])
    per_factor = 1 - scipy.stats.entropy(matrix + 1e-11, base=matrix.shape[0])
    return (
        float(np.sum(per_code * matrix.sum(axis=1) / matrix.sum())),
        float(np.sum(per_factor * matrix.sum(axis=0) / matrix.sum())),
    )


def irs(mus: np.ndarray, ys: np.ndarray, quantile: float = 0.99) -> float:
    groups = binned(ys)
    scores, weights = [], []
    for mu in mus:
        if mu.var() == 0:
            continue
        largest = np.max(np.abs(mu - mu.mean()))
        by_factor = []
        for y in groups:
            levels = np.unique(y)
            deviations = [np.quantile(np.abs(mu[y == k] - mu[y == k].mean()), quantile) for k in levels]
            by_factor.append(1 - np.mean(deviations) / largest)
        scores.append(max(by_factor))
        weights.append(largest)
    return float(np.average(scores, weights=weights)) if scores else 0.0


def factor_vae(sampler, rng, *, batch: int, votes: tuple[int, int], variance_rows: int) -> float:
    def factors(n: int) -> np.ndarray:
        return rng.integers(0, np.array(sampler.sizes), (n, len(sampler.sizes)))

    global_variances = np.var(sampler.codes(factors(variance_rows), rng), axis=0, ddof=1)
    active = np.sqrt(global_variances) >= 0.05
    if not active.any():
        return 0.0
    tables = []
    for count in votes:
        table = np.zeros((len(sampler.sizes), len(global_variances)), dtype=int)
        for _ in range(count):
            index = rng.integers(len(sampler.sizes))
            drawn = factors(batch)
            drawn[:, index] = drawn[0, index]
            local = np.var(sampler.codes(drawn, rng), axis=0, ddof=1)
            table[index, np.argmin(local[active] / global_variances[active])] += 1
        tables.append(table)
    learned = np.argmax(tables[0], axis=0)
    return sum(tables[1][learned[i], i] for i in range(len(learned))) / tables[1].sum()


def beta_vae(sampler, rng, *, batch: int, votes: tuple[int, int]) -> float:
    sets = []
    for count in votes:
        points, labels = [], []
        for _ in range(count):
            index = rng.integers(len(sampler.sizes))
            first = rng.integers(0, np.array(sampler.sizes), (batch, len(sampler.sizes)))
            second = rng.integers(0, np.array(sampler.sizes), (batch, len(sampler.sizes)))
            second[:, index] = first[:, index]
            points.append(np.mean(np.abs(sampler.codes(first, rng) - sampler.codes(second, rng)), axis=0))
            labels.append(index)
        sets.append((np.array(points), np.array(labels)))
    model = LogisticRegression(max_iter=1000).fit(*sets[0])
    return float(np.mean(model.predict(sets[1][0]) == sets[1][1]))
