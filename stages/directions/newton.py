"""Several smooth convex minimisations at once, few evaluations each: L-BFGS with a good first curvature.

An evaluation is a pass over a whole dataset, so it serves every problem together and gives gradients only. For a convex
function the slope at a trial point says all a line search needs: not yet positive, and it has gone down all the way; where it
is too steep again, the secant of the two slopes gives a shorter step. Each step that is taken teaches the curvature along it
(Nocedal and Wright 2006, §7.2). With a curvature that is right within a share e, an evaluation gains a factor of e/2 or so.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Precondition = Callable[[Floats], Floats]
"""Approximate inverse Hessian of every problem: (coefficients, problems) → the same."""

PRECISE_BELOW = 1e-3
"""Steps smaller than this, relative, are worth float64. Below it, float32 would teach noise where coefficients are collinear."""
LEFT = 0.4
"""A small step ends a problem only if what it leaves is below this share of the tolerance, should steps go on shrinking as slowly as
the slower of the last two did: one may be short by luck."""
OVERSHOOT = 0.5
"""A trial is refused when the slope there rises again more than this share of the slope at the start."""

HISTORY = 20
"""Pairs of step and curvature that are remembered."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Where gradients are wanted: weights (coefficients, problems) of `problems`, the positions still open.

    `contraction` (problems,): the step to here relative to the one before; above a few tenths, the curvature is poor. At the
    first trial there is none, and it is 0.
    """

    weights: Floats
    problems: npt.NDArray[np.int64]
    precise: bool
    contraction: Floats


@dataclass(frozen=True, slots=True)
class Slope:
    """At a trial: gradient (coefficients, problems). `parted`: (problems,), this problem has no finite minimum.

    `precondition`: a better first curvature, found on the way, for the problems at the positions `renewed` of the trial.
    """

    gradient: Floats
    parted: Bools
    precondition: Precondition | None = None
    renewed: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Minimum:
    """weights (coefficients, problems); neither converged nor parted means that evaluations ran out."""

    weights: Floats
    converged: Bools
    parted: Bools
    evaluations: int


Minimisation = Generator[Trial, Slope, Minimum]


@dataclass(slots=True)
class _Descent:
    """The running state of all problems; arrays are (coefficients, problems) or (problems,)."""

    weights: Floats
    gradient: Floats
    open: Bools
    converged: Bools
    parted: Bools
    shortened: Floats
    """By how much the last step was too long, where it was refused; else 0."""
    pairs: deque[tuple[Floats, Floats, Floats]] = field(default_factory=lambda: deque(maxlen=HISTORY))
    """(step, change of the gradient along it, 1 / their product or 0 where the pair teaches nothing)."""

    @classmethod
    def at(cls, start: Floats) -> "_Descent":
        no = np.zeros(start.shape[1], bool)
        return cls(start.copy(), np.zeros_like(start), ~no, no, no.copy(), np.zeros(start.shape[1]))

    def direction(self, precondition: Precondition) -> Floats:
        """The L-BFGS two-loop recursion, all problems side by side."""
        q = self.gradient.copy()
        shares = []
        for step, bend, inverse in reversed(self.pairs):
            shares.append(inverse * (step * q).sum(0))
            q -= shares[-1] * bend
        q = precondition(q)
        for (step, bend, inverse), share in zip(self.pairs, reversed(shares), strict=True):
            q += step * (share - inverse * (bend * q).sum(0))
        return -q

    def forget(self, problems: npt.NDArray[np.int64]) -> None:
        """Drops what steps taught: pairs from further out would spoil a curvature that was taken nearer."""
        for _, _, inverse in self.pairs:
            inverse[problems] = 0

    def close(self, done: Bools, step: Floats) -> None:
        """Takes the last step of the problems that are `done`."""
        self.weights += np.where(done, step, 0)
        self.converged |= done
        self.open &= ~done

    def take(self, step: Floats, problems: npt.NDArray[np.int64], slope: Slope, *, blind: Bools) -> None:
        """Moves the problems whose trial went well and lets them learn from it; shortens the step of the others.

        `blind` (problems,): the gradient at the start of the step is too rough to compare with, so the step is taken as it is.
        """
        gradient = self.gradient.copy()
        gradient[:, problems] = slope.gradient
        before, after = (self.gradient * step).sum(0), (gradient * step).sum(0)
        good = self.open & ((after <= -OVERSHOOT * before) | blind)
        bend = gradient - self.gradient
        curvature = (step * bend).sum(0)
        useful = good & ~blind & (curvature > 0)
        self.pairs.append((step, bend, np.where(useful, 1 / np.where(useful, curvature, 1.0), 0.0)))
        self.weights += np.where(good, step, 0)
        self.gradient[:, good] = gradient[:, good]
        refused = self.open & ~good
        secant = -before / np.where(refused, curvature, 1.0)
        self.shortened = np.where(refused, np.clip(secant, 0.1, 0.7), 0.0)
        self.parted[problems] |= slope.parted


def minimise(
    start: Floats,
    *,
    precondition: Precondition,
    units: Floats,
    tolerance: Floats,
    max_evaluations: int,
    precise: bool = False,
) -> Minimisation:
    """Yields trials, is sent their slopes, returns the minima.

    `units` (coefficients,): the size of a coefficient that matters is 1/unit. `tolerance` (problems,): a problem is done when its
    next step is below it, relative to its largest coefficient, and steps are shrinking fast; that step is still taken.
    `precise`: ask for float64 from the first trial on.
    """
    p = start.shape[1]
    at = _Descent.at(start)
    direction = np.zeros_like(start)
    slope = yield Trial(start, np.arange(p), precise, contraction=np.zeros(p))
    at.gradient[:], at.parted[:] = slope.gradient, slope.parted
    evaluations, before, slower = 1, np.zeros(p), np.full(p, np.inf)
    while True:
        at.open &= ~at.parted
        direction = np.where(at.shortened > 0, at.shortened * direction, at.direction(precondition))
        size = relative_size(direction, at.weights, units)
        ratio = size / np.where(before > 0, before, np.inf)
        pace = np.minimum(np.maximum(np.where(before > 0, ratio, np.inf), slower), 0.99)
        settling = ((size * pace / (1 - pace) <= LEFT * tolerance) | (size <= 1e-3 * tolerance)) & (at.shortened == 0)
        at.close(at.open & (size <= tolerance) & settling & (precise | (tolerance > PRECISE_BELOW)), direction)
        if not at.open.any() or evaluations >= max_evaluations:
            return Minimum(at.weights, at.converged, at.parted, evaluations)
        problems, was_precise = np.flatnonzero(at.open), precise
        precise = precise or bool(size[problems].min() < PRECISE_BELOW)
        slope = yield Trial((at.weights + direction)[:, problems], problems, precise, ratio[problems])
        evaluations, before, slower = evaluations + 1, size, np.where(before > 0, ratio, 0.0)
        precondition = slope.precondition or precondition
        at.forget(problems[list(slope.renewed)])
        at.take(direction, problems, slope, blind=(size < PRECISE_BELOW) & (precise != was_precise))


def run(descent: Minimisation, answer: Callable[[Trial], Slope]) -> Minimum:
    """Carries a minimisation through where slopes are to be had at once."""
    trial = next(descent)
    while True:
        try:
            trial = descent.send(answer(trial))
        except StopIteration as end:
            minimum: Minimum = end.value
            return minimum


def relative_size(step: Floats, weights: Floats, units: Floats) -> Floats:
    """Largest coefficient of each step in `units`, relative to the largest weight; below .1 a weight counts as .1."""
    return np.asarray(
        np.abs(step * units[:, None]).max(0) / np.maximum(np.abs(weights[:-1] * units[:-1, None]).max(0), 0.1)
    )
