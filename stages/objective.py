"""The training objective of conv_vae, in nats per image: −log p(x|z) + β·KL(q(z|x) ‖ N(0, I)).

The likelihood is Gaussian with one variance for all pixels, set analytically to its maximum-likelihood value on the batch,
the mean squared error (optimal σ-VAE: Rybkin, Daniilidis & Levine 2021, arXiv 2006.13202). So reconstruction and KL are
nats of one model, β = 1 is the evidence lower bound, and no pixel weight has to be tuned: as reconstructions get better the
variance shrinks, which keeps pictures sharp. σ is never below the standard deviation of rounding to 8 bits.
"""

import math
from dataclasses import dataclass

import torch

_ROUNDING_VARIANCE = (1 / 255) ** 2 / 12


@dataclass(frozen=True, slots=True)
class Objective:
    """Scalars, nats per image (mean over the batch). `loss` carries the gradient."""

    loss: torch.Tensor
    reconstruction: torch.Tensor
    kl: torch.Tensor


def objective(
    pictures: torch.Tensor,
    generated: torch.Tensor,
    *,
    mean: torch.Tensor,
    logvar: torch.Tensor | None,
    beta: float,
) -> Objective:
    """`pictures` and `generated` (n, …) in [0, 1]; `mean` and `logvar` (n, d). Without `logvar` (an ae) the KL is 0."""
    numbers = pictures[0].numel()
    variance = (pictures - generated).square().mean().clamp_min(_ROUNDING_VARIANCE)
    reconstruction = 0.5 * numbers * (torch.log(2 * math.pi * variance) + 1)
    if logvar is None:
        return Objective(reconstruction, reconstruction, torch.zeros_like(reconstruction))
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(dim=1).mean()
    return Objective(reconstruction + beta * kl, reconstruction, kl)
