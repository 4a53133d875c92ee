"""One pass of logistic regression, or of a linear SVM: the gradient of many problems at once, and where asked for their curvature."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.attributes import Bools, Column
from stages.directions.curvature import estimated_hessian
from stages.directions.losses import Loss
from stages.directions.newton import Floats, Slope
from stages.rows import Block, read_blocks

CLEAR_MARGIN = 1e-3
"""Logit beyond which a row is on its side for certain, whatever float32 rounded."""


@dataclass(slots=True)
class Summed:
    """State of a pass: gradient (d + 1, problems), parted (problems,), hessians (d + 1, d + 1) by problem where asked for."""

    gradient: Floats
    parted: Bools
    hessians: dict[int, Floats]


@dataclass(frozen=True)
class LogisticPass:
    """A reduce stage over batches with `id`, `latent` and `labels`. Penalties are no part of it.

    Problem i is column `of[i]`, on training rows only where `training[i]`. `weights` (d + 1, problems), the intercept last,
    belong to latents less `centre` (d,). `precise` computes gradients in float64; otherwise blocks are float32 and their sums
    float64. `may_part`: watch for weights that part the classes. `curvature`: the problems whose Hessians are wanted, by
    position, and about how much Σq of each is (stages/directions/curvature.py).
    """

    columns: tuple[Column, ...]
    of: npt.NDArray[np.int64]
    training: Bools
    weights: Floats
    centre: Floats
    holdout: float
    precise: bool = False
    may_part: bool = True
    curvature: Mapping[int, float] = field(default_factory=dict)
    loss: Loss = Loss.LOGISTIC

    def start(self) -> Summed:
        d, p = self.weights.shape
        return Summed(np.zeros((d, p)), np.ones(p, bool), {i: np.zeros((d, d)) for i in self.curvature})

    def add(self, state: Summed, batch: pa.RecordBatch) -> Summed:
        dtype = np.float64 if self.precise else np.float32
        for block in read_blocks(batch, self.columns, holdout=self.holdout):
            x = np.subtract(block.latents, self.centre, dtype=dtype)
            signs = class_signs(block.values > 0.5, block.known, dtype)[self.of]
            if self.training.any():
                signs[self.training] *= ~block.held_out
            at = slope(x, signs, self.weights, may_part=self.may_part, loss=self.loss)
            state.gradient += at.gradient
            state.parted &= at.parted
            if self.curvature:
                self._add_curvature(state, block, x.astype(np.float32, copy=False), signs)
        return state

    def merge(self, a: Summed, b: Summed) -> Summed:
        hessians = {i: h + b.hessians[i] for i, h in a.hessians.items()}
        return Summed(a.gradient + b.gradient, a.parted & b.parted, hessians)

    def _add_curvature(self, state: Summed, block: Block, x: npt.NDArray[np.float32], signs: npt.NDArray[Any]) -> None:
        wanted = list(self.curvature)
        w = self.weights[:, wanted].astype(np.float32)
        margin = (w[:-1].T @ x.T + w[-1, :, None]) * signs[wanted]
        curvatures = self.loss.curvature(margin) * (signs[wanted] != 0)
        for i, q in zip(wanted, curvatures, strict=True):
            state.hessians[i] += estimated_hessian(x, q, block.hashes, total=self.curvature[i])


def class_signs(positive: Bools, counted: Bools, dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
    """+1 for a positive, −1 for a negative, 0 for a row that does not count; (rows, columns) → (columns, rows)."""
    signs = positive.T.astype(dtype)
    signs *= 2
    signs -= 1
    signs *= counted.T
    return signs


def slope(
    x: npt.NDArray[Any], signs: npt.NDArray[Any], weights: Floats, *, may_part: bool, loss: Loss = Loss.LOGISTIC
) -> Slope:
    """Gradient of the loss at `weights` (d + 1, problems), and which problems they part without an error.

    x: (rows, d) centred latents, in the precision to compute in; signs: (problems, rows), from `class_signs`.
    """
    w = weights.astype(x.dtype)
    margin = w[:-1].T @ x.T
    margin += w[-1, :, None]
    margin *= signs
    parted = np.zeros(len(margin), bool)
    if may_part:
        parted = ~((margin <= CLEAR_MARGIN) & (signs != 0)).any(1)
    residual = loss.derivative(margin)
    residual *= signs
    return Slope(np.vstack([x.T @ residual.T, residual.sum(1)]).astype(np.float64), parted)
