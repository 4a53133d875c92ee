"""The first pass of a logistic fit: how many rows of each class there are, where the latents lie, and a sample of rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from stages.attributes import Column, LabelCounts
from stages.moments import Moments
from stages.rows import read_blocks
from stages.sample import Sample


@dataclass(slots=True)
class Surveyed:
    """State of the first pass: moments of all rows, label counts of all and of the training rows, a sample."""

    everything: Moments
    counts: LabelCounts
    training: LabelCounts
    sample: Sample
    non_finite: int = 0

    def pick(self, columns: Sequence[int]) -> "Surveyed":
        """The same rows with some of the columns."""
        counts, training = self.counts.pick(columns), self.training.pick(columns)
        return replace(self, counts=counts, training=training, sample=self.sample.pick(columns))


@dataclass(frozen=True)
class Survey:
    """A reduce stage over batches with `id`, `latent` and `labels`."""

    columns: tuple[Column, ...]
    dim: int
    holdout: float

    def start(self) -> Surveyed:
        width = len(self.columns)
        none = LabelCounts.empty(width)
        return Surveyed(Moments.empty(self.dim, full=False), none, none, Sample.empty(self.dim, columns=width))

    def add(self, state: Surveyed, batch: pa.RecordBatch) -> Surveyed:
        for block in read_blocks(batch, self.columns, holdout=self.holdout):
            train = ~block.held_out
            state.everything.absorb(Moments.of(block.latents, full=False))
            state.counts = state.counts.merged(LabelCounts.of(block.values, block.known))
            state.training = state.training.merged(LabelCounts.of(block.values[train], block.known[train]))
            state.sample.add(block)
            state.non_finite += block.non_finite
        return state

    def merge(self, a: Surveyed, b: Surveyed) -> Surveyed:
        return Surveyed(
            a.everything.merged(b.everything),
            a.counts.merged(b.counts),
            a.training.merged(b.training),
            a.sample.merged(b.sample),
            a.non_finite + b.non_finite,
        )
