"""The network of conv_vae: stride-2 convolutions down, sub-pixel convolutions up (Shi et al., arXiv 1609.05158).

GroupNorm and SiLU between them; nothing sees the batch, so a picture's latent does not depend on its neighbours.
The encoder takes pixels/255 in [0, 1]. Sub-pixel upsampling keeps every convolution at half the output's resolution or
less, which makes a training step on CPU about three times cheaper than upsample-and-convolve at equal reconstruction.
"""

import math

import torch
from torch import nn

from stages.codecs.conv_config import ConvVAEConfig

LOGVAR_RANGE = (-30.0, 20.0)


class ConvNetwork(nn.Module):
    """Encoder trunk and heads, decoder stem and trunk. All tensors NCHW (channels_last memory is welcome)."""

    def __init__(self, config: ConvVAEConfig) -> None:
        super().__init__()
        self.config = config
        features = config.channels[-1] * math.prod(config.grid)
        outputs = 2 if config.variant == "vae" else 1
        self.encoder = nn.Sequential(*_down(config.channels))
        self.head = nn.Linear(features, outputs * config.latent_dim)
        self.stem = nn.Linear(config.latent_dim, features)
        self.decoder = nn.Sequential(*_up(config.channels))

    def posterior(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """x (n, 3, h, w) → mean and, for a vae, logvar clamped to `LOGVAR_RANGE`, both (n, latent_dim) in the head's dtype."""
        out = self.head(self.encoder(x).flatten(1).to(self.head.weight.dtype))
        if self.config.variant == "ae":
            return out, None
        mean, logvar = out.chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def generate(self, z: torch.Tensor) -> torch.Tensor:
        """z (n, latent_dim) → pictures (n, 3, h, w) float32 in [0, 1]."""
        grid = self.stem(z).unflatten(1, (self.config.channels[-1], *self.config.grid)).to(self.convolution_dtype)
        return torch.sigmoid(self.decoder(grid).to(torch.float32))

    @property
    def convolution_dtype(self) -> torch.dtype:
        """dtype of encoder and decoder; head and stem keep their own."""
        dtype = self.encoder[0].weight.dtype
        assert isinstance(dtype, torch.dtype)
        return dtype


def _down(channels: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in zip((3, *channels), channels, strict=False):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), _norm(after), nn.SiLU(inplace=True)]
    return layers


def _up(channels: tuple[int, ...]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for before, after in zip(channels[::-1], (*channels[-2::-1], 3), strict=True):
        layers += [_norm(before), nn.SiLU(), nn.Conv2d(before, 4 * after, 3, padding=1), nn.PixelShuffle(2)]
    return layers


def _norm(channels: int) -> nn.GroupNorm:
    """About 16 channels a group, and a number of groups that divides them."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 16)), channels)
