"""What the decoder does with codes, on a bounded sample: who hears which coordinate, and what comes back.

Sensitivity: the mean squared change of the picture when one coordinate moves by one deviation. Cycle error: ‖E(D(z)) − z‖, for
codes of images and for draws of the reference; a codec that brings its own codes back and not the draws has holes where they lie.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from stages.codecs.base import Codec
from stages.columns import matrix_of
from stages.guarded import Guarded

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
CHUNK_BYTES = 2**25
MOVE, CODE, DRAW = 0, 1, 2
"""What a row of a probe batch is: a code whose coordinates are moved, a code to bring back, a draw to bring back."""


@dataclass(frozen=True, slots=True)
class Probed:
    """Σ‖ΔD‖² and how many times, per coordinate (d,), in squared grey levels; cycle errors by (kind, row); bad codes counted."""

    change: Floats
    times: Ints
    cycles: dict[tuple[int, int], float] = field(default_factory=dict)
    failed: int = 0

    @property
    def mean_change(self) -> Floats:
        """(d,), NaN where a coordinate was not moved."""
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(self.times > 0, self.change / np.maximum(self.times, 1), np.nan))

    def errors(self, kind: int) -> tuple[Ints, Floats]:
        """Rows and their cycle errors, in row order."""
        rows = sorted(row for k, row in self.cycles if k == kind)
        return np.asarray(rows, np.int64), np.asarray([self.cycles[kind, r] for r in rows])


class Probe:
    """Reduce stage, opened on workers: batches of `kind`, `row` and `latent` (rows, d) float32.

    `steps` (d,): how far each coordinate is moved; 0 leaves it out. `make(device)` opens the codec.
    """

    def __init__(self, steps: Floats, make: Callable[[str], Codec]) -> None:
        self._steps, self._make = steps, make
        self._codec: Codec | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_steps": self._steps, "_make": self._make, "_codec": None}

    def open(self, device: str) -> None:
        """A codec that cannot both encode and decode is asked nothing."""
        codec = self._make(device)
        self._codec = codec if {"encode", "decode"} <= codec.can else None

    def start(self) -> Probed:
        return Probed(np.zeros(len(self._steps)), np.zeros(len(self._steps), np.int64))

    def add(self, state: Probed, batch: pa.RecordBatch) -> Probed:
        if self._codec is None:
            return state
        kinds, rows = batch.column("kind").to_numpy(), batch.column("row").to_numpy()
        latents = matrix_of(batch.column("latent"))
        for at in np.flatnonzero(kinds == MOVE):
            state = self._moved(state, self._codec, latents[at])
        there = np.flatnonzero(kinds != MOVE)
        if len(there):
            state = self._cycled(state, self._codec, latents[there], kinds[there], rows[there])
        return state

    def merge(self, a: Probed, b: Probed) -> Probed:
        return Probed(a.change + b.change, a.times + b.times, a.cycles | b.cycles, a.failed + b.failed)

    def _moved(self, state: Probed, codec: Codec, code: npt.NDArray[np.float32]) -> Probed:
        decode = Guarded(lambda z: (codec.decode(z),))
        base = decode(self._shaped(codec, code[None]))
        if base.errors:
            return replace(state, failed=state.failed + 1)
        picture = base.outputs[0].to(torch.float32)
        moving = np.flatnonzero(self._steps)
        change, times, failed = state.change.copy(), state.times.copy(), state.failed
        size = max(1, CHUNK_BYTES // max(4 * picture.numel(), 1))
        for start in range(0, len(moving), size):
            axes = moving[start : start + size]
            codes = np.repeat(code[None], len(axes), axis=0)
            codes[np.arange(len(axes)), axes] += self._steps[axes].astype(np.float32)
            found = decode(self._shaped(codec, codes))
            failed += len(found.errors)
            if found.outputs:
                difference = (found.outputs[0].to(torch.float32) - picture).flatten(1).to(torch.float64)
                change[axes[found.rows]] += (difference**2).sum(1).cpu().numpy()
                times[axes[found.rows]] += 1
        return replace(state, change=change, times=times, failed=failed)

    def _cycled(self, state: Probed, codec: Codec, latents: npt.NDArray[np.float32], kinds: Ints, rows: Ints) -> Probed:
        back = Guarded(lambda z: (codec.encode(codec.decode(z)).mean,))
        size = max(1, CHUNK_BYTES // max(12 * codec.picture[0] * codec.picture[1], 1))
        cycles, failed = dict(state.cycles), state.failed
        for start in range(0, len(latents), size):
            part = latents[start : start + size]
            found = back(self._shaped(codec, part))
            errors = np.full(len(part), np.nan)
            if found.outputs:
                returned = found.outputs[0].flatten(1).to("cpu", torch.float64).numpy()
                errors[found.rows] = np.linalg.norm(returned - part[found.rows], axis=1)
            for offset, error in enumerate(errors):
                if np.isfinite(error):
                    cycles[int(kinds[start + offset]), int(rows[start + offset])] = float(error)
                else:
                    failed += 1
        return replace(state, cycles=cycles, failed=failed)

    def _shaped(self, codec: Codec, codes: npt.NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(codes.copy()).reshape(len(codes), *codec.latent.shape)
