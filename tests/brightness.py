"""A scorer of a user's own, where users' scorers stand: `scorer: tests.brightness:Brightness`, `allow_code: true`."""

from typing import Any

import torch


class Brightness:
    """Mean of a picture, and of its upper left quarter."""

    def __init__(self, *, device: str, gain: float = 1.0) -> None:
        self._gain = gain

    @staticmethod
    def attributes_of(options: dict[str, Any]) -> tuple[str, ...]:
        return ("bright", "corner")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        half = images.shape[1] // 2
        parts = (images, images[:, :half, :half])
        # Sums of whole numbers: exact, and no copy of the pictures as floats.
        means = [part.flatten(1).sum(dim=1, dtype=torch.int64).double() / part[0].numel() for part in parts]
        return self._gain * torch.stack(means, dim=1)
