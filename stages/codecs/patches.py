"""The discrete truth codec: the picture is cut into p×p patches, and each becomes the nearest of K codebook entries.

An entry is a flat colour, K of them spread evenly over all colours from `seed`, or a patch of the user's own (safetensors,
`codebook` K×p×p×3 uint8). Codes are indices (height/p, width/p); the latent is the grid of their embeddings: the entry's colour,
or all its numbers, in units of pixels/255. Nearness is counted in whole numbers that float64 holds exactly, and of two entries
equally near the lower wins: no answer depends on batch, thread or machine (docs/decisions/007). Decoding takes any latent: each
token becomes its nearest entry, so decode ∘ encode is the nearest picture made of entries, and encode ∘ decode the identity.
"""

import numpy as np
import torch
from safetensors.torch import load

from schemas.codec import PatchesCodec
from schemas.errors import JobError
from stages.codecs.abilities import DISCRETE, Abilities
from stages.codecs.base import Encoded, WithoutPrior
from stages.codecs.weights import TENSOR_FILE, Weights

FRACTION_BITS = 16
"""Latents count in grey levels to 2⁻¹⁶ and up to 2¹⁰; entries are bytes. Sums over 2¹⁴ numbers stay below 2⁵³."""
_LARGEST = 1024.0
_BLOCK = 2**22
_STEPS = np.array([3518319155, 2882110345, 2360945575], np.uint64)
"""2³²/g, 2³²/g², 2³²/g³ with g⁴ = g + 1: successive points of this additive recurrence fill the cube evenly (Roberts 2018)."""


class Patches(WithoutPrior):
    """Patches ↔ the nearest of K entries. It encodes, decodes and has codes; it has no prior."""

    can: Abilities = DISCRETE

    def __init__(self, spec: PatchesCodec, weights: Weights | None = None, *, device: str = "cpu") -> None:
        self.picture = spec.preprocess.size
        self.latent = spec.latent
        side = self._side = spec.patch
        entries = spread_colours(spec.codes, seed=spec.seed) if weights is None else _read(weights)
        # A flat entry is as far from a patch as from the patch's mean, so p² pixels count as one colour p² times.
        self._flat = weights is None
        self._weight = side * side if self._flat else 1
        self._whole = torch.from_numpy(entries.astype(np.float64)).to(device)  # (K, c), 0 to 255
        self._squares = (self._whole * self._whole).sum(dim=1)
        drawn = entries.repeat(side * side, axis=0) if self._flat else entries
        self._patches = torch.from_numpy(drawn.reshape(-1, side, side, 3)).to(device)  # (K, p, p, 3) uint8
        self._embeddings = (self._whole / 255.0).to(torch.float32)
        self._device = device

    @property
    def codebook(self) -> np.ndarray:
        """(K, c) float32, in units of pixels/255."""
        return self._embeddings.cpu().numpy()

    @torch.inference_mode()
    def encode(self, pixels: torch.Tensor) -> Encoded:
        """(n, height, width, 3) uint8 → codes (n, height/p, width/p) and their embeddings (n, c, height/p, width/p) float32."""
        n, side = len(pixels), self._side
        grid = self.latent.token_shape
        cut = pixels.to(self._device).reshape(n, grid[0], side, grid[1], side, 3).permute(0, 1, 3, 2, 4, 5)
        wide = cut.reshape(-1, side * side, 3).to(torch.float64)
        vectors = wide.sum(dim=1) if self._flat else wide.flatten(1)
        codes = self._nearest(vectors, 0, self._weight).reshape(n, *grid)
        return Encoded(self._embeddings[codes].movedim(-1, 1).contiguous(), codes=codes)

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, c, height/p, width/p) → (n, height, width, 3) uint8: the entry nearest to each token. NaN counts as 0."""
        vectors = latents.to(self._device, torch.float64).movedim(1, -1).reshape(-1, self.latent.shape[0])
        grey = torch.nan_to_num(vectors * 255.0).clamp(-_LARGEST, _LARGEST)
        codes = self._nearest((grey * 2.0**FRACTION_BITS).round(), FRACTION_BITS, 1)
        return self._drawn(codes.reshape(len(latents), *self.latent.token_shape))

    def decode_float(self, latents: torch.Tensor) -> torch.Tensor:
        """As `decode`, in units of pixels/255; it has no gradient, for a choice has none."""
        return self.decode(latents).to(torch.float64) / 255.0

    def _nearest(self, vectors: torch.Tensor, bits: int, weight: int) -> torch.Tensor:
        """Of vectors (m, c), whole numbers of 2^-bits that stand for `weight` times themselves: the nearest code, (m,).

        argmin ‖x − e‖² = argmin w‖e‖² − 2x·e, all whole numbers, the lowest index of equals.
        """
        size = max(1, _BLOCK // max(self._whole.shape))
        offset = self._squares * (weight * 2**bits)
        index = torch.arange(len(self._whole), device=self._device)
        found = [torch.zeros(0, dtype=torch.int64, device=self._device)]
        for block in torch.split(vectors, size) if len(vectors) else ():
            scores = offset - 2 * (block @ self._whole.T)
            # Not argmin: which of equals that takes is not the same on every device.
            least = scores == scores.amin(dim=1, keepdim=True)
            found.append(torch.where(least, index, len(index)).amin(dim=1))
        return torch.cat(found)

    def _drawn(self, codes: torch.Tensor) -> torch.Tensor:
        """(n, height/p, width/p) → pictures (n, height, width, 3) uint8."""
        return self._patches[codes].permute(0, 1, 3, 2, 4, 5).reshape(len(codes), *self.picture, 3)


def spread_colours(count: int, *, seed: int) -> np.ndarray:
    """(count, 3) uint8, no two alike, spread evenly over the colour cube from a seeded start; the same on every machine."""
    start = np.asarray(np.random.Philox(seed).random_raw(3), np.uint64)
    places = (start + np.arange(8 * count, dtype=np.uint64)[:, None] * _STEPS) % np.uint64(2**32)
    colours = (places >> np.uint64(24)).astype(np.uint8)
    _, first = np.unique(colours, axis=0, return_index=True)
    return colours[np.sort(first)[:count]]


def _read(weights: Weights) -> np.ndarray:
    """The user's entries (K, 3p²). Raises JobError when they are no bytes, or two are alike: the second could never be used."""
    entries = load(weights.tensors)["codebook"]
    field = f"codec.weights/{TENSOR_FILE}: codebook"
    if entries.dtype != torch.uint8:
        raise JobError.one(field, str(entries.dtype), "entries are pixels.", "store them as uint8")
    flat = entries.numpy().reshape(len(entries), -1)
    if (different := len(np.unique(flat, axis=0))) < len(flat):
        reason = f"{len(flat)} entries, of which {different} are different."
        raise JobError.one(field, None, reason, "leave the doubles out, and set codec.codes")
    return flat
