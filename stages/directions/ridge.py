"""Ridge regression of each label on the latents, from second moments alone (latent-science §3).

w = (Σzz + λI)⁻¹Σzy minimises Σ(y − b − w·z)² + λ‖w‖², scikit-learn's Ridge with alpha = λ. Without a given λ the best of
`PENALTIES` × tr(Σzz)/d is taken, by the squared error of rows that were left out, fold by fold: a fold's error is a
quadratic form of its own moments, so no row is read again. Where Σzz is kept in strips, penalties so small that conjugate
gradients do not get there are not in the choice, and there are no standard errors; where it is sketched, errors of rows
left out are those of the sketch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.attributes import Bools, Floats
from stages.directions.group_scatter import GroupScatter, Subset
from stages.moments import Moments
from stages.scatter.whole import Whole
from stages.stage import Passes

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-12, 7))
"""Tried penalties, as shares of the latents' mean scatter tr(Σzz)/d."""
MAX_VALUES = 2**23
"""Of the tried coefficients that are held at once."""


@dataclass(frozen=True, slots=True)
class Ridged:
    """`coefficients` (d, m), `standard_error` the same or None, `intercept` (m,) of m labels; `residual` (m,) of the system solved.

    `rank`: of Σzz + λI, None where it is not known.
    """

    coefficients: Floats
    standard_error: Floats | None
    intercept: Floats
    residual: Floats
    rank: int | None


@dataclass(frozen=True, slots=True)
class Penalty:
    """The penalty `l2` (m,) of each of m labels; `cv_folds` chose it, or 0. `at_edge` (m,) of the tried ones.

    `out_of_reach` (m,): how many smaller ones could not be solved. `note`: of the choice.
    """

    l2: Floats
    cv_folds: int
    at_edge: Bools
    out_of_reach: np.ndarray
    note: str = ""


def given_penalty(l2: float, labels: int) -> Penalty:
    """The same penalty for every label."""
    return Penalty(np.full(labels, l2), 0, np.zeros(labels, bool), np.zeros(labels, int))


def choose_penalty(rows: GroupScatter) -> Penalty:
    """The best penalty of every label by leaving out one training part after the other.

    Training rows alone choose, so that held-out rows know nothing of it.
    """
    group, parts = rows.group, rows.group.training
    training = group.merged(parts)
    scale = float((training if training.n > 1 else group.merged(group.every)).squares.sum()) / training.dim or 1.0
    grid = np.array(PENALTIES) * scale
    error, note = np.zeros((len(grid), len(group.members))), ""
    for part in parts:
        others = tuple(p for p in parts if p != part)
        if sum(group.parts[p].n for p in others) >= 2:
            missed, note = _left_out(rows, part, others, grid)
            error += missed
    best = np.argmin(error, axis=0)
    out_of_reach = np.isinf(error).sum(0)
    return Penalty(grid[best], len(parts), (best == out_of_reach) | (best == len(grid) - 1), out_of_reach, note)


def _left_out(rows: GroupScatter, part: int, others: tuple[int, ...], grid: Floats) -> tuple[Floats, str]:
    """Squared errors (penalties, m) over the rows of `part` of fits on `others`, infinite where there is none; and their note."""
    rest, left_out = rows.of(others), None
    error = np.full((len(grid), rest.moments.zy.shape[1]), np.inf)
    for labels in _some(error.shape[1], len(grid) * rest.moments.dim):
        solved = rest.tried(rest.moments.zy[:, labels], grid)
        left_out = left_out or rows.of((part,), solved=False)  # not before: solving took its share of memory
        for g, coefficients in enumerate(solved.x):
            missed = squared_error(coefficients, labels, rest.moments, left_out)
            error[g, labels] = np.where(solved.reached[g], missed, np.inf)
    return error, rest.scatter.note


def squared_error(coefficients: Floats, labels: slice, fitted_on: Moments, rows: Subset) -> Floats:
    """Σ(y − ŷ)² over `rows`, (m,), of some labels' regressions (d, m) whose means are those of `fitted_on`."""
    moments = rows.moments
    z_shift, y_shift = moments.z_mean - fitted_on.z_mean, (moments.y_mean - fitted_on.y_mean)[labels]
    shift = y_shift - z_shift @ coefficients
    inside = np.diagonal(moments.yy)[labels] - 2 * np.einsum("dm,dm->m", coefficients, moments.zy[:, labels])
    inside = inside + np.einsum("dm,dm->m", coefficients, rows.scatter @ coefficients)
    return np.asarray(np.maximum(inside, 0) + moments.n * shift**2)


def ridge(rows: Subset, penalty: Penalty) -> Passes[Any, Ridged]:
    """The fit of at least two rows."""
    moments, scatter, l2 = rows.moments, rows.scatter, penalty.l2
    solved = yield from rows.solve(moments.zy, l2)
    w = solved.x[0]
    error, rank = None, None
    if isinstance(scatter, Whole):
        spread, freedom = scatter.spread(l2)
        noise = squared_error(w, slice(None), moments, rows) / np.maximum(moments.n - freedom - 1, 1.0)
        error, rank = np.sqrt(spread * noise), scatter.rank(float(l2[0]))
    return Ridged(w, error, moments.y_mean - moments.z_mean @ w, solved.residual[0], rank)


def _some(labels: int, values: int) -> Iterator[slice]:
    """Slices of the labels, so many at once that `values` numbers of each fit."""
    step = max(1, MAX_VALUES // values)
    for start in range(0, labels, step):
        yield slice(start, start + step)
