"""From eigenvalues to what is stored: a direction a component, with its variance, its n, and a word where it is not determined.

The standard error of a variance λ is λ√(2/n) for nearly Gaussian rows. Two components whose variances differ by less than the
95 % interval of such a difference mix freely from sample to sample: only the plane they span is determined (North et al.
1982). That is said, not hidden.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from schemas.measurements import Measurement
from stages.components.eigen import RANK_EIGENVALUE, Eigen, Floats
from stages.components.subspace import TOLERANCE
from stages.directions.direction import Direction, FitStatus

NOT_CONVERGED = "not_converged"
UNRESOLVED = "unresolved"
_SHOWN_RESIDUAL = 1e-4
"""A residual above this share of a component's own value is worth a word."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a components step stores."""

    directions: tuple[Direction, ...]
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """The selected rows: how many, how many left out, mean (d,) and the standard deviation along each direction (k,)."""

    n: int
    non_finite: int
    mean: Floats
    sigma: Floats


def failed(estimator: str, names: Sequence[str], rows: Rows, status: FitStatus) -> Found:
    """No component can be found on these rows."""
    message = f"{rows.non_finite} rows with a non-finite latent left out" if rows.non_finite else None
    bare = Direction("", (), estimator, str(status), message, None, n=rows.n, non_finite=rows.non_finite)
    return Found(tuple(replace(bare, attribute=name) for name in names), counts(rows, str(status)))


def direction(
    name: str,
    estimator: str,
    vector: Floats,
    rows: Rows,
    i: int,
    *,
    raw_norm: float,
    intercept: float | None = None,
    message: str = "",
) -> Direction:
    """A stored direction of unit length; `raw_norm` is what it was divided by."""
    return Direction(
        attribute=name,
        attributes=(),
        estimator=estimator,
        status=str(FitStatus.OK),
        message=message or None,
        confidence=None,
        vector=vector,
        raw_norm=raw_norm,
        intercept=intercept,
        mean=rows.mean,
        sigma=float(rows.sigma[i]),
        n=rows.n,
        non_finite=rows.non_finite,
    )


def beyond_rank(name: str, estimator: str, rows: Rows) -> Direction:
    """A component that was asked for and does not exist: nothing varies along it."""
    status, message = str(FitStatus.NO_VARIANCE), "the rows have no more independent components"
    return Direction(name, (), estimator, status, message, None, n=rows.n, non_finite=rows.non_finite)


def words(eigen: Eigen, i: int, *, n: int | None) -> tuple[str, str]:
    """Status and message of component `i`'s value. `n`: rows the values were estimated from; None when they are exact."""
    value, residual = float(eigen.values[i]), float(eigen.residuals[i])
    if residual > max(_SHOWN_RESIDUAL * value, TOLERANCE * float(eigen.values[0])):
        return NOT_CONVERGED, f"its residual is {residual / value:.1g} of its value: raise `passes`"
    error = 1.96 * 2 * value / np.sqrt(n) if n else RANK_EIGENVALUE * float(eigen.values[0])
    for j in (i - 1, i + 1):
        if 0 <= j < len(eigen.values) and abs(float(eigen.values[j]) - value) < error:
            return UNRESOLVED, f"as large as component {j} within its error: only their span is determined"
    return "ok", ""


def measured(
    eigen: Eigen, names: Sequence[str], rows: Rows, *, metric: str, total: float | None, unit: str, estimated: bool
) -> tuple[Measurement, ...]:
    """Value and share of `total` of every component, and the counts. `total`: None where it is not known, and then there are no
    shares. `estimated`: values come from the rows.
    """
    n = rows.n if estimated else None
    found = list(counts(rows, "ok"))
    for i, name in enumerate(names[: len(eigen.values)]):
        value = max(float(eigen.values[i]), 0.0)
        status, message = words(eigen, i, n=n)
        found.append(Measurement(metric, value, name, n=n, unit=unit, status=status, message=message))
        if total:
            found.append(Measurement(f"{metric}_ratio", value / total, name, n=n))
    if total is not None:
        found.append(Measurement(f"total_{metric}", total, n=n, unit=unit))
    return tuple(found)


def counts(rows: Rows, status: str) -> tuple[Measurement, ...]:
    """How many rows there are, and how many were left out."""
    return (
        Measurement("rows", float(rows.n), n=rows.n, status=status),
        Measurement("non_finite", float(rows.non_finite), n=rows.n + rows.non_finite),
    )
