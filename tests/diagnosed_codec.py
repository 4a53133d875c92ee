"""A codec of a user's own that is healthy, collapsed or holed by construction, so that a diagnosis can be held to the truth.

A picture is a row of 16×16 blocks' brightnesses; block j shows coordinate j by the normal distribution function, so decoding is
exact to a grey level and encoding undoes it. `dead`: coordinates from there on are not shown and encode to 0 with the prior's
width. `hole`: |z| of coordinate 0 below it is never shown: what lies there is pushed out to its edge, as by a decoder that
never saw it.
"""

import numpy as np
import torch

from schemas.codec import LatentSpec
from stages.codecs.base import Encoded, WithoutPrior

SIDE = 4
LIMIT = 3.0


class DiagnosedCodec(WithoutPrior):
    """`options`: dim, dead, hole, prior."""

    can = frozenset({"encode", "decode"})

    def __init__(self, spec, *, device: str) -> None:
        options = spec.options
        self.latent = self.latent_of(spec)
        self._dim = int(options.get("dim", 16))
        self._dead = int(options.get("dead", self._dim))
        self._hole = float(options.get("hole", 0.0))
        self._cells = int(np.ceil(np.sqrt(self._dim)))
        self.picture = (self._cells * SIDE, self._cells * SIDE)

    @staticmethod
    def latent_of(spec) -> LatentSpec:
        return LatentSpec(
            shape=(int(spec.options.get("dim", 16)),), space="z", prior=spec.options.get("prior", "standard_normal")
        )

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        z = latents.double().clone()
        if self._hole:
            inside = z[:, 0].abs() < self._hole
            z[inside, 0] = torch.where(z[inside, 0] < 0, -self._hole, self._hole).double()
        z[:, self._dead :] = 0
        shown = torch.zeros(len(z), self._cells**2, dtype=torch.float64)
        shown[:, : self._dim] = (z.clamp(-LIMIT, LIMIT) + LIMIT) / (2 * LIMIT)
        grid = (shown * 255).round().to(torch.uint8).reshape(-1, self._cells, self._cells)
        picture = grid.repeat_interleave(SIDE, 1).repeat_interleave(SIDE, 2)
        return picture[..., None].expand(-1, -1, -1, 3).contiguous()

    def encode(self, pixels: torch.Tensor) -> Encoded:
        cells = pixels.double().reshape(-1, self._cells, SIDE, self._cells, SIDE, 3).mean((2, 4, 5)).flatten(1)
        mean = (cells[:, : self._dim] / 255 * 2 - 1) * LIMIT
        mean[:, self._dead :] = 0
        logvar = torch.full_like(mean, -6.0)
        logvar[:, self._dead :] = 0
        return Encoded(mean.float(), logvar.float())
