"""Features of pictures for fidelity scores: injected, so no score needs a download; one extractor is built in.

`pixel_moments` is not Inception: its distances say whether colours and layout are alike, and compare with no published FID.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from stages.entry import import_entry

BUILT_IN = "pixel_moments"


class FeatureExtractor(Protocol):
    """Made as `Class(device=…, **extractor_options)`. It may be called from several threads at once and must not change."""

    def __call__(self, images: torch.Tensor) -> Any:
        """(n, height, width, 3) uint8 on the device → (n, features) floats: a tensor or an array."""


class PixelMoments:
    """Mean and standard deviation of every colour in each cell of a 4 × 4 grid, in units of 1 (black to white): 96 numbers."""

    def __init__(self, *, device: str, cells: int = 4) -> None:
        self._cells = cells

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        values = images.permute(0, 3, 1, 2).double() / 255
        mean = torch.nn.functional.adaptive_avg_pool2d(values, self._cells)
        square = torch.nn.functional.adaptive_avg_pool2d(values**2, self._cells)
        return torch.cat([mean, (square - mean**2).clamp_min(0).sqrt()], dim=1).flatten(1)


def open_extractor(entry: str, options: Mapping[str, Any], *, device: str, allow_code: bool) -> FeatureExtractor:
    """Builds `pixel_moments`, or the user's `module:Class`, on `device`."""
    if entry == BUILT_IN:
        return PixelMoments(device=device, **options)
    extractor: FeatureExtractor = import_entry(entry, field="extractor", allow_code=allow_code)(
        device=device, **options
    )
    return extractor
