"""Jacobian directions: along which small steps change the decoded picture most.

The pullback metric of a row is M(z) = JᵀJ, J the Jacobian of the decoder in units of pixels/255; a step v changes the picture
by √(vᵀMv) in L2. Stored are the leading eigenvectors of the mean of M over the rows, by block power (`subspace.py`) on
products JᵀJQ from derivatives alone (`moved_by`); up to FULL_DIM numbers M is formed whole and one pass is
exact. The spectrum of single rows is measured beside it: a mean can hide that every row has its own directions.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from schemas.errors import JobError
from schemas.measurements import Measurement
from schemas.steps import ComponentsStep
from stages.codecs.base import Codec
from stages.components.along import Along
from stages.components.eigen import RANK_EIGENVALUE, Floats, leading
from stages.components.found import Found, beyond_rank, direction, failed, measured, words
from stages.components.over_decoder import OverDecoder
from stages.components.over_latents import Counted, Matrix, OverLatents
from stages.components.subspace import subspace
from stages.directions.direction import FitStatus
from stages.moments import Moments
from stages.row_hash import Hashes
from stages.stage import Passes

FULL_DIM = 256
"""Up to this many numbers a latent, every row's metric is formed whole."""
_AT_ONCE = 2**22
UNIT = "(pixels/255)²/latent²"

Decode = Callable[[torch.Tensor], torch.Tensor]
OpenCodec = Callable[[str], Codec]


def products(decode: Decode, latents: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """M(z)·Q row by row: latents (n, *shape), columns (n or 1, d, l) → (n, d, l) float64."""
    n, (_, d, width) = len(latents), columns.shape
    repeated = latents.repeat_interleave(width, dim=0)
    steps = columns.mT.expand(n, width, d).reshape(repeated.shape)
    moved, back = moved_by(decode, repeated, steps)
    pulled = back(moved)[0]
    return pulled.reshape(n, width, d).mT.to(torch.float64)


def metrics(decode: Decode, latents: torch.Tensor) -> torch.Tensor:
    """M(z) of every row, (n, d, d) float64: one forward derivative a coordinate."""
    n, d = len(latents), latents[0].numel()
    repeated = latents.repeat_interleave(d, dim=0)
    steps = torch.eye(d, dtype=latents.dtype, device=latents.device).repeat(n, 1).reshape(repeated.shape)
    moved, _ = moved_by(decode, repeated, steps)
    jacobian = moved.reshape(n, d, -1).to(torch.float64)
    return jacobian @ jacobian.mT


def moved_by(
    decode: Decode, latents: torch.Tensor, steps: torch.Tensor
) -> tuple[torch.Tensor, Callable[[torch.Tensor], tuple[torch.Tensor, ...]]]:
    """J(z)·step row by row, and the function u → Jᵀu.

    Jᵀu is linear in u, so J is the transpose of its derivative: two backward modes. torch's forward mode stops at a
    GroupNorm over channels_last memory, and has no rule for some layers at all.
    """
    backward = torch.func.vjp(decode, latents)
    pictures, back = backward[0], backward[1]
    forward = torch.func.vjp(lambda u: back(u)[0], torch.zeros_like(pictures))[1]
    return forward(steps)[0], back


@dataclass(frozen=True)
class PullbackRows:
    """What is folded of a row: its metric (d, d); with `columns` (d, l), the metric times them; and in `rounds` of block
    power from them, its largest eigenvalues (l,).
    """

    codec: Codec
    columns: Floats | None = None
    rounds: int = 0

    @classmethod
    def source(
        cls, open_codec: OpenCodec, device: str, *, columns: Floats | None = None, rounds: int = 0
    ) -> "PullbackRows":
        codec = open_codec(device)
        if "gradient" not in codec.can:
            reason = "this codec's decoder has no derivatives (`gradient` is not in its `can`)."
            raise JobError.one("components.estimator", "jacobian", reason, "use estimator: pca")
        return cls(codec, columns, rounds)

    @property
    def at_once(self) -> int:
        wide = self.codec.latent.dim if self.columns is None else self.columns.shape[1]
        return max(1, _AT_ONCE // (wide * self.codec.picture[0] * self.codec.picture[1] * 3))

    def __call__(self, latents: Matrix, hashes: Hashes) -> tuple[Matrix, Matrix]:
        z = torch.from_numpy(latents.astype(np.float64)).reshape(-1, *self.codec.latent.shape)
        if self.columns is None:
            return metrics(self._decode, z).cpu().numpy(), latents
        q = torch.from_numpy(self.columns)[None].expand(len(z), -1, -1)
        if not self.rounds:
            return products(self._decode, z, q).cpu().numpy(), latents
        for _ in range(self.rounds):
            image = products(self._decode, z, q).cpu()
            # LAPACK stops at NaN: such a row goes on as zeros, and comes back as NaN.
            finite = torch.isfinite(image).flatten(1).all(dim=1)[:, None, None]
            image = torch.where(finite, image, 0.0)
            small = q.mT @ image
            q = torch.linalg.qr(image).Q
        values = torch.linalg.eigvalsh((small + small.mT) / 2).flip(1)
        return torch.where(finite[:, :, 0], values, torch.nan).numpy(), latents

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.codec.decode_float(latents).flatten(1)


@dataclass(slots=True)
class Pulled:
    """`total` is Σ over `n` rows of what a row gives; `spectra` moments of the logarithms of single rows' eigenvalues."""

    n: int
    total: Floats
    spectra: Moments


@dataclass(frozen=True)
class MeanMetric:
    """A fold of rows (d, l). When they are whole metrics (l = d, `spectra` > 0) the largest `spectra` eigenvalues of each are told too."""

    dim: int
    columns: int
    spectra: int = 0

    def start(self) -> Pulled:
        return Pulled(0, np.zeros((self.dim, self.columns)), Moments.empty(self.spectra, full=False))

    def add(self, state: Pulled, x: Matrix, z: Matrix) -> Pulled:
        state.n += len(x)
        state.total += x.sum(axis=0)
        if self.spectra:
            state.spectra.absorb(Moments.of(logs(np.linalg.eigvalsh(x)[:, ::-1][:, : self.spectra]), full=False))
        return state

    def merge(self, a: Pulled, b: Pulled) -> Pulled:
        return Pulled(a.n + b.n, a.total + b.total, a.spectra.merged(b.spectra))


@dataclass(frozen=True)
class LogSpectra:
    """A fold of rows' eigenvalues (l,), largest first."""

    count: int

    def start(self) -> Moments:
        return Moments.empty(self.count, full=False)

    def add(self, state: Moments, x: Matrix, z: Matrix) -> Moments:
        state.absorb(Moments.of(logs(x[:, : self.count]), full=False))
        return state

    def merge(self, a: Moments, b: Moments) -> Moments:
        return a.merged(b)


def logs(values: Matrix) -> Floats:
    """Logarithms of a row's eigenvalues; what is rounding next to its largest counts as that much and no less."""
    largest = np.maximum(values[:, :1], 1e-300)
    return np.asarray(np.log(np.maximum(values, RANK_EIGENVALUE * largest)))


def jacobian(
    step: ComponentsStep, names: Sequence[str], open_codec: OpenCodec, *, dim: int, full_dim: int = FULL_DIM
) -> Passes[Any, Found]:
    """Passes with the codec in the workers, and one over the latents for their mean and spread."""
    count, state = min(len(names) + 1, dim), Counted[Any](None)
    total: float | None
    whole = dim <= full_dim
    if whole:
        fold = MeanMetric(dim, dim, spectra=len(names))
        state = yield OverDecoder(fold, partial(_source, open_codec, None, 0))
        n, spectra, total = (
            state.state.n,
            state.state.spectra,
            float(np.trace(state.state.total)) / max(state.state.n, 1),
        )
        eigen = leading(state.state.total / max(n, 1), count)
    else:

        def stage(columns: Floats) -> OverDecoder[Pulled]:
            return OverDecoder(MeanMetric(dim, columns.shape[1]), partial(_source, open_codec, columns, 0))

        def product(counted: Counted[Pulled]) -> Floats:
            nonlocal state
            state = counted
            return counted.state.total / max(counted.state.n, 1)

        eigen = yield from subspace(stage, product, dim=dim, count=count, seed=step.seed, passes=step.passes)
        columns = np.random.Generator(np.random.Philox(step.seed)).standard_normal((dim, min(dim, len(names) + 10)))
        local = yield OverDecoder(
            LogSpectra(len(names)), partial(_source, open_codec, np.linalg.qr(columns)[0], step.passes)
        )
        n, spectra, total = state.state.n, local.state, None
    along = yield OverLatents(Along(eigen.vectors))
    rows = replace(along.state.rows(), n=n, non_finite=state.non_finite)
    if not n or not eigen.rank:
        return failed(step.estimator, names, rows, FitStatus.CONSTANT if n else FitStatus.NO_ROWS)
    directions = tuple(
        direction(name, step.estimator, eigen.vectors[i], rows, i, raw_norm=1.0, message=words(eigen, i, n=None)[1])
        if i < eigen.rank
        else beyond_rank(name, step.estimator, rows)
        for i, name in enumerate(names)
    )
    told = measured(eigen, names, rows, metric="pullback", total=total, unit=UNIT, estimated=False)
    return Found(directions, (*told, *local_spectra(spectra)))


def _source(open_codec: OpenCodec, columns: Floats | None, rounds: int, device: str) -> PullbackRows:
    return PullbackRows.source(open_codec, device, columns=columns, rounds=rounds)


def local_spectra(spectra: Moments) -> list[Measurement]:
    """Geometric mean over the rows of their own i-th eigenvalue, its interval, and where two thirds of the rows lie."""
    found = []
    spread = np.sqrt(spectra.z_variance)
    for i, (middle, deviation) in enumerate(zip(spectra.z_mean, spread, strict=True)):
        reach = 1.96 * deviation / math.sqrt(spectra.n) if spectra.n > 1 else None
        detail = json.dumps({"rows_low": math.exp(middle - deviation), "rows_high": math.exp(middle + deviation)})
        # One row says nothing of how much rows differ.
        low, high = (None, None) if reach is None else (math.exp(middle - reach), math.exp(middle + reach))
        value = math.exp(middle)
        found.append(Measurement("local_pullback", value, f"rank {i}", "", low, high, spectra.n, UNIT, detail=detail))
    return found
