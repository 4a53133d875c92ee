"""Numbers as two classes: exactly the top and the bottom share, equal scores told apart by the id alone."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.attributes import Column, read_labels, row_keys
from stages.directions.extremes import extreme_columns
from stages.directions.fit import fit
from stages.row_hash import hash_ids
from tests.labelled import batch_of, carried, coefficients, directions, faces, step, uneven

AGE = (Column("age", "age", "float"),)


def chosen(batch: pa.RecordBatch, share: float, splits: list[list[pa.RecordBatch]]) -> tuple[np.ndarray, np.ndarray]:
    """(positives, negatives), (rows,), as later passes read them."""
    columns, _ = carried(extreme_columns(AGE, share), splits)
    values, known = read_labels(batch.column("labels"), columns, lambda: hash_ids(batch.column("id")))
    return known[:, 0] & (values[:, 0] > 0.5), known[:, 0] & (values[:, 0] < 0.5)


@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["normal", "stars", "tiny", "huge"]),
    share=st.sampled_from([0.02, 0.25, 0.5]),
)
@settings(max_examples=25)
def test_the_extremes_are_the_ends_of_the_sorted_rows(seed: int, kind: str, share: float) -> None:
    rng, n = np.random.default_rng(seed), 301
    scores = {
        "normal": rng.standard_normal(n),
        "stars": rng.integers(-2, 3, n).astype(float) * 0.5,
        "tiny": 1 + rng.integers(-5, 6, n) * 2.0**-52,
        "huge": rng.standard_normal(n) * 10.0 ** rng.integers(-300, 95, n),
    }[kind]
    gone = rng.random(n) < 0.1
    batch = batch_of(np.ones((n, 2), np.float32), {"age": pa.array(scores, mask=gone)})
    positive, negative = chosen(batch, share, list(uneven(batch, seed)))
    known = np.flatnonzero(~gone)
    score, tie = row_keys(scores, hash_ids(batch.column("id")))
    order, count = known[np.lexsort((tie[known], score[known]))], int(share * len(known))
    if scores[order[count - 1]] == scores[order[len(order) - count]]:
        assert not positive.any() and not negative.any()  # the hash alone would make the classes
        return
    assert np.array_equal(np.sort(order[:count]), np.flatnonzero(negative))
    assert np.array_equal(np.sort(order[len(order) - count :]), np.flatnonzero(positive))
    assert scores[positive].min() >= scores[~positive & ~gone].max()


def test_a_share_of_rows_is_counted_as_written() -> None:
    batch = batch_of(np.ones((100, 2), np.float32), {"age": np.arange(100.0)})
    positive, negative = chosen(batch, 0.29, [[batch]])
    assert 0.29 * 100 < 29 and positive.sum() == negative.sum() == 29


def test_keys_are_ordered_as_their_scores() -> None:
    scores = np.array([-np.inf, -1e300, -1.5, -5e-324, 0.0, 5e-324, 1.0, 1.0000000000000002, np.inf])
    bits, _ = row_keys(scores, np.arange(9, dtype=np.uint64))
    assert (np.diff(bits.astype(object)) > 0).all()
    assert row_keys(np.array([-0.0]), np.zeros(1, np.uint64)) == row_keys(np.array([0.0]), np.zeros(1, np.uint64))


@pytest.mark.parametrize("estimator", ["svm", "logistic", "lda", "mean_difference"])
def test_a_fit_of_extremes_is_the_fit_of_those_rows(estimator: str) -> None:
    latents, labels = faces(800)
    score = latents[:, 4] + 0.3 * np.random.default_rng(1).standard_normal(800)
    batch = batch_of(latents, {"age": score, "smiling": labels["smiling"]})
    fields = {"estimator": estimator} | ({"l2": 1.0} if estimator in ("svm", "logistic") else {})
    found = directions(step(**fields, extremes=0.2), {"age": "float", "smiling": "bool"}, batch)
    order = np.argsort(score)
    ends = np.sort(np.concatenate([order[:160], order[-160:]]))
    kept = batch_of(
        latents[ends],
        {"age": score[ends] > np.median(score)},
        ids=np.array(batch.column("id").to_pylist())[ends],
    )
    alone = directions(step(**fields), {"age": "bool"}, kept)["age"]
    np.testing.assert_allclose(coefficients(found["age"]), coefficients(alone), atol=1e-6)
    assert (found["age"].n_positive, found["age"].n_negative) == (160, 160)
    assert found["age"].auc > 0.95
    assert f"from {score[order[-160]]:.6g} up and {score[order[159]]:.6g} down" in str(found["age"].message)
    assert found["smiling"].n == 800 and "scores" not in str(found["smiling"].message)
    np.testing.assert_allclose(found["age"].mean, latents.mean(0, dtype=float), rtol=1e-12)


@pytest.mark.parametrize("estimator", ["svm", "mean_difference"])
def test_ends_that_share_a_score_are_no_classes(estimator: str) -> None:
    latents, _ = faces(100)
    mostly = np.r_[np.zeros(95), np.arange(5.0)]
    types = {"mostly": "float", "few": "float", "none": "float"}
    columns = {"mostly": mostly, "few": pa.array(mostly, mask=np.arange(100) > 3), "none": pa.nulls(100, pa.float64())}
    found = directions(step(estimator=estimator, extremes=0.2), types, batch_of(latents, columns))
    assert {name: d.status for name, d in found.items()} == {
        "mostly": "constant", "few": "no_labels", "none": "no_labels",
    }  # fmt: skip
    assert "share the score 0; take a smaller share" in str(found["mostly"].message)


def test_a_few_passes_find_the_cuts() -> None:
    latents, _ = faces(2000)
    score = np.random.default_rng(2).standard_normal(2000)
    _, passes = carried(
        fit(step(estimator="mean_difference", extremes=0.1), {"age": "float"}, dim=8),
        [[batch_of(latents, {"age": score})]],
    )
    assert passes.count("RadixPass") <= 3
