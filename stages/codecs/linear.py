"""The exact codec: z = A(x − μ) and x = μ + Aᵀz, with x = pixels/255 flattened row-major H×W×3 and A's rows orthonormal.

For truth: whatever a stage computes on its latents can be checked in closed form. Both ways are exact functions of each
row (stages/codecs/basis.py), so the same picture has bit-identical latents in every batch, on every machine.
A and μ = 1/2 come from `seed`, or from the user's own safetensors (`basis` d×p, `mean` p; a PCA, say).
"""

import numpy as np
import torch
from safetensors.torch import load

from schemas.codec import LatentSpec, LinearCodec
from schemas.errors import JobError
from stages.codecs.abilities import EXACT, Abilities
from stages.codecs.base import Encoded, WithoutPrior
from stages.codecs.basis import FixedPointBasis, orthonormal_rows
from stages.codecs.pictures import to_uint8
from stages.codecs.weights import TENSOR_FILE, Weights

_ORTHONORMAL_TOLERANCE = 1e-4


class Linear(WithoutPrior):
    """z = A(x − μ), float32, exact. It encodes and decodes; it has no prior."""

    can: Abilities = EXACT

    def __init__(self, spec: LinearCodec, weights: Weights | None = None, *, device: str = "cpu") -> None:
        self.picture = spec.preprocess.size
        self.latent = LatentSpec(shape=(spec.dim,), space="z")
        length = self.picture[0] * self.picture[1] * 3
        if weights is None:
            rows, mean = orthonormal_rows(spec.dim, length, seed=spec.seed), np.full(length, 0.5)
        else:
            rows, mean = _read(weights)
        self._basis = FixedPointBasis(rows, mean, device=device)
        self._device = device

    @property
    def basis(self) -> torch.Tensor:
        """A: (d, height·width·3) float64."""
        return self._basis.rows

    @property
    def mean(self) -> torch.Tensor:
        """μ: (height·width·3,) float64, in units of pixels/255."""
        return self._basis.mean

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor) -> Encoded:
        """(n, height, width, 3) uint8 → mean (n, d) float32: A(x − μ), rounded once."""
        return Encoded(self._basis.project(pixels.to(self._device).flatten(1)).to(torch.float32))

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, height, width, 3) uint8: μ + Aᵀz, rounded to nearest and clipped."""
        return to_uint8(self._basis.expand(latents.to(self._device))).reshape(-1, *self.picture, 3)

    def decode_float(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, d) → (n, height, width, 3) float64 μ + Aᵀz in units of pixels/255, neither rounded nor clipped; differentiable."""
        pixels = self._basis.mean + latents.to(self._device, torch.float64) @ self._basis.rows
        return pixels.reshape(-1, *self.picture, 3)


def _read(weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """Basis and mean in float64. Raises JobError when the basis is not orthonormal: decoding would not undo encoding."""
    tensors = load(weights.tensors)
    rows, mean = tensors["basis"].to(torch.float64), tensors["mean"].to(torch.float64)
    error = float((rows @ rows.T - torch.eye(len(rows), dtype=torch.float64)).abs().max())
    if not (error <= _ORTHONORMAL_TOLERANCE and bool(torch.isfinite(mean).all())):
        raise JobError.one(
            f"codec.weights/{TENSOR_FILE}: basis",
            None,
            f"rows are not orthonormal (largest error {error:.2g}, allowed {_ORTHONORMAL_TOLERANCE}) or not finite.",
            "orthonormalise them, for example with numpy.linalg.qr(basis.T)[0].T",
        )
    return rows.numpy(), mean.numpy()
