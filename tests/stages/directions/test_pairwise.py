"""Forward least squares with missing labels pair by pair: OLS without gaps, its formula with them, typed where it cannot be."""

from dataclasses import asdict

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.labelled import BOOLS, batch_of, coefficients, directions, faces, step, uneven

PAIRWISE = {"estimator": "ols", "missing": "pairwise"}


def gappy(
    n: int, seed: int, share: float
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray], pa.RecordBatch]:
    latents, labels = faces(n, seed=seed)
    rng = np.random.default_rng(seed + 1)
    gone = {name: rng.random(n) < share for name in BOOLS}
    return latents, labels, gone, batch_of(latents, {name: pa.array(labels[name], mask=gone[name]) for name in BOOLS})


def test_without_gaps_it_is_ols() -> None:
    latents, labels = faces(800)
    hair = np.array(["a", "b", "c"])[np.random.default_rng(2).integers(0, 3, 800)]
    age = latents[:, 3] + np.random.default_rng(3).standard_normal(800)
    types, batch = BOOLS | {"hair": "category", "age": "float"}, batch_of(latents, labels | {"hair": hair, "age": age})
    for l2 in (0.0, 5.0):
        plain, pairs = directions(step(l2=l2), types, batch), directions(step(**PAIRWISE, l2=l2), types, batch)
        for name in plain:
            np.testing.assert_allclose(coefficients(pairs[name]), coefficients(plain[name]), atol=1e-10)
            for field in ("intercept", "sigma", "separation", "auc"):
                a, b = asdict(pairs[name])[field], asdict(plain[name])[field]
                assert a == b or abs(a - b) < 1e-9, (name, field)
            assert pairs[name].message is None or "pairwise" not in pairs[name].message


def test_every_entry_is_of_the_rows_that_know_it() -> None:
    latents, labels, gone, batch = gappy(500, 0, 0.4)
    found = directions(step(**PAIRWISE), BOOLS, batch)
    covariance, along, wide = np.zeros((3, 3)), np.zeros((3, 8)), latents.astype(float)
    for i, a in enumerate(BOOLS):
        ya, known = labels[a].astype(float), ~gone[a]
        along[i] = ((ya - ya[known].mean())[known] @ (wide[known] - wide[known].mean(0))) / known.sum()
        for j, b in enumerate(BOOLS):
            both = known & ~gone[b]
            covariance[i, j] = np.cov(ya[both], labels[b][both].astype(float), ddof=0)[0, 1]
    truth = np.linalg.solve(covariance, along)
    np.testing.assert_allclose([coefficients(found[name]) for name in BOOLS], truth, atol=1e-10)
    assert [found[name].n for name in BOOLS] == [(~gone[name]).sum() for name in BOOLS]
    assert "rows a pair of labels" in str(found["young"].message)
    assert found["young"].standard_error is None


def test_where_labels_are_missing_at_random_it_beats_complete_rows() -> None:
    errors = {"complete": 0.0, "pairwise": 0.0}
    for seed in range(6):
        latents, labels, _, batch = gappy(600, seed, 0.6)
        truth = directions(step(), BOOLS, batch_of(latents, labels))
        for missing in errors:
            found = directions(step(missing=missing), BOOLS, batch)
            errors[missing] += sum(np.sum((coefficients(found[a]) - coefficients(truth[a])) ** 2) for a in BOOLS)
    assert errors["pairwise"] < 0.6 * errors["complete"]


@given(seed=st.integers(0, 2**32 - 1), offset=st.sampled_from([0.0, 1e6]))
@settings(max_examples=8)
def test_any_split_gives_the_same(seed: int, offset: float) -> None:
    latents, _, _, batch = gappy(300, 3, 0.3)
    moved = (np.round(latents * 16) / 16 + offset).astype(np.float32)
    batch = batch.set_column(1, "latent", batch_of(moved, {"x": np.zeros(300)}).column("latent"))
    whole = directions(step(**PAIRWISE), BOOLS, batch)
    split = directions(step(**PAIRWISE), BOOLS, splits=list(uneven(batch, seed)))
    for name in BOOLS:
        np.testing.assert_allclose(coefficients(split[name]), coefficients(whole[name]), rtol=1e-9, atol=1e-10)
        assert (split[name].n, split[name].message) == (whole[name].n, whole[name].message)


def test_pairs_that_make_no_covariance_are_refused() -> None:
    # Three labels, each pair known on rows of its own, with correlations that no three labels can have together.
    rng, n = np.random.default_rng(4), 300
    a = rng.random(n) < 0.5
    values = {"x": a, "y": np.where(np.arange(n) // 100 == 0, a, ~a), "w": a}
    gone = {"x": np.arange(n) // 100 == 2, "y": np.arange(n) // 100 == 1, "w": np.arange(n) // 100 == 0}
    # x = y on the first rows, x = w on the second, y = not w on the third.
    batch = batch_of(
        rng.standard_normal((n, 4)).astype(np.float32), {k: pa.array(v, mask=gone[k]) for k, v in values.items()}
    )
    types = dict.fromkeys(values, "bool")
    found = directions(step(**PAIRWISE), types, batch)
    assert {d.status for d in found.values()} == {"collinear"}
    assert "not positive definite" in str(found["x"].message)
    assert {d.status for d in directions(step(**PAIRWISE, l2=400.0), types, batch).values()} == {"ok"}


def test_attributes_that_follow_from_each_other_are_named_and_the_others_kept() -> None:
    """As with complete rows: the twins have no estimate, the others are fitted beside what the twins tell together."""
    latents, labels = faces(600)
    types = BOOLS | {"old": "bool"}
    batch = batch_of(latents, labels | {"old": ~labels["young"]})
    found, complete = directions(step(**PAIRWISE), types, batch), directions(step(), types, batch)
    assert {name: d.status for name, d in found.items()} == {name: d.status for name, d in complete.items()}
    assert (
        found["young"].status == found["old"].status == "collinear" and "leave one of them out" in found["old"].message
    )
    for name in BOOLS.keys() - {"young"}:
        np.testing.assert_allclose(coefficients(found[name]), coefficients(complete[name]), atol=1e-8)


def test_statuses() -> None:
    latents, labels = faces(60)
    columns = {
        **labels, "none": pa.nulls(60, pa.bool_()), "all": np.ones(60, bool), "age": np.full(60, 0.1),
    }  # fmt: skip
    found = directions(
        step(**PAIRWISE), BOOLS | {"none": "bool", "all": "bool", "age": "float"}, batch_of(latents, columns)
    )
    assert {n: d.status for n, d in found.items()} == dict.fromkeys(BOOLS, "ok") | {
        "none": "no_labels", "all": "single_class", "age": "constant",
    }  # fmt: skip
    never = {
        "x": pa.array(labels["young"], mask=np.arange(60) % 2 == 0),
        "y": pa.array(labels["smiling"], mask=np.arange(60) % 2 == 1),
    }
    found = directions(step(**PAIRWISE), {"x": "bool", "y": "bool"}, batch_of(latents, never))
    assert {d.status for d in found.values()} == {"too_few"}
    assert "0 rows know both" in str(found["x"].message)
