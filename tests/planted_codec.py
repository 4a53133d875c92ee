"""A codec whose decoder is a plain matrix, so its Jacobian is known: x = ½ + zB, B with singular values that a test plants.

`codec: {family: custom, entry: "tests.planted_codec:PlantedCodec", options: {singular: [3, 2, 1]}}`.
"""

import numpy as np
import torch

from schemas.codec import CustomCodec, LatentSpec
from stages.codecs.base import Ability, Encoded, WithoutPrior
from stages.codecs.pictures import to_uint8


class PlantedCodec(WithoutPrior):
    """Options: `singular`, one value a latent coordinate; `broken`: latents whose first number is above it decode to NaN."""

    can: frozenset[Ability] = frozenset({"encode", "decode", "gradient"})

    def __init__(self, spec: CustomCodec, *, device: str) -> None:
        self.picture = spec.preprocess.size
        self.latent = self.latent_of(spec)
        self.broken = float(spec.options.get("broken", np.inf))
        rng = np.random.default_rng(0)
        length, d = self.picture[0] * self.picture[1] * 3, self.latent.dim
        inner = np.linalg.qr(rng.standard_normal((d, d)))[0]
        outer = np.linalg.qr(rng.standard_normal((length, d)))[0]
        self.axes = inner.T
        self.matrix = torch.from_numpy(inner * np.array(spec.options["singular"]) @ outer.T)

    @staticmethod
    def latent_of(spec: CustomCodec) -> LatentSpec:
        return LatentSpec(shape=(len(spec.options["singular"]),), space="z")

    def encode(self, pixels: torch.Tensor) -> Encoded:
        return Encoded((pixels.flatten(1).double() / 255 @ self.matrix.T).float())

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return to_uint8(self.decode_float(latents))

    def decode_float(self, latents: torch.Tensor) -> torch.Tensor:
        spoilt = torch.where(latents[:, :1] > self.broken, torch.nan, 1.0)
        pixels = 0.5 + spoilt * latents.double() @ self.matrix
        return pixels.reshape(-1, *self.picture, 3)
