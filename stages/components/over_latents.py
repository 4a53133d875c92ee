"""Folds of matrices, and the reduce stage that feeds them latents.

A fold knows rows of numbers only. What the rows are (stored latents here, a decoder's activations in `activations.py`) is
decided by the stage around it, so one statistic serves both. A row that is not finite leaves before a fold sees it, and is
counted (latent-science §1).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.rows import latent_blocks
from stages.stage import ReduceStage

State = TypeVar("State")
Matrix = npt.NDArray[Any]


class Fold(Protocol[State]):
    """A mergeable statistic of rows `x` (n, p), each with the latent `z` (n, d) it came from; all numbers finite."""

    def start(self) -> State: ...

    def add(self, state: State, x: Matrix, z: Matrix) -> State:
        """May change `state`."""

    def merge(self, a: State, b: State) -> State:
        """Changes neither: they may lie in shared, read-only memory."""


@dataclass(slots=True)
class Counted(Generic[State]):
    """A fold's state, and how many rows were left out of it."""

    state: State
    non_finite: int = 0


Over = Callable[[Fold[Any]], ReduceStage[Any]]
"""Makes a reduce stage, whose state is `Counted`, of a fold."""


@dataclass(frozen=True)
class OverLatents(Generic[State]):
    """A reduce stage over batches with `latent`: the rows are the latents themselves."""

    fold: Fold[State]

    def start(self) -> Counted[State]:
        return Counted(self.fold.start())

    def add(self, counted: Counted[State], batch: pa.RecordBatch) -> Counted[State]:
        for latents, finite in latent_blocks(batch):
            if len(latents):
                counted.state = self.fold.add(counted.state, latents, latents)
            counted.non_finite += int(len(finite) - np.count_nonzero(finite))
        return counted

    def merge(self, a: Counted[State], b: Counted[State]) -> Counted[State]:
        return Counted(self.fold.merge(a.state, b.state), a.non_finite + b.non_finite)
