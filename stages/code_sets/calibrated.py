"""Strength by effect, row by row: how far to go until the score of the *decoded* picture has changed by what was asked.

A direction n scores latents by s(z) = nᵀz/ℓ + c, with ℓ the length of one effect (stages/directions/effect.py). A step αn changes
that score by α/ℓ in the latent. What the picture shows is another matter wherever the decoder bends or E∘D is not the identity:

    find α with  s(E(D(z + αm))) − s(E(D(z))) = strength,    m = n, or what a mask leaves of it     (latent-science §8.7)

First α = strength·ℓ/(nᵀm), the linear answer, is tried: where pictures follow latents it is kept. Then secants outwards until the
answer is enclosed, and false position inside (Illinois), all on the side that the strength's sign says, up to the edge of the trust
region, or to `REACH` standard deviations of the data along n where there is none. A code is decoded at most 1 + `TRIES` times. Where
that does not come within `TOLERANCE` of the strength, the tried code that came nearest is taken, and flagged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from schemas.errors import JobError
from stages.code_sets.axes import Axis, row_dots
from stages.code_sets.trust import CLIPPED, Trust

if TYPE_CHECKING:
    from stages.codecs.base import Codec

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

EFFECT_UNREACHED = "effect_unreached"
"""Flag of a code whose picture does not show the effect that was asked, within the tolerance."""
TRIES = 12
TOLERANCE = 0.02
"""Of the asked change: pictures are rounded to 256 levels, so no code shows a change exactly."""
REACH = 6.0
FAR = 1e6


@dataclass(frozen=True, eq=False)
class Solved:
    """`lengths` (F,) signed; `reached` (F,) within the tolerance; `stopped` (F,) at the bound without it."""

    lengths: Array
    reached: Bools
    stopped: Bools


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Codes (n, F, d), their flags (n, F), and which rows have a score at all (n,): for one that has none nothing can be asked."""

    codes: Array
    marks: dict[str, Bools]
    scored: Bools


def calibrated(
    z: Array, asked: Array, *, axis: Axis, move: Array, trust: Trust | None, codec: "Codec", at: str
) -> Calibrated:
    """z (n, d) and the asked changes of score (F,) → codes z + α·`move`. Each row is worked on by itself, with batches of one size.

    `move` (d,): what one unit of length along the axis changes. Raises JobError for a codec that cannot encode and decode, and
    without a trust region for an axis the data do not vary along.
    """
    if lacking := sorted({"encode", "decode"} - codec.can):
        raise JobError.one(f"{at}.calibrate", "row", f"this codec cannot {lacking[0]}.", "use calibrate: mean")
    clips = trust is not None and trust.clip
    if not clips and not (np.isfinite(axis.sigma) and axis.sigma > 0):
        reason = f"along `{axis.title}` the data's standard deviation is {axis.sigma:g}: there is no telling how far to look."
        raise JobError.one(f"{at}.calibrate", "row", reason, "give a trust region that clips, or use calibrate: mean")
    bounds = _bounds(z, np.sign(asked), move, trust=trust if clips else None, furthest=REACH * axis.sigma)
    along = float(axis.vector @ move)
    linear = asked * axis.scale / along if along > 0 else asked * axis.scale

    def score(codes: Array) -> Array:
        return _projections(codec, codes, axis.vector) / axis.scale

    found = [_solved(score, row, asked, linear, bound, move) for row, bound in zip(z, bounds, strict=True)]
    none = np.zeros(len(asked), np.bool_)
    solved = [one or Solved(np.zeros(len(asked)), none, none) for one in found]
    shape = (len(z), len(asked))
    lengths = np.array([one.lengths for one in solved]).reshape(shape)
    reached = np.array([one.reached for one in solved], np.bool_).reshape(shape)
    stopped = np.array([one.stopped for one in solved], np.bool_).reshape(shape)
    codes = z[:, None, :] + lengths[:, :, None] * move
    marks = {EFFECT_UNREACHED: ~reached} | ({CLIPPED: stopped} if clips else {})
    if trust is not None and not clips:
        marks |= trust.hold(z, codes)[1]
    return Calibrated(codes, marks, np.array([one is not None for one in found], np.bool_))


def _solved(
    score: Callable[[Array], Array], latent: Array, asked: Array, linear: Array, bound: Array, move: Array
) -> Solved | None:
    """One row; None where its own picture has no score."""
    start = score(latent[None])[0]
    if not np.isfinite(start):
        return None
    return solve(lambda steps: score(latent + steps[:, None] * move) - start, asked, linear=linear, bound=bound)


def solve(change: Callable[[Array], Array], asked: Array, *, linear: Array, bound: Array) -> Solved:
    """Lengths (F,) whose `change` is `asked`, each of the sign of its `asked` and at most `bound` (F,) long.

    `change` takes F lengths to F changes, NaN where there is none; it is called at most `TRIES` times. `linear`: what to try first.
    """
    sign, size = np.where(asked < 0, -1.0, 1.0), np.abs(asked)
    low, low_error = np.zeros(len(asked)), -size
    high, high_error = np.full(len(asked), np.inf), np.full(len(asked), np.nan)
    best, best_error = np.zeros(len(asked)), size.copy()
    reached, stopped = size == 0, (size > 0) & (bound <= 0)
    side = np.zeros(len(asked))
    at = np.minimum(np.abs(linear), bound)
    for _ in range(TRIES):
        live = ~(reached | stopped)
        if not live.any():
            break
        error = sign * change(sign * np.where(live, at, best)) - size
        known = live & np.isfinite(error)
        better = known & (np.abs(error) < best_error)
        best, best_error = np.where(better, at, best), np.where(better, np.abs(error), best_error)
        reached |= known & (np.abs(error) <= TOLERANCE * size)
        # A picture without a score is beyond what can be reached, as one that shows too much.
        under, over = known & (error < 0), live & ~(error < 0)
        stopped |= under & (at >= bound) & ~reached
        # Illinois: an end that stays twice counts half, or false position would creep.
        high_error = np.where(under & (side < 0), high_error / 2, high_error)
        low_error = np.where(over & (side > 0), low_error / 2, low_error)
        before, before_error = low, low_error
        low, low_error = np.where(under, at, low), np.where(under, error, low_error)
        high, high_error = np.where(over, at, high), np.where(over, error, high_error)
        side = np.where(under, -1.0, np.where(over, 1.0, side))
        at = np.where(
            np.isfinite(high),
            _between(low, low_error, high, high_error),
            np.minimum(_beyond(before, before_error, low, low_error), bound),
        )
    return Solved(sign * best, reached, stopped)


def _between(low: Array, low_error: Array, high: Array, high_error: Array) -> Array:
    """False position, kept a twentieth of the width away from either end; the middle where an end has no error."""
    with np.errstate(invalid="ignore", divide="ignore"):
        width = high - low
        met = low + width * (-low_error) / (high_error - low_error)
        return np.where(np.isfinite(met), np.clip(met, low + 0.05 * width, high - 0.05 * width), low + 0.5 * width)


def _beyond(before: Array, before_error: Array, low: Array, low_error: Array) -> Array:
    """The secant through the last two tries, from a tenth further out to twice as far."""
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (low_error - before_error) / (low - before)
        met = np.where(slope > 0, low - low_error / slope, np.inf)
    return np.clip(np.where(np.isnan(met), np.inf, met), 1.1 * low, 2.0 * low)


def _bounds(z: Array, signs: Array, move: Array, *, trust: Trust | None, furthest: float) -> Array:
    """How far rows may go along ±`move`, by frame, in units of `move`: (n, F)."""
    length = float(np.linalg.norm(move))
    if trust is None or length == 0:
        return np.full((len(z), len(signs)), furthest if length > 0 else 0.0)
    most = np.full(len(z), FAR * length)
    reach = {s: trust.region.reach(z, np.broadcast_to(s * move / length, z.shape), most) for s in (-1.0, 1.0)}
    return np.stack([reach[-1.0 if s < 0 else 1.0] / length for s in signs], axis=1)


def _projections(codec: "Codec", codes: Array, vector: Array) -> Array:
    """codes (m, d) → vectorᵀE(D(code)) as stored codes and pictures are, (m,): float32 latents, uint8 pictures."""
    import torch  # only for jobs that calibrate

    with torch.inference_mode(), np.errstate(over="ignore"):
        latents = torch.from_numpy(codes.astype(np.float32)).reshape(-1, *codec.latent.shape)
        back = codec.encode(codec.decode(latents)).mean.flatten(1)
    return row_dots(back.cpu().numpy().astype(np.float64), vector)
