"""Every estimator, streamed: the same answer under random chunks, random trees of merges, sorted rows and far offsets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from stages.directions.direction import Direction
from stages.directions.fit import fit
from stages.stage import Passes, ReduceStage
from tests.labelled import batch_of, carried, coefficients, step

TYPES = {"smiling": "bool", "glasses": "bool", "hair": "category"}
NUMBERS = {"age": "float"}
ESTIMATORS: list[dict[str, Any]] = [
    {"estimator": "mean_difference"},
    {"estimator": "balanced_mean_difference"},
    {"estimator": "class_means"},
    {"estimator": "ols"},
    {"estimator": "ols", "l2": 2.0},
    {"estimator": "ridge"},
    {"estimator": "lda"},
    {"estimator": "logistic", "l2": 1.0},
    {"estimator": "svm"},
    {"estimator": "lda", "pattern": True},
    {"estimator": "mean_difference", "extremes": 0.25},
]
OFFSETS = (0.0, 1e3, 1e6)


def data(offset: float) -> pa.RecordBatch:
    rng = np.random.default_rng(0)
    n, d = 500, 6
    smiling, glasses = rng.random(n) < 0.5, rng.random(n) < 0.3
    hair = np.array(["black", "blond", "red"])[rng.integers(0, 3, n)]
    latents = rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)))
    latents[:, 0] += 1.5 * smiling
    latents[:, 1] += glasses + (hair == "red")
    # Sixteenths are exact in float32 at a million: the offset moves the data and nothing else.
    latents = np.round(latents * 16) / 16 + offset
    gaps = rng.random(n) < 0.1
    labels = {
        "smiling": pa.array(smiling, mask=gaps), "glasses": glasses, "hair": hair, "age": latents[:, 2] - offset + rng.standard_normal(n),
    }  # fmt: skip
    return batch_of(latents.astype(np.float32), labels)


def fitted(fields: dict[str, Any], splits: Sequence[Sequence[pa.RecordBatch]], *, tree: int | None) -> list[Direction]:
    types = NUMBERS if "extremes" in fields else TYPES
    passes = fit(step(**fields), types, dim=6, labels=TYPES | NUMBERS)
    if tree is None:
        return carried(passes, splits)[0]
    return through_trees(passes, splits, np.random.default_rng(tree))


def through_trees(
    passes: Passes[Any, Any], splits: Sequence[Sequence[pa.RecordBatch]], rng: np.random.Generator
) -> Any:
    """Every pass folded split by split, and the states merged two by two in a random order."""

    def reduced(stage: ReduceStage[Any]) -> Any:
        states = []
        for split in splits:
            state = stage.start()
            for batch in split:
                state = stage.add(state, batch)
            states.append(state)
        while len(states) > 1:
            a, b = rng.choice(len(states), 2, replace=False)
            merged = stage.merge(states[a], states[b])
            states = [s for i, s in enumerate(states) if i not in (a, b)] + [merged]
        return states[0]

    try:
        stage = next(passes)
        while True:
            stage = passes.send(reduced(stage))
    except StopIteration as end:
        return end.value


def sorted_splits(batch: pa.RecordBatch, seed: int) -> list[list[pa.RecordBatch]]:
    """Rows sorted by class and by a latent, the worst order there is, cut at random into splits of batches."""
    rng = np.random.default_rng(seed)
    first = batch.column("latent").flatten().to_numpy().reshape(batch.num_rows, -1)[:, 0]
    glasses = batch.column("labels").field("glasses").to_numpy(zero_copy_only=False)
    ordered = batch.take(pa.array(np.lexsort((first, glasses))))
    cuts = np.sort(rng.integers(0, batch.num_rows + 1, 7)).tolist()
    size = int(rng.integers(1, 90))
    return [
        [ordered.slice(at, min(size, end - at)) for at in range(start, end, size)]
        for start, end in zip([0, *cuts], [*cuts, batch.num_rows], strict=True)
    ]


@pytest.mark.parametrize(("seed", "offset"), list(enumerate(OFFSETS)))
@pytest.mark.parametrize("fields", ESTIMATORS, ids=lambda f: " ".join(map(str, f.values())))
def test_streaming_is_batch(fields: dict[str, Any], seed: int, offset: float) -> None:
    batch = data(offset)
    whole = fitted(fields, [[batch]], tree=None)
    near = fitted(fields, [[data(0.0)]], tree=None)
    split = fitted(fields, sorted_splits(batch, seed), tree=seed)
    for a, b, c in zip(whole, split, near, strict=True):
        assert (b.attribute, b.status, b.n, b.message) == (a.attribute, a.status, a.n, a.message)
        np.testing.assert_allclose(b.vector, a.vector, atol=1e-10, err_msg=a.attribute)
        np.testing.assert_allclose(b.vector, c.vector, atol=1e-10, err_msg=a.attribute)
        np.testing.assert_allclose(coefficients(b), coefficients(a), rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose([b.sigma, b.separation], [c.sigma, c.separation], rtol=1e-9)
        assert (b.standard_error is None) == (a.standard_error is None)
        if a.standard_error is not None:
            np.testing.assert_allclose(b.standard_error, c.standard_error, rtol=1e-8)


def test_a_batch_in_which_no_row_has_every_control_is_passed_over() -> None:
    batch = data(0.0)
    empty = batch_of(np.ones((3, 6), np.float32), {
        "smiling": pa.array([None] * 3, pa.bool_()), "glasses": [True] * 3, "hair": ["red"] * 3, "age": [1.0] * 3,
    }, ids=["a", "b", "c"])  # fmt: skip
    found = fitted({"estimator": "balanced_mean_difference"}, [[batch, empty]], tree=None)
    alone = fitted({"estimator": "balanced_mean_difference"}, [[batch]], tree=None)
    np.testing.assert_allclose(found[0].vector, alone[0].vector, atol=1e-12)
