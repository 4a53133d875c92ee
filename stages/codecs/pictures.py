"""The one place where a codec's floats become a picture."""

import torch


def to_uint8(values: torch.Tensor) -> torch.Tensor:
    """Floats in units of pixels/255 → uint8, rounded to nearest and clipped; NaN becomes 0."""
    return torch.nan_to_num(values * 255.0, nan=0.0).round_().clamp_(0, 255).to(torch.uint8)
