"""The unit `effect`: a step of one changes the mean score by exactly one, by the model of whoever fitted the direction."""

from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.steps import ComponentEstimator, Estimator, FitStep, TraverseStep
from stages.code_sets.axes import Direction
from stages.code_sets.parents import parents_batch, parents_schema
from stages.code_sets.traverse import Traverse
from stages.columns import column_of, matrix_of
from stages.directions.effect import effect_length, scored_by
from stages.directions.fit import fit

D = 5
KINDS = {"class_means": "category"}
SPEC = LatentSpec(shape=(D,), space="z")


def labelled() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.random(600) < 0.5
    z = (rng.standard_normal((600, D)) + np.outer(y, [2.0, -1, 0, 0.5, 0])).astype(np.float32)
    return z, y, np.array([f"i{k}" for k in range(600)])


def fitted(estimator: str, *, pattern: bool = False):
    z, y, ids = labelled()
    batch = pa.RecordBatch.from_arrays(
        [
            pa.array(ids),
            column_of(z, parents_schema(SPEC, 1).field("latent_0")),
            pa.StructArray.from_arrays(
                [pa.array(np.where(y, "yes", "no")) if estimator in KINDS else pa.array(y)], ["smiling"]
            ),
        ],
        names=["id", "latent", "labels"],
    )
    passes = fit(
        FitStep(estimator=estimator, holdout=0, pattern=pattern), {"smiling": KINDS.get(estimator, "bool")}, dim=D
    )
    state = next(passes)
    while True:
        try:
            state = passes.send(state.add(state.start(), batch))
        except StopIteration as done:
            return done.value[-1]


@pytest.mark.parametrize("estimator", get_args(Estimator))
def test_a_step_of_one_changes_the_score_by_one(estimator):
    found = fitted(estimator)
    length = effect_length(estimator, found.raw_norm)
    direction = Direction("smiling", found.vector, found.sigma, found.mean, length)
    z, y, _ = labelled()
    stage = Traverse(TraverseStep(directions=("smiling",), unit="effect", strengths=(0, 1)), [direction], SPEC)
    field = parents_schema(SPEC, 1).field("latent_0")
    batch = stage(parents_batch(range(len(z)), [[str(i)] for i in range(len(z))], [column_of(z, field)]))
    before, after = matrix_of(batch.column("latent")).reshape(len(z), 2, D).astype(float).swapaxes(0, 1)
    if scored_by(estimator) == "scoring":
        change = (after - before) @ found.vector * found.raw_norm
    else:
        # By the model z = β₀ + y·b a step of one carries an image without the attribute to the mean of those with it.
        if estimator not in KINDS:
            np.testing.assert_allclose(after[~y].mean(0), z[y].mean(0, dtype=float), atol=1e-4)
        change = (after - before) @ found.vector / found.raw_norm
    np.testing.assert_allclose(change, 1, atol=1e-4)
    assert '"effect":' in batch.column("operation")[0].as_py()


@pytest.mark.parametrize("raw_norm", [None, 0.0, float("inf"), float("nan")])
def test_without_coefficients_there_is_no_effect(raw_norm):
    assert effect_length("ols", raw_norm) is None
    direction = Direction("smiling", np.eye(D)[0], 1.0, np.zeros(D), effect_length("ols", raw_norm))
    with pytest.raises(JobError, match="no score"):
        Traverse(TraverseStep(directions=("smiling",), unit="effect"), [direction], SPEC)


@pytest.mark.parametrize("estimator", get_args(ComponentEstimator))
def test_directions_found_without_labels_have_no_score(estimator):
    assert scored_by(estimator) is None and effect_length(estimator, 2.0) is None


@pytest.mark.parametrize("estimator", ["ridge", "lda", "logistic", "svm"])
def test_a_step_of_one_along_a_pattern_changes_the_classifiers_own_score_by_one(estimator):
    normal, pattern = fitted(estimator), fitted(estimator, pattern=True)
    assert pattern.estimator == f"{estimator}_pattern"
    length = effect_length(pattern.estimator, pattern.raw_norm)
    assert normal.vector @ pattern.vector * length * normal.raw_norm == pytest.approx(1, abs=1e-6)
