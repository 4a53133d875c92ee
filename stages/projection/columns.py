"""Positions as columns of the latents table: PCA of every row from its latent, maps of the sampled rows by their ids."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas.tables import computed_field
from stages.projection.maps import Floats
from stages.rows import latent_blocks

AXES = (1, 2)


def column_names(step: str, method: str) -> tuple[str, str]:
    """`project_umap_1`, `project_umap_2`."""
    first, second = (f"{step}_{method}_{axis}" for axis in AXES)
    return first, second


def all_names(step: str, methods: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of a step, two a method; those of PCA always."""
    return tuple(name for m in dict.fromkeys(("pca", *methods)) for name in column_names(step, m))


def position_fields(step: str, methods: tuple[str, ...]) -> tuple[pa.Field, ...]:
    """The computed columns of a step, two a method; PCA's always."""
    return tuple(computed_field(name, pa.float32(), by="project") for name in all_names(step, methods))


@dataclass(frozen=True)
class Positions:
    """Batches of `id` and `latent` → the columns. Null where a row has no finite latent, or is not in the sample.

    `mean` (d,) and `axes` (2, d) of the PCA; `maps`: method → positions (rows, 2) of the sampled `ids`.
    """

    step: str
    mean: Floats
    axes: Floats
    ids: tuple[str, ...]
    maps: Mapping[str, Floats]

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns: dict[str, pa.Array] = {}
        parts = []
        for latents, finite in latent_blocks(batch):
            scores = np.full((len(finite), 2), np.nan)
            scores[finite] = (latents - self.mean) @ self.axes.T
            parts.append(scores)
        scores = np.concatenate(parts) if parts else np.zeros((0, 2))
        columns |= self._named("pca", scores)
        place = {i: n for n, i in enumerate(self.ids)}
        at = np.array([place.get(i, -1) for i in batch.column("id").to_pylist()], np.int64)
        for method, positions in self.maps.items():
            columns |= self._named(method, np.where((at >= 0)[:, None], positions[at], np.nan))
        return pa.record_batch(columns)

    def _named(self, method: str, positions: Floats) -> dict[str, pa.Array]:
        names = column_names(self.step, method)
        return {
            name: pa.array(values.astype(np.float32), mask=np.isnan(values))
            for name, values in zip(names, positions.T, strict=True)
        }
