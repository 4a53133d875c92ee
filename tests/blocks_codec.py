"""A codec of blocks: a latent's number is the mean of one block of the picture, so what an edit touches is seen in pixels.

`options.axes: layered`: (layer, feature) = (4, 3), band l of the picture from its top and third f of that band, grey; as W+, of
which every layer draws another part. `options.axes: spatial`: (channel, height, width) = (3, 4, 4), a colour a cell.
"""

import torch

from schemas.codec import CustomCodec, LatentSpec
from stages.codecs.base import Ability, Encoded, WithoutPrior


class BlocksCodec(WithoutPrior):
    can: frozenset[Ability] = frozenset({"encode", "decode"})

    def __init__(self, spec: CustomCodec, *, device: str) -> None:
        self.picture = spec.preprocess.size
        self.latent = self.latent_of(spec)

    @staticmethod
    def latent_of(spec: CustomCodec) -> LatentSpec:
        if spec.options["axes"] == "layered":
            return LatentSpec(shape=(4, 3), axes=("layer", "feature"), space="w")
        return LatentSpec(shape=(3, 4, 4), space="z")

    @property
    def _blocks(self) -> tuple[int, int]:
        return (4, 3) if len(self.latent.shape) == 2 else (4, 4)

    def encode(self, pixels: torch.Tensor) -> Encoded:
        (height, width), (rows, columns) = self.picture, self._blocks
        cut = (
            pixels.double().reshape(len(pixels), rows, height // rows, columns, width // columns, 3).mean(dim=(2, 4))
            / 255
        )
        made = cut.mean(dim=-1) if len(self.latent.shape) == 2 else cut.movedim(-1, 1)
        return Encoded(made.float().contiguous())

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        (height, width), (rows, columns) = self.picture, self._blocks
        cells = latents[..., None].expand(*latents.shape, 3) if len(self.latent.shape) == 2 else latents.movedim(1, -1)
        grown = cells.repeat_interleave(height // rows, dim=1).repeat_interleave(width // columns, dim=2)
        return (grown.double() * 255).round().clamp(0, 255).to(torch.uint8)
