"""Latents with a planted spectrum as the batches an executor brings, and components carried through in process."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.steps import ComponentsStep
from stages.components.found import Found
from stages.components.over_latents import OverLatents
from stages.components.pca import pca
from stages.components.principal import Limits
from stages.directions.direction import Direction
from tests.labelled import carried


def latent_batch(latents: np.ndarray, *, ids: Sequence[str] | None = None) -> pa.RecordBatch:
    """All rows as one batch with `id` and `latent`, as they are stored: in float32."""
    latents = latents.astype(np.float32)
    n, d = latents.shape
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(latents).reshape(-1)), d)
    names = [f"faces/{i:06d}.jpg" for i in range(n)] if ids is None else list(ids)
    return pa.record_batch({"id": pa.array(names, pa.string()), "latent": column})


def spread_rows(n: int, d: int, *, seed: int = 0, offset: float = 0.0, decay: float = 0.7) -> np.ndarray:
    """(n, d) float32 rows whose standard deviations along random axes are decay⁰, decay¹, …"""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return (rng.standard_normal((n, d)) * decay ** np.arange(d) @ axes.T + offset).astype(np.float32)


def pca_of(
    splits: Sequence[Sequence[pa.RecordBatch]], *, limits: Limits | None = None, **fields: Any
) -> tuple[Found, list[str]]:
    """The result of a `pca` step, and the names of its passes' folds."""
    step = ComponentsStep(**{"name": "pca"} | fields)
    dim = next(b for split in splits for b in split).schema.field("latent").type.list_size
    names = [f"{step.name}.{i}" for i in range(min(step.count, dim))]
    folds: list[str] = []

    def over(fold: Any) -> OverLatents[Any]:
        folds.append(type(fold).__name__)
        return OverLatents(fold)

    found, _ = carried(pca(step, names, over, dim=dim, limits=limits or Limits()), splits)
    return found, folds


def vectors(directions: Sequence[Direction]) -> np.ndarray:
    """(k, d), of the components that are there."""
    return np.array([d.vector for d in directions if d.vector is not None])
