"""A codec whose pictures lie on a d-sphere in pixel space, so distances and geodesics are known in closed form.

decode(z) = μ + r·Qᵀs(z), with Q's d+1 rows orthonormal and s the inverse stereographic projection
s(z) = (2z, ‖z‖² − 1)/(‖z‖² + 1) ∈ S^d: straight lines between latents bend in pixel space, on purpose. encode projects
onto Q, normalises, and projects stereographically back. The radius is the largest that never leaves [0, 1], so pictures
are not clipped; only their rounding to uint8 keeps encode ∘ decode from the identity (about 10⁻⁴ at 64×64).
Two pictures have no latent: one at the centre (no direction) and one at the pole (z infinite). Both come out non-finite.
"""

import math

import numpy as np
import torch

from schemas.codec import LatentSpec, SphereCodec
from stages.codecs.abilities import EXACT, Abilities
from stages.codecs.base import Encoded, WithoutPrior
from stages.codecs.basis import FixedPointBasis, orthonormal_rows
from stages.codecs.pictures import to_uint8


class Sphere(WithoutPrior):
    """Pictures on a d-sphere of radius `radius` (in pixels/255). It encodes and decodes; it has no prior."""

    can: Abilities = EXACT

    def __init__(self, spec: SphereCodec, *, device: str = "cpu") -> None:
        self.picture = spec.preprocess.size
        self.latent = LatentSpec(shape=(spec.dim,), space="z")
        length = self.picture[0] * self.picture[1] * 3
        rows = orthonormal_rows(spec.dim + 1, length, seed=spec.seed)
        # |row of Qᵀ · s| ≤ its norm; rounded down to 2⁻¹⁰ so that the last bits of a sum cannot matter.
        self.radius = math.floor(0.5 / math.sqrt(float((rows**2).sum(axis=0).max())) * 1024) / 1024
        self._basis = FixedPointBasis(rows, np.full(length, 0.5), device=device)
        self._device = device

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor) -> Encoded:
        """(n, height, width, 3) uint8 → mean (n, d) float32. Not finite for the centre and the pole."""
        point = self._basis.project(pixels.to(self._device).flatten(1))
        return Encoded(to_plane(point / point.norm(dim=1, keepdim=True)).to(torch.float32))

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, height, width, 3) uint8."""
        return to_uint8(self.decode_float(latents))

    def decode_float(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, height, width, 3) float64 in [0, 1], before rounding; differentiable."""
        point = to_sphere(latents.to(self._device, torch.float64))
        pixels = self._basis.mean + self.radius * point @ self._basis.rows
        return pixels.reshape(-1, *self.picture, 3)

    def geodesic_distance(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Length of the shortest path of pictures from a to b, (n,) float64, in units of pixels/255 (L2): r·angle.

        Ground truth: nothing in a job asks for it; tests hold every path of pictures against it.
        """
        return self.radius * angle(to_sphere(a.to(torch.float64)), to_sphere(b.to(torch.float64)))

    def geodesic(self, a: torch.Tensor, b: torch.Tensor, *, t: float) -> torch.Tensor:
        """The latent at fraction t of the great circle from a to b, (n, d) float64. Opposite ends have no one path: NaN."""
        p, q = to_sphere(a.to(torch.float64)), to_sphere(b.to(torch.float64))
        omega = angle(p, q)[:, None]
        bent = (torch.sin((1 - t) * omega) * p + torch.sin(t * omega) * q) / torch.sin(omega)
        straight = (1 - t) * p + t * q
        point = torch.where(omega < 1e-8, straight, torch.where(math.pi - omega < 1e-8, torch.nan, bent))
        return to_plane(point)


def to_sphere(z: torch.Tensor) -> torch.Tensor:
    """Inverse stereographic projection: (n, d) → (n, d+1) of unit length; 0 is the south pole, infinity the north."""
    square = (z * z).sum(dim=1, keepdim=True)
    return torch.cat([2 * z, square - 1], dim=1) / (square + 1)


def to_plane(point: torch.Tensor) -> torch.Tensor:
    """Stereographic projection: (n, d+1) of unit length → (n, d). The north pole has no image: not finite."""
    return point[:, :-1] / (1 - point[:, -1:])


def angle(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Angle between unit vectors in radians, (n,): 2·atan2(‖p−q‖, ‖p+q‖), accurate at 0 and at π."""
    return 2 * torch.atan2((p - q).norm(dim=1), (p + q).norm(dim=1))
