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
        wide = images.double() * self._gain
        half = images.shape[1] // 2
        return torch.stack([wide.mean(dim=(1, 2, 3)), wide[:, :half, :half].mean(dim=(1, 2, 3))], dim=1)
