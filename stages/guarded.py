"""Running a model on a batch so that one bad row costs one row, and a full device costs speed only.

A batch that raises is halved until the guilty rows stand alone; they come back with their message. A device out of
memory halves the batch too, and remembers the size that fits. Bugs (TypeError, KeyError, …) are not caught.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Model = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outputs for the rows that worked, in order, `rows` saying which; and a message for each that did not."""

    outputs: tuple[torch.Tensor, ...]
    rows: npt.NDArray[np.intp]
    errors: dict[int, str]


class Guarded:
    """Calls `model` on as many rows at once as work. The model gives one or more tensors with a row for each input row."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._limit: int | None = None

    def __call__(self, inputs: torch.Tensor) -> Outcome:
        """Raises torch.OutOfMemoryError when not even one row fits the device."""
        pieces: list[tuple[torch.Tensor, ...]] = []
        rows = [np.arange(0)]
        errors: dict[int, str] = {}
        waiting = [(0, len(inputs))] if len(inputs) else []
        while waiting:
            start, stop = waiting.pop()
            if self._limit is not None and stop - start > self._limit:
                waiting += [(start + self._limit, stop), (start, start + self._limit)]
                continue
            try:
                pieces.append(self._model(inputs[start:stop]))
                rows.append(np.arange(start, stop))
            except torch.OutOfMemoryError:
                if stop - start == 1:
                    raise
                self._limit = (stop - start) // 2
                waiting.append((start, stop))
            except (RuntimeError, ValueError) as error:
                if stop - start == 1:
                    errors[start] = f"{type(error).__name__}: {error}"
                else:
                    middle = (start + stop) // 2
                    waiting += [(middle, stop), (start, middle)]
        outputs = pieces[0] if len(pieces) == 1 else tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))
        return Outcome(outputs, np.concatenate(rows), errors)
