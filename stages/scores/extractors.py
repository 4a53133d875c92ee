"""Features of pictures for fidelity scores: injected, so no score needs a download; one extractor is built in.

`pixel_moments` is not Inception: its distances say whether colours and layout are alike, and compare with no published FID.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from stages.entry import import_entry

BUILT_IN = "pixel_moments"
AT_ONCE = 32
EXACT_PIXELS = 2**16
"""Of a picture at most: squares of 256 rows of a byte add up to less than 2²⁴, and so exactly."""


class FeatureExtractor(Protocol):
    """Made as `Class(device=…, **extractor_options)`. It may be called from several threads at once and must not change."""

    def __call__(self, images: torch.Tensor) -> Any:
        """(n, height, width, 3) uint8 on the device → (n, features) floats: a tensor or an array."""


class PixelMoments:
    """Mean and standard deviation of every colour in each cell of a 4 × 4 grid, in units of 1 (black to white): 96 numbers."""

    def __init__(self, *, device: str, cells: int = 4) -> None:
        self._cells = cells

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        # A few pictures at a time stay in the processor's cache: three times as fast as all at once.
        return torch.cat([self._few(part) for part in torch.split(images, AT_ONCE)])

    def _few(self, images: torch.Tensor) -> torch.Tensor:
        n, height, width, _ = images.shape
        cells = self._cells
        if height % cells or width % cells or height * width > EXACT_PIXELS:
            values = images.permute(0, 3, 1, 2).double()
            mean, square = (torch.nn.functional.adaptive_avg_pool2d(v, cells) for v in (values, values**2))
        else:
            # Sums of whole numbers, exact in single precision: what a cell's rows add up to, then its columns.
            values = images.float().view(n, cells, height // cells, width * 3)
            sums = torch.stack([values.sum(2), values.square_().sum(2)]).double()
            sums = sums.view(2, n, cells, cells, width // cells, 3).sum(4) * (cells**2 / (height * width))
            mean, square = sums.permute(0, 1, 4, 2, 3)
        deviation = (square - mean**2).clamp_min(0).sqrt()
        return torch.cat([mean, deviation], dim=1).flatten(1) / 255


def open_extractor(entry: str, options: Mapping[str, Any], *, device: str, allow_code: bool) -> FeatureExtractor:
    """Builds `pixel_moments`, or the user's `module:Class`, on `device`."""
    if entry == BUILT_IN:
        return PixelMoments(device=device, **options)
    extractor: FeatureExtractor = import_entry(entry, field="extractor", allow_code=allow_code)(
        device=device, **options
    )
    return extractor


def features_of(extractor: FeatureExtractor, images: torch.Tensor) -> torch.Tensor:
    """(n, features) float64 on the CPU, whatever the extractor gives."""
    return torch.as_tensor(extractor(images)).detach().cpu().double().flatten(1)


def feature_count(entry: str, options: Mapping[str, Any]) -> int | None:
    """How many numbers a picture becomes; None of a user's own class, which says it with its first picture."""
    return 6 * int(options.get("cells", 4)) ** 2 if entry == BUILT_IN else None
