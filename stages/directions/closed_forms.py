"""Directions in closed form from one statistic: balanced difference of means, and forward least squares (latent-science §3).

Difference of means  Σ_c π_c (m₊,c − m₋,c), π_c the share of cell c among the cells that hold both classes.
Forward least squares  Z = 1β₀ + YB,  B = (YᵀY + λI)⁻¹YᵀZ with Y and Z centred: row a of B is what attribute a changes while
the others stay.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.attributes import Column, Floats, LabelCounts
from stages.directions.cells import ClassPairs
from stages.directions.direction import Estimate, Evidence, FitStatus, is_rounding
from stages.moments import GroupMoments, Moments

COLLINEAR_EIGENVALUE = 1e-10
"""Eigenvalues of the labels' correlation matrix below this share of the largest count as zero."""
COLLINEAR_FIX = "its labels follow from those of the other fitted attributes; leave one of them out, or set l2 above 0"
HIGH_VIF = 10.0
"""Variance inflation above this is worth a word."""


def difference_of_means(pairs: ClassPairs) -> Estimate:
    """From the classes of one attribute in every cell. The standard error is Welch's, with each class's variance pooled over cells."""
    positive, negative = pairs.positive.n, pairs.negative.n
    evidence = Evidence.of_classes(int(positive.sum()), int(negative.sum()))
    if (status := class_status(evidence)) is not FitStatus.OK:
        return Estimate(status, evidence)
    both = (positive > 0) & (negative > 0)
    if not both.any():
        return Estimate(FitStatus.NO_OVERLAP, evidence, f"none of {len(both)} cells holds both classes")
    positive, negative = positive[both], negative[both]
    share = (positive + negative) / (positive + negative).sum()
    # Origins leave before they can cost a digit: far from zero a mean has few to spare.
    origins = pairs.positive.origin - pairs.negative.origin
    coefficients = share @ (pairs.positive.offset[both] - pairs.negative.offset[both] + origins)
    scatter = pairs.positive.scatter[both].sum(0) + pairs.negative.scatter[both].sum(0)
    unit = np.sqrt(scatter / (positive + negative).sum() + coefficients**2)
    middle = share @ (pairs.positive.mean[both] + pairs.negative.mean[both]) / 2
    return Estimate(
        FitStatus.ZERO_NORM if is_rounding(coefficients, unit) else FitStatus.OK,
        Evidence.of_classes(int(positive.sum()), int(negative.sum())),
        _cell_message(pairs, both, share),
        coefficients=coefficients,
        standard_error=_welch(pairs, both, share),
        intercept=float(-coefficients @ middle),
    )


def centred_class_mean(classes: Sequence[GroupMoments], of: int, rest: GroupMoments) -> Estimate:
    """m_c less the mean of all K class means, each class counting once, however many rows it has.

    `classes`: one statistic of one group a class; `rest`: all rows of the other classes. The standard error is Welch's.
    """
    evidence = Evidence.of_classes(int(classes[of].n[0]), int(rest.n[0]))
    if (status := class_status(evidence)) is not FitStatus.OK:
        return Estimate(status, evidence)
    seen = [c for c in classes if c.n[0]]
    weights = np.array([float(c is classes[of]) for c in seen]) - 1 / len(seen)
    # Weights add up to zero, so the common origin leaves before it can cost a digit.
    origin = classes[of].origin
    coefficients = np.asarray(sum(w * (c.offset[0] + (c.origin - origin)) for w, c in zip(weights, seen, strict=True)))
    few = any(c.n[0] < 2 for c in seen)
    variance = sum(w**2 * c.scatter[0] / max(c.n[0] - 1, 1) / c.n[0] for w, c in zip(weights, seen, strict=True))
    middle = (classes[of].mean[0] + rest.mean[0]) / 2
    unit = np.sqrt(sum(c.scatter[0] for c in seen) / sum(int(c.n[0]) for c in seen) + coefficients**2)
    return Estimate(
        FitStatus.ZERO_NORM if is_rounding(coefficients, unit) else FitStatus.OK,
        evidence,
        f"centred on the mean of {len(seen)} classes" if len(seen) > 2 else "",
        coefficients=coefficients,
        standard_error=None if few else np.asarray(np.sqrt(variance)),
        intercept=float(-coefficients @ middle),
    )


def class_status(evidence: Evidence) -> FitStatus:
    """Whether two classes can be told apart at all; an estimate of spread takes two rows of each."""
    if evidence.n == 0:
        return FitStatus.NO_LABELS
    if not evidence.n_positive or not evidence.n_negative:
        return FitStatus.SINGLE_CLASS
    return FitStatus.OK if min(evidence.n_positive, evidence.n_negative) >= 2 else FitStatus.TOO_FEW


def hopeless_estimate(counts: LabelCounts, i: int, column: Column) -> Estimate | None:
    """Why a column cannot be fitted on any rows of this dataset, or None."""
    if column.binary:
        evidence = class_evidence(counts, i)
        status = class_status(evidence)
        return None if status is FitStatus.OK else Estimate(status, evidence)
    evidence = Evidence(int(counts.known[i]))
    if evidence.n == 0:
        return Estimate(FitStatus.NO_LABELS, evidence)
    return Estimate(FitStatus.CONSTANT, evidence) if counts.low[i] == counts.high[i] else None


def is_constant(scatter: float, n: int, mean: float) -> bool:
    """Whether a number's Σ(y − ȳ)² over n rows is no more than rounding leaves of numbers that are all the same."""
    return scatter <= n * (1e-13 * mean) ** 2


def class_evidence(counts: LabelCounts, i: int) -> Evidence:
    """The classes of column `i` among all rows that know it."""
    return Evidence.of_classes(int(counts.positive[i]), int(counts.known[i] - counts.positive[i]))


def _welch(pairs: ClassPairs, both: np.ndarray, share: Floats) -> Floats | None:
    variance = np.zeros(pairs.positive.scatter.shape[1])
    for groups in (pairs.positive, pairs.negative):
        n, scatter = groups.n[both], groups.scatter[both]
        freedom = n.sum() - len(n)
        if freedom < 1:
            return None
        variance += scatter.sum(0) / freedom * (share**2 / n).sum()
    return np.asarray(np.sqrt(variance))


def _cell_message(pairs: ClassPairs, both: np.ndarray, share: Floats) -> str:
    if len(both) == 1:
        return ""
    positive, negative = pairs.positive.n, pairs.negative.n
    effective = 4 / (share**2 * (1 / positive[both] + 1 / negative[both])).sum()
    left_out = int((positive + negative)[~both].sum())
    empty = f"; {int((~both).sum())} of {len(both)} cells lack a class, {left_out} rows left out" if left_out else ""
    return f"balanced over {int(both.sum())} cells, effective n {effective:.0f}{empty}"


@dataclass(frozen=True, slots=True)
class _Solved:
    """One regression: `rows` of B (members, d), their standard errors, variance inflation and collinearity (members,)."""

    rows: Floats
    standard_error: Floats
    inflation: Floats
    collinear: np.ndarray


def least_squares(moments: Moments, columns: Sequence[Column], *, l2: float) -> list[Estimate]:
    """An estimate for every column of `moments`, a statistic of rows that are complete in them.

    `l2` ≥ 0 is scikit-learn's Ridge `alpha`. A category's column is set against all other values of its category: the
    others' columns stay out of its regression, as they and it would always add up to one.
    """
    classes = [_classes(moments, i, column) for i, column in enumerate(columns)]
    usable = [i for i, estimate in enumerate(classes) if estimate.status is FitStatus.OK]
    found = dict(enumerate(classes))
    for targets, members in regressions([(i, columns[i]) for i in usable]):
        if moments.n < len(members) + 2:
            reason = f"{moments.n} complete rows for {len(members)} attributes; fit fewer attributes at a time"
            found |= {i: Estimate(FitStatus.TOO_FEW, classes[i].evidence, reason) for i in targets}
            continue
        solved = _solve(moments, members, l2)
        found |= {i: _row(moments, classes[i].evidence, solved, members.index(i), i) for i in targets}
    return [found[i] for i in range(len(columns))]


def _classes(moments: Moments, i: int, column: Column) -> Estimate:
    """The counts of a column among the complete rows, and whether it varies enough to be fitted."""
    if not column.binary:
        same = is_constant(float(moments.yy[i, i]), moments.n, float(moments.y_mean[i]))
        return Estimate(FitStatus.CONSTANT if same else FitStatus.OK, Evidence(moments.n))
    positive = round(moments.n * float(moments.y_mean[i])) if moments.n else 0
    evidence = Evidence.of_classes(positive, moments.n - positive)
    status = class_status(evidence)
    reason = "" if status is FitStatus.OK else f"among the {moments.n} rows that carry every fitted label"
    return Estimate(status, evidence, reason)


def regressions(columns: Sequence[tuple[int, Column]]) -> Iterable[tuple[list[int], list[int]]]:
    """(targets, members): whose coefficients are taken from a regression, and which columns are in it."""
    first_value: dict[str, int] = {}
    for i, column in columns:
        if column.kind == "category":
            first_value.setdefault(column.label, i)
    references = set(first_value.values())
    base = [(i, column) for i, column in columns if i not in references]
    if plain := [i for i, column in columns if column.kind != "category"]:
        yield plain, [i for i, _ in base]
    for i, column in columns:
        if column.kind == "category":
            yield [i], [i, *(j for j, other in base if other.label != column.label)]


def _solve(moments: Moments, members: list[int], l2: float) -> _Solved:
    yy, zy = moments.yy[np.ix_(members, members)], moments.zy[:, members]
    scale = np.sqrt(np.diagonal(yy))
    correlation = yy / np.outer(scale, scale)
    values, vectors = np.linalg.eigh(correlation + np.diag(l2 / scale**2))
    kept = values > COLLINEAR_EIGENVALUE * values[-1]
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    rows = (inverse @ (zy / scale).T) / scale[:, None]
    spread = np.diagonal(inverse @ correlation @ inverse) / scale**2
    residual = moments.squares - 2 * np.einsum("aj,ja->j", rows, zy) + np.einsum("aj,ab,bj->j", rows, yy, rows)
    variance = np.maximum(residual, 0) / (moments.n - int(kept.sum()) - 1)
    return _Solved(
        rows=rows,
        standard_error=np.sqrt(np.outer(np.maximum(spread, 0), variance)),
        inflation=np.diagonal(inverse) if l2 == 0 else np.ones(len(members)),
        collinear=(vectors[:, ~kept] ** 2).sum(1) > COLLINEAR_EIGENVALUE,
    )


def _row(moments: Moments, evidence: Evidence, solved: _Solved, at: int, i: int) -> Estimate:
    if solved.collinear[at]:
        return Estimate(FitStatus.COLLINEAR, evidence, COLLINEAR_FIX)
    coefficients = solved.rows[at]
    vif = float(solved.inflation[at])
    unit = vif * np.sqrt(np.maximum(moments.squares, 0) / moments.yy[i, i])
    return Estimate(
        FitStatus.ZERO_NORM if is_rounding(coefficients, unit) else FitStatus.OK,
        evidence,
        f"variance inflation {vif:.0f}: nearly follows from the other attributes; l2 steadies it"
        if vif > HIGH_VIF
        else "",
        coefficients=coefficients,
        standard_error=solved.standard_error[at],
        intercept=_intercept(moments, evidence, coefficients, i),
    )


def _intercept(moments: Moments, evidence: Evidence, coefficients: Floats, i: int) -> float | None:
    """What puts score 0 halfway between the class means: zy holds Σ₊(z − mean), and Σ₋ is its opposite."""
    if not evidence.n_positive or not evidence.n_negative:
        return None
    middle = moments.z_mean + moments.zy[:, i] * (1 / evidence.n_positive - 1 / evidence.n_negative) / 2
    return float(-coefficients @ middle)
