"""An orthonormal basis in fixed point, so that projecting and expanding are *exact*: the truth codecs stand on it.

Entries are multiples of 2⁻²⁶ and pixels are integers, so every product and every partial sum of a projection is an
integer below 2⁵³: float64 matrix products then have one possible answer, whatever the batch size, the thread count, the
BLAS or the device. (Σⱼ|aᵢⱼ|·255 ≤ 255·2²⁶·√p by Cauchy–Schwarz; the bound holds for p up to 2³⁶.) Expanding does the same
with latents split into two fixed-point parts. Rounding to 2⁻²⁶ leaves rows orthonormal to about 10⁻⁸.

The basis is Gram–Schmidt on seeded near-Gaussian integers, with element-wise arithmetic and fixed-order sums only: LAPACK's
QR differs in last bits from machine to machine, and two workers of one cluster must not disagree on a basis.
"""

import math

import numpy as np
import torch

BITS = 26
_BLOCK = 2**22  # numbers held at once in a temporary


def orthonormal_rows(count: int, length: int, *, seed: int) -> np.ndarray:
    """(count, length) float64 with orthonormal rows, multiples of 2⁻²⁶; the same on every machine. count ≤ length."""
    rows = _near_gaussian(count, length, seed=seed)
    for i in range(count):
        rows[i] /= math.sqrt(_ordered_sum(rows[i : i + 1] ** 2)[0])
        step = max(1, _BLOCK // length)
        for start in range(i + 1, count, step):
            block = rows[start : start + step]
            block -= _ordered_sum(block * rows[i])[:, None] * rows[i]
    return np.rint(rows * 2.0**BITS) / 2.0**BITS


def _near_gaussian(count: int, length: int, *, seed: int) -> np.ndarray:
    """Sums of four 16-bit uniforms (Irwin–Hall) from raw Philox words: integers, so no libm or NumPy version matters."""
    words = np.asarray(np.random.Philox(seed).random_raw(count * length), dtype=np.uint64)
    parts = [((words >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.float64) for shift in (0, 16, 32, 48)]
    return (parts[0] + parts[1] + parts[2] + parts[3] - 2.0 * 65535).reshape(count, length)


def _ordered_sum(rows: np.ndarray) -> np.ndarray:
    """Row sums by folding halves onto each other: element-wise additions in one fixed order."""
    while rows.shape[1] > 1:
        half = rows.shape[1] // 2
        folded = rows[:, :half] + rows[:, half : 2 * half]
        if rows.shape[1] % 2:
            folded[:, :1] += rows[:, 2 * half :]
        rows = folded
    return rows[:, 0]


class FixedPointBasis:
    """Projects uint8 pictures onto orthonormal rows around `mean`, and expands coefficients back, exactly.

    `rows` (d, p) and `mean` (p,) in units of pixels/255. Results do not depend on how rows are batched.
    """

    def __init__(self, rows: np.ndarray, mean: np.ndarray, *, device: str) -> None:
        scaled = np.rint(rows * 2.0**BITS)
        offsets = [math.fsum(row * mean) * 255.0 for row in scaled]  # exactly rounded, so no order of addition
        self.rows = torch.from_numpy(scaled / 2.0**BITS).to(device)
        self.mean = torch.from_numpy(np.ascontiguousarray(mean, dtype=np.float64)).to(device)
        self._integers = torch.from_numpy(scaled).to(device)
        self._offsets = torch.tensor(offsets, dtype=torch.float64, device=device)
        # ‖integer row part‖ ≤ 2^BITS and ‖latent part‖ ≤ 2^bits·√d keep sums below 2^53.
        self._bits = 52 - BITS - math.ceil(math.log2(len(rows)) / 2)

    def project(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels (n, p) uint8 → rows·(pixels/255 − mean), (n, d) float64."""
        size = max(1, _BLOCK // pixels.shape[1])
        parts = [part.to(torch.float64) @ self._integers.T for part in torch.split(pixels, size)]
        sums = torch.cat(parts) if parts else pixels.new_zeros((0, len(self.rows)), dtype=torch.float64)
        return (sums - self._offsets) / (255.0 * 2.0**BITS)

    def expand(self, coefficients: torch.Tensor) -> torch.Tensor:
        """coefficients (n, d) → mean + coefficients·rows, (n, p) float64 in units of pixels/255.

        Coefficients are taken to 2⁻³⁶ of the largest in their row or finer. A row that is not finite expands to the mean.
        """
        size = max(1, _BLOCK // self.rows.shape[1])
        parts = [self._expand(part) for part in torch.split(coefficients.to(torch.float64), size)]
        return torch.cat(parts) if parts else self.mean.new_zeros((0, len(self.mean)))

    def _expand(self, coefficients: torch.Tensor) -> torch.Tensor:
        finite = torch.isfinite(coefficients).all(dim=1, keepdim=True)
        coefficients = torch.where(finite, coefficients, 0.0)
        # A power of two at or above every coefficient of the row: dividing by it is exact.
        exponent = torch.frexp(coefficients.abs().amax(dim=1, keepdim=True)).exponent.to(torch.int64)
        scaled = coefficients * _power_of_two(self._bits - exponent)
        high = scaled.round()
        low = ((scaled - high) * 2.0**self._bits).round()
        sums = high @ self._integers + (low @ self._integers) * 2.0**-self._bits
        return sums * _power_of_two(exponent - self._bits - BITS) + self.mean


def _power_of_two(exponent: torch.Tensor) -> torch.Tensor:
    """2^exponent from the bits of a float64, for int64 exponents: `pow` and `ldexp` go through inexact arithmetic."""
    return ((exponent.clamp(-1022, 1023) + 1023) << 52).view(torch.float64)
