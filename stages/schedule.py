"""What a training step does, as pure functions of the seed and the step's number: its pictures, its noise, its rate.

No generator has a state to lose, so a resumed training is the training that was never interrupted.
"""

import math

import numpy as np
import numpy.typing as npt
import torch

from schemas.identity import row_seed

_WARM_UP = 30


class Shuffle:
    """Epochs of a shuffled index, cut into batches: every picture once an epoch, whatever the batch size.

    Holds the order of the last epoch asked for: 8 bytes a picture.
    """

    def __init__(self, *, count: int, batch: int, seed: int) -> None:
        self._count, self._batch, self._seed = count, batch, seed
        self._epoch = -1
        self._order = np.arange(0)

    def rows(self, step: int) -> npt.NDArray[np.int64]:
        """Indexes of batch `step` (from 0), sorted so that a memory map is read forwards."""
        places = np.arange(step * self._batch, (step + 1) * self._batch)
        parts = [
            self._permutation(epoch)[places[places // self._count == epoch] % self._count]
            for epoch in _epochs(places, self._count)
        ]
        return np.sort(np.concatenate(parts))

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch != self._epoch:
            bits = np.random.Philox(row_seed(str(epoch), f"train/{self._seed}/epoch"))
            self._epoch, self._order = epoch, np.random.Generator(bits).permutation(self._count)
        return self._order


def _epochs(places: npt.NDArray[np.int64], count: int) -> range:
    return range(int(places[0]) // count, int(places[-1]) // count + 1)


def noise(shape: tuple[int, int], *, seed: int, step: int) -> torch.Tensor:
    """Standard normal numbers of one step, drawn on the CPU so that every device gets the same."""
    generator = torch.Generator().manual_seed(row_seed(str(step), f"train/{seed}/noise"))
    return torch.randn(shape, generator=generator)


def learning_rate(step: int, *, steps: int, peak: float) -> float:
    """Linear warm-up over the first steps, then half a cosine to 1 % of the peak at the last of `steps` (from 0)."""
    warm = min(1.0, (step + 1) / min(_WARM_UP, steps))
    return peak * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
