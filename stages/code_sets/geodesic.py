"""The shortest path of pictures between two latents: a curve in latent space whose decoded images change as little as possible.

Minimises the discrete energy  E(z) = n·Σ ‖φ(D(zᵢ₊₁)) − φ(D(zᵢ))‖²  over the inner nodes of n segments between fixed ends
(Shao et al. 2018; Arvanitidis et al. 2018), with D the codec's float decoder and φ a feature map, by default the pixels
themselves in [0, 1]. By Cauchy–Schwarz E ≥ (Σ‖·‖)², the squared length, with equality at constant speed: so the minimum is
both short and even. L-BFGS from the straight line; what is left of uneven speed goes by resampling along the length.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize

from stages.code_sets.path import Array

Pictures = Callable[[torch.Tensor], torch.Tensor]
"""(m, d) latents → (m, …) floats, differentiable, row by row: decode, then φ."""

MIN_SEGMENTS = 16


@dataclass(frozen=True, slots=True)
class Geodesic:
    """`latents` (frames, d) at constant speed. Energies in squared units of φ; `length` is Σ‖·‖ over the nodes.

    `gradient`: the largest part of ∇E (in smoothed coordinates) times ‖b − a‖ over E, dimensionless; `converged` when it is at most the tolerance.
    """

    latents: Array
    energy: float
    straight_energy: float
    length: float
    iterations: int
    gradient: float
    converged: bool

    def facts(self) -> Mapping[str, Any]:
        """The convergence report, numbers to 6 digits."""
        shortened = {n: float(f"{getattr(self, n):.6g}") for n in ("energy", "straight_energy", "length", "gradient")}
        return {**shortened, "iterations": self.iterations, "converged": self.converged}


def geodesic(
    a: Array,
    b: Array,
    frames: int,
    *,
    pictures: Pictures,
    iterations: int = 200,
    tolerance: float = 1e-3,
) -> Geodesic | None:
    """From a to b, (d,) each, in `frames` points, the ends exactly those. None when pictures on the way are not finite.

    One pair at a time: every decode is of the same n+1 nodes, so a path does not depend on what else is computed with it.
    """
    segments = (frames - 1) * -(-MIN_SEGMENTS // (frames - 1))
    straight = a + np.linspace(0, 1, segments + 1)[:, None] * (b - a)
    straight[-1] = b
    value = _Energy(straight, pictures)
    spread = _smoothing(segments - 1)
    start, _ = value(straight[1:-1])
    if not np.isfinite(start):
        return None
    distance, chord = float(np.linalg.norm(b - a)), value.chord
    if distance == 0 or start == 0:
        # Nothing to shorten: the ends are one latent, or all pictures between them are the same.
        return Geodesic(_thinned(straight, frames), 0.0, 0.0, 0.0, 0, 0.0, True)

    def smooth(u: Array) -> tuple[float, Array]:
        """E by u, where the inner nodes are straight + spread·u."""
        energy, gradient = value(straight[1:-1] + spread @ u.reshape(-1, len(a)))
        return energy, (spread.T @ gradient).ravel()

    found = minimize(
        smooth,
        np.zeros((segments - 1) * len(a)),
        jac=True,
        method="L-BFGS-B",
        # Aims below the tolerance, which float32 decoders may not reach. No path is shorter than the chord: E ≥ chord².
        options={"maxiter": iterations, "gtol": 0.1 * tolerance * chord**2 / distance, "ftol": 1e-15, "maxcor": 20},
    )
    inner = straight[1:-1] + spread @ found.x.reshape(-1, len(a))
    energy, gradient = value(inner)
    if not (np.isfinite(energy) and np.isfinite(gradient).all()):
        return None
    relative = float(np.abs(spread.T @ gradient).max()) * distance / energy
    nodes = np.vstack([a, inner, b])
    return Geodesic(
        latents=at_constant_speed(nodes, value.steps, frames),
        energy=energy,
        straight_energy=start,
        length=float(value.steps.sum()),
        iterations=int(found.nit),
        gradient=relative,
        converged=relative <= tolerance,
    )


def at_constant_speed(nodes: Array, steps: Array, frames: int) -> Array:
    """nodes (n+1, d) and the lengths of the n steps between them → (frames, d) evenly along the length, by cubic splines.

    Steps of no length are left out; the ends are exact.
    """
    moving = np.concatenate([[True], steps > 0])
    along = np.concatenate([[0.0], np.cumsum(steps)])[moving]
    if len(along) < 3:
        return _thinned(nodes, frames)
    out = np.asarray(CubicSpline(along / along[-1], nodes[moving])(np.linspace(0, 1, frames)))
    out[0], out[-1] = nodes[0], nodes[-1]
    return out


def _thinned(nodes: Array, frames: int) -> Array:
    return nodes[:: (len(nodes) - 1) // (frames - 1)].copy()


def _smoothing(count: int) -> Array:
    """(count, count) with M·Mᵀ the inverse of the second difference: in u, with z = M·u, E is round whatever n is.

    E's curvature is about n·(second difference) ⊗ JᵀJ, whose condition grows as n²; M takes the first factor out.
    """
    second_difference = 2 * np.eye(count) - np.eye(count, k=1) - np.eye(count, k=-1)
    return np.asarray(np.linalg.inv(np.linalg.cholesky(second_difference)).T)


class _Energy:
    """E and ∇E of the inner nodes (n−1, d); `steps` holds the step lengths, and `chord` the distance of the ends, of the last call."""

    def __init__(self, straight: Array, pictures: Pictures) -> None:
        self._ends = torch.from_numpy(straight[[0, -1]])
        self._pictures = pictures
        self.steps = np.zeros(len(straight) - 1)
        self.chord = 0.0

    def __call__(self, inner: Array) -> tuple[float, Array]:
        moving = torch.from_numpy(inner.copy()).requires_grad_()
        with torch.enable_grad():
            shown = self._pictures(torch.cat([self._ends[:1], moving, self._ends[1:]])).flatten(1).to(torch.float64)
            squares = (shown[1:] - shown[:-1]).square().sum(dim=1)
            energy = len(squares) * squares.sum()
            (gradient,) = torch.autograd.grad(energy, moving)
        self.steps = squares.detach().sqrt().cpu().numpy()
        self.chord = float((shown[-1] - shown[0]).detach().norm())
        return float(energy.detach()), gradient.cpu().numpy().astype(np.float64)
