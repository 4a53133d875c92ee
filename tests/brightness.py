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


class BrightAndRound(Brightness):
    """Scores named as the labels of `tests.jobs`: `round` sees the corners that a square fills and a disc does not.

    It takes a bright picture for a round one, too, by `leak` of what `bright` says.
    """

    def __init__(self, *, device: str, leak: float = 0.0) -> None:
        super().__init__(device=device)
        self._leak = leak

    @staticmethod
    def attributes_of(options: dict[str, Any]) -> tuple[str, ...]:
        return ("bright", "round")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        bright = super().__call__(images)[:, 0]
        side = images.shape[1]
        ground = images[:, : side // 8].double().mean((1, 2, 3))
        corner = images[:, side // 4 + 1 : side // 4 + 2, side // 4 + 1 : side // 4 + 2].double().mean((1, 2, 3))
        return torch.stack([bright, self._leak * bright - (corner - ground).abs()], dim=1)
