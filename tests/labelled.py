"""Labelled latents as the batches an executor brings, and fits carried through in process, split in any way."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.source import LabelType
from schemas.steps import FitStep
from stages.directions.direction import Direction
from stages.directions.fit import fit
from stages.stage import Passes, ReduceStage

ARROW = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "category": pa.string()}


def batch_of(
    latents: np.ndarray,
    labels: Mapping[str, pa.Array | np.ndarray | Sequence[Any]],
    *,
    ids: Sequence[str] | None = None,
) -> pa.RecordBatch:
    """All rows as one batch. latents: (rows, d) float16 or float32; labels: arrays, or lists with None for a gap."""
    n, d = latents.shape
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(latents).reshape(-1)), d)
    arrays = [v if isinstance(v, pa.Array) else pa.array(v) for v in labels.values()]
    names = [f"faces/{i:06d}.jpg" for i in range(n)] if ids is None else list(ids)
    struct = pa.StructArray.from_arrays(arrays, names=list(labels))
    return pa.record_batch({"id": pa.array(names, pa.string()), "latent": column, "labels": struct})


def chunks(batch: pa.RecordBatch, rows: int) -> list[pa.RecordBatch]:
    return [batch.slice(start, rows) for start in range(0, batch.num_rows, rows)]


def reduced(stage: ReduceStage[Any], splits: Sequence[Sequence[pa.RecordBatch]]) -> Any:
    """Every split folded on its own, then merged from the left, as executors do."""
    state = stage.start()
    for split in splits:
        folded = stage.start()
        for batch in split:
            folded = stage.add(folded, batch)
        state = stage.merge(state, folded)
    return state


def carried(passes: Passes[Any, Any], splits: Sequence[Sequence[pa.RecordBatch]]) -> tuple[Any, list[str]]:
    """The result of a computation in passes, and the names of its stages."""
    names: list[str] = []
    try:
        stage = next(passes)
        while True:
            names.append(type(stage).__name__)
            stage = passes.send(reduced(stage, splits))
    except StopIteration as end:
        return end.value, names


def directions(
    step: FitStep, types: Mapping[str, LabelType], *batches: pa.RecordBatch, splits: Sequence[Any] | None = None
) -> dict[str, Direction]:
    """Fits by attribute; `splits` replaces `batches` where rows are to be split."""
    parts = splits if splits is not None else [[batch] for batch in batches]
    dim = next(b for split in parts for b in split).schema.field("latent").type.list_size
    found, _ = carried(fit(step, types, dim=dim, labels=types), parts)
    return {direction.attribute: direction for direction in found}


def coefficients(direction: Direction) -> np.ndarray:
    """The raw coefficients that a direction was made of."""
    assert direction.vector is not None and direction.raw_norm is not None, (direction.status, direction.message)
    return direction.vector * direction.raw_norm


def uneven(batch: pa.RecordBatch, seed: int) -> Iterator[list[pa.RecordBatch]]:
    """The rows shuffled and cut into splits and batches of random sizes, some of them empty."""
    rng = np.random.default_rng(seed)
    shuffled = batch.take(pa.array(rng.permutation(batch.num_rows)))
    cuts = np.sort(rng.integers(0, batch.num_rows + 1, 6)).tolist()
    for start, end in zip([0, *cuts], [*cuts, batch.num_rows], strict=True):
        part = shuffled.slice(start, end - start)
        yield chunks(part, int(rng.integers(1, 200)))


BOOLS: dict[str, LabelType] = {"smiling": "bool", "glasses": "bool", "young": "bool"}


def step(**fields: Any) -> FitStep:
    return FitStep(**{"name": "fit", "estimator": "ols"} | fields)


def faces(n: int = 3000, d: int = 8, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Latents with correlated attributes that each move them along their own axis, away from zero."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal(n)
    labels = {name: rng.standard_normal(n) + 0.6 * shared > 0.3 for name in BOOLS}
    latents = rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d))) + 4
    for axis, name in enumerate(BOOLS):
        latents[:, axis] += 1.5 * labels[name]
    return latents.astype(np.float32), labels


def same(a: Direction, b: Direction) -> None:
    """Asserts that two directions agree in every field, up to rounding."""
    for field, value in asdict(a).items():
        other = getattr(b, field)
        if isinstance(value, np.ndarray | float):
            np.testing.assert_allclose(other, value, rtol=1e-10, atol=1e-12, err_msg=field)
        else:
            assert other == value, field
