"""The codec contract (design §6). A codec turns uint8 NHWC pictures of one fixed size into latents and back.

Latents are the posterior mean in native space, never pre-scaled; `to_model`/`from_model` hold any scaling.
A codec that cannot encode, decode, decode with gradients or sample says so through `can`, before anything runs.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from schemas.codec import LatentSpec
from stages.codecs.abilities import Ability

__all__ = ["Ability", "Codec", "DiscreteCodec", "Encoded", "LayeredCodec"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Posterior of a batch: `mean` (n, *shape) float32, and `logvar` of the same shape where the family has one.

    Discrete families: `codes` (n, *token_shape), whole numbers from 0 to K − 1, and `mean` their embeddings.
    """

    mean: torch.Tensor
    logvar: torch.Tensor | None = None
    codes: torch.Tensor | None = None


class Codec(Protocol):
    """An opened codec on one device. All methods run without gradients unless the caller enables them."""

    @property
    def latent(self) -> LatentSpec: ...

    @property
    def picture(self) -> tuple[int, int]:
        """Height and width of the pictures it takes and makes."""

    @property
    def can(self) -> frozenset[Ability]: ...

    def encode(self, pixels: torch.Tensor) -> Encoded:
        """pixels: (n, height, width, 3) uint8 on any device → Encoded on the codec's device."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """latents: (n, *shape) float → (n, height, width, 3) uint8 on the codec's device."""

    def decode_float(self, latents: torch.Tensor) -> torch.Tensor:
        """As `decode`, before rounding and clipping: float32 or float64 in units of pixels/255 (0 black, 1 white).

        Differentiable twice, row by row. Codecs with `gradient` in `can` have it.
        """

    def sample_prior(self, seeds: np.ndarray) -> torch.Tensor | None:
        """One draw a seed (uint64): (n, *shape), or None where the family has no prior."""

    def log_prior(self, latents: torch.Tensor) -> torch.Tensor | None:
        """log p(z) in nats, (n,), or None where the family has no prior."""

    def to_model(self, latents: torch.Tensor) -> torch.Tensor: ...

    def from_model(self, latents: torch.Tensor) -> torch.Tensor: ...


class Unscaled:
    """What codecs share whose native latents are what a model on top of them takes."""

    def to_model(self, latents: torch.Tensor) -> torch.Tensor:
        return latents

    def from_model(self, latents: torch.Tensor) -> torch.Tensor:
        return latents


class WithoutPrior(Unscaled):
    """What unscaled codecs share that have no prior."""

    def sample_prior(self, seeds: np.ndarray) -> None:
        return None

    def log_prior(self, latents: torch.Tensor) -> None:
        return None


class LayeredCodec(Codec, Protocol):
    """A codec with `layers` in `can`: its decoder is a network that can be watched."""

    @property
    def layers(self) -> torch.nn.Module:
        """The network behind `decode_float`, for watching what its named layers give."""

    @property
    def default_layer(self) -> str:
        """The layer worth watching when none is named."""


class DiscreteCodec(Codec, Protocol):
    """A codec with `codes` in `can`: `latent.codebook` says how many, `encode` gives them, and `decode` takes any latent.

    A latent that is not made of embeddings decodes as the nearest codes of its tokens.
    """

    @property
    def codebook(self) -> np.ndarray:
        """The embedding of every code, (K, c) float32: what `encode` puts into the latent, bit for bit."""
