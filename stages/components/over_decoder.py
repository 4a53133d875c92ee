"""The reduce stage that feeds folds what a decoder makes of latents: activations, or how its picture changes.

The codec is opened in the worker. What is computed of a row depends on that row alone, so batches do not matter; rows whose
latent or result is not finite are left out and counted.
"""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from stages.components.over_latents import Counted, Fold, Matrix
from stages.row_hash import Hashes, hash_ids
from stages.rows import latent_blocks

State = TypeVar("State")


class DecoderRows(Protocol):
    """Made of an opened codec. Called from several threads at once."""

    @property
    def at_once(self) -> int:
        """Rows that fit memory together."""

    def __call__(self, latents: Matrix, hashes: Hashes) -> tuple[Matrix, Matrix]:
        """latents (n, d), hashes of their ids (n,) → what is folded (n, …) and the latents it came from (n, d)."""


class OverDecoder(Generic[State]):
    """A reduce stage over batches with `id` and `latent`. `source(device)` opens the codec; it pickles, what it makes need not."""

    def __init__(self, fold: Fold[State], source: Callable[[str], DecoderRows]) -> None:
        self._fold, self._source = fold, source
        self._rows: DecoderRows | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_fold": self._fold, "_source": self._source, "_rows": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def open(self, device: str) -> None:
        self._rows = self._source(device)

    def start(self) -> Counted[State]:
        return Counted(self._fold.start())

    def add(self, counted: Counted[State], batch: pa.RecordBatch) -> Counted[State]:
        rows = self._rows
        assert rows is not None, "open() comes first"
        hashes, at = hash_ids(batch.column("id")), 0
        for latents, finite in latent_blocks(batch):
            kept = hashes[at : at + len(finite)][finite]
            at += len(finite)
            counted.non_finite += len(finite) - len(kept)
            for start in range(0, len(kept), rows.at_once):
                piece = slice(start, start + rows.at_once)
                x, z = rows(latents[piece], kept[piece])
                good = np.isfinite(x.reshape(len(x), -1)).all(axis=1)
                counted.non_finite += int(len(x) - np.count_nonzero(good))
                if good.any():
                    counted.state = self._fold.add(counted.state, x[good], z[good])
        return counted

    def merge(self, a: Counted[State], b: Counted[State]) -> Counted[State]:
        return Counted(self._fold.merge(a.state, b.state), a.non_finite + b.non_finite)
