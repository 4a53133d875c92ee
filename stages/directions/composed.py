"""New directions from stored ones, with the data's spread along them: the compose step.

A composed direction is a combination Σ cⱼvⱼ of unit directions, so its score is the same combination of their scores, and its
intercept follows where all of them have one. Directions that depend on one another get a typed status that names them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from schemas.measurements import Measurement
from schemas.steps import ComposeStep
from stages.attributes import Floats
from stages.components.along import Along
from stages.components.found import Rows, counts
from stages.components.over_latents import OverLatents
from stages.directions.compose import Basis, Dependent, dependent_rows, lowdin, project_out
from stages.directions.direction import Direction, FitStatus
from stages.stage import Passes


@dataclass(frozen=True, slots=True)
class Parent:
    """A stored direction. `vector` (d,) of unit length; `offset` puts vector·z + offset = 0 between the classes, or None."""

    name: str
    attribute: str
    vector: Floats
    offset: float | None
    n: int
    n_positive: int | None
    n_negative: int | None


@dataclass(frozen=True, slots=True)
class Composed:
    """What a compose step stores: directions in the order of its `directions`, and measurements of the set."""

    directions: tuple[Direction, ...]
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True, slots=True)
class _Made:
    """One combination, or which directions stand in its way."""

    vector: Floats | None = None
    offset: float | None = None
    dependent: tuple[str, ...] = ()


def compose(step: ComposeStep, targets: Sequence[Parent], against: Sequence[Parent]) -> Passes[Any, Composed]:
    """One pass, for the mean of the rows and their spread along the new directions; none where there is no new direction."""
    made, told = _combine(step, targets, against), _condition([*targets, *against])
    good = [m.vector / np.linalg.norm(m.vector) for m in made if m.vector is not None]
    rows = Rows(0, 0, np.zeros(0), np.zeros(0))
    if good:
        counted = yield OverLatents(Along(np.stack(good)))
        rows = counted.state.rows(non_finite=counted.non_finite)
        told += counts(rows, str(FitStatus.OK if rows.n else FitStatus.NO_ROWS))
    estimator = f"compose:{step.method}"
    everyone = tuple(p.name for p in (*targets, *against))
    directions, at = [], 0
    for parent, one in zip(targets, made, strict=True):
        bare = _bare(parent, everyone, estimator, one)
        if one.vector is not None and rows.n == 0:
            bare = replace(bare, status=str(FitStatus.NO_ROWS), message="no row with a finite latent was selected")
        elif one.vector is not None:
            norm = float(np.linalg.norm(one.vector))
            bare = replace(
                bare,
                vector=good[at],
                raw_norm=norm,
                intercept=one.offset,
                mean=rows.mean,
                sigma=float(rows.sigma[at]),
                non_finite=rows.non_finite,
            )
            told += [
                Measurement("cosine", float(good[at] @ other.vector), f"{step.name}.{parent.name}", other.name)
                for other in (*targets, *against)
            ]
        at += one.vector is not None
        directions.append(bare)
    return Composed(tuple(directions), tuple(told))


def _combine(step: ComposeStep, targets: Sequence[Parent], against: Sequence[Parent]) -> list[_Made]:
    if step.method == "projection":
        return [_projected(parent, against or [*targets[:i], *targets[i + 1 :]]) for i, parent in enumerate(targets)]
    vectors = np.stack([p.vector for p in targets])
    try:
        basis = Basis.of(vectors)
        new = lowdin(vectors) if step.method == "lowdin" else basis.dual
    except Dependent as error:
        names = tuple(targets[i].name for i in error.rows)
        return [_Made(dependent=names) for _ in targets]
    return [_combined(vector, basis, targets) for vector in new]


def _projected(parent: Parent, others: Sequence[Parent]) -> _Made:
    matrix = np.stack([p.vector for p in others])
    if rows := dependent_rows(matrix):
        return _Made(dependent=tuple(others[i].name for i in rows))
    left = project_out(parent.vector[None], matrix)[0]
    together = [parent, *others]
    if not left.any():
        rows = dependent_rows(np.stack([p.vector for p in together]))
        return _Made(dependent=tuple(together[i].name for i in rows) or tuple(p.name for p in together))
    return _combined(left, Basis.of(np.stack([p.vector for p in together])), together)


def _combined(vector: Floats, basis: Basis, of: Sequence[Parent]) -> _Made:
    offsets = [p.offset for p in of]
    if any(o is None for o in offsets):
        return _Made(vector)
    return _Made(vector, float((vector @ basis.dual.T) @ np.array(offsets, np.float64)))


def _condition(parents: Sequence[Parent]) -> list[Measurement]:
    vectors = np.stack([p.vector for p in parents])
    try:
        value = Basis.of(vectors).condition
    except Dependent as error:
        names = ", ".join(parents[i].name for i in error.rows)
        return [Measurement("condition", status=str(FitStatus.COLLINEAR), message=f"{names} depend on one another")]
    return [Measurement("condition", value, n=len(parents))]


def _bare(parent: Parent, everyone: tuple[str, ...], estimator: str, made: _Made) -> Direction:
    status, message = FitStatus.OK, f"of {', '.join(everyone)}"
    if made.vector is None:
        status = FitStatus.COLLINEAR
        message = f"{', '.join(made.dependent)} depend on one another, so none can be set apart; leave one of them out"
    return Direction(
        attribute=parent.attribute,
        attributes=everyone,
        estimator=estimator,
        status=str(status),
        message=message,
        confidence=None,
        n=parent.n,
        n_positive=parent.n_positive,
        n_negative=parent.n_negative,
    )
