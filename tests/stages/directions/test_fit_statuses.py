"""Fits on data that cannot carry them: a typed status or a typed error, never a NaN and never a silent skip."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression

from schemas.errors import JobError
from schemas.tables import directions_schema
from stages.attributes import MAX_VALUES
from stages.directions.cells import MAX_CELLS
from stages.directions.checks import check_fit
from stages.directions.direction import FitStatus
from stages.directions.fit import fit
from tests.labelled import BOOLS, batch_of, carried, chunks, coefficients, directions, faces, step

CLOSED = ("mean_difference", "balanced_mean_difference", "class_means", "ols", "ridge", "lda")


@pytest.mark.parametrize("estimator", [*CLOSED, "logistic", "svm"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_non_finite_rows_leave_and_are_counted(estimator: str, dtype: type) -> None:
    latents, labels = faces(400)
    latents = latents.astype(dtype)
    spoiled, bad = latents.copy(), [3, 77, 399]
    spoiled[bad, [0, 5, 7]] = [np.nan, np.inf, -np.inf]
    kept = np.delete(np.arange(400), bad)
    names = [f"{i}" for i in range(400)]
    found = directions(
        step(estimator=estimator, l2=1.0 if estimator in ("logistic", "svm") else None),
        BOOLS,
        batch_of(spoiled, labels, ids=names),
    )
    clean = directions(
        step(estimator=estimator, l2=1.0 if estimator in ("logistic", "svm") else None),
        BOOLS,
        batch_of(latents[kept], {k: v[kept] for k, v in labels.items()}, ids=[names[i] for i in kept]),
    )
    for name in BOOLS:
        np.testing.assert_allclose(found[name].vector, clean[name].vector, atol=1e-10)
        assert found[name].non_finite == 3
        assert "3 rows with a non-finite latent left out" in str(found[name].message)


def test_a_null_latent_leaves_too() -> None:
    latents, labels = faces(50)
    batch = batch_of(latents, labels)
    column = batch.column("latent").take(pa.array([None if i == 4 else i for i in range(50)]))
    found = directions(step(estimator="mean_difference"), BOOLS, batch.set_column(1, "latent", column))
    assert found["young"].non_finite == 1


def only(batch: pa.RecordBatch, types: dict[str, Any], **fields: Any) -> dict[str, str]:
    return {name: d.status for name, d in directions(step(**fields), types, batch).items()}


@pytest.mark.parametrize("estimator", [*CLOSED, "logistic", "svm"])
def test_statuses_instead_of_nan(estimator: str) -> None:
    latents, labels = faces(60)
    rare = np.arange(60) == 5
    columns = {"smiling": labels["smiling"], "none": pa.nulls(60, pa.bool_()), "all": np.ones(60, bool), "rare": rare}
    types = dict.fromkeys(columns, "bool")
    extra = (
        {"controls": ()}
        if estimator == "balanced_mean_difference"
        else {"l2": 1.0}
        if estimator in ("logistic", "svm")
        else {}
    )
    found = directions(step(estimator=estimator, **extra), types, batch_of(latents, columns))
    assert {name: d.status for name, d in found.items()} == {
        "smiling": "ok", "none": "no_labels", "all": "single_class", "rare": "too_few",
    }  # fmt: skip
    for direction in found.values():
        numbers = [v for v in asdict(direction).values() if isinstance(v, float | np.ndarray)]
        assert all(np.isfinite(v).all() for v in numbers)
        assert (direction.vector is None) == (direction.status != "ok")
        assert direction.status == "ok" or direction.message, "a status says what it means"
    table = pa.Table.from_pylist([asdict(d) | KEYS for d in found.values()], directions_schema())
    assert table.column("status").to_pylist() == ["ok", "no_labels", "single_class", "too_few"]


@pytest.mark.parametrize("estimator", [*CLOSED, "logistic", "svm"])
def test_a_category_that_no_row_has_is_not_passed_over(estimator: str) -> None:
    latents, labels = faces(60)
    columns = {"smiling": labels["smiling"], "hair": pa.nulls(60, pa.string())}
    types: dict[str, Any] = {"smiling": "bool", "hair": "category"}
    asked = {"estimator": estimator} | ({"l2": 1.0} if estimator in ("logistic", "svm") else {})
    if estimator == "balanced_mean_difference":
        asked["controls"] = ()
    for boot in (None, 20):
        assert only(batch_of(latents, columns), types, bootstrap=boot, **asked) == {
            "smiling": "ok",
            "hair": "no_labels",
        }
    assert only(batch_of(latents, columns), {"hair": "category"}, **asked) == {"hair": "no_labels"}
    nobody = batch_of(latents[:0], {name: values[:0] for name, values in columns.items()})
    assert only(nobody, types, **asked) == {"smiling": "no_rows", "hair": "no_rows"}


KEYS = {"key": "k", "name": "n", "dataset": "d", "space": "z", "fingerprint": "f", "run_id": "r", "at": 0}


@pytest.mark.parametrize("estimator", [*CLOSED, "logistic", "svm"])
def test_no_rows(estimator: str) -> None:
    latents, labels = faces(5)
    found = only(batch_of(latents[:0], {k: v[:0] for k, v in labels.items()}), BOOLS, estimator=estimator)
    assert set(found.values()) == {FitStatus.NO_ROWS}


def test_constant_number() -> None:
    latents, labels = faces(60)
    columns = {"smiling": labels["smiling"], "age": np.full(60, 0.1)}
    assert only(batch_of(latents, columns), {"smiling": "bool", "age": "float"}) == {"smiling": "ok", "age": "constant"}


@pytest.mark.parametrize(
    "fields",
    [{"estimator": "ols"}, {"estimator": "ols", "missing": "pairwise"}, {"estimator": "ridge", "l2": 1.0}],
    ids=str,
)
def test_numbers_that_no_sum_holds_spoil_nothing(fields: dict[str, Any]) -> None:
    """The largest float, which tables write for "missing", is missing; numbers whose squares are 0 are constant."""
    latents, labels = faces(200)
    age = np.random.default_rng(0).normal(40, 10, 200)
    types, gone = {"age": "float", "young": "bool"}, np.arange(200) % 7 == 0
    told = {"young": labels["young"], "age": np.where(gone, np.finfo(float).max, age)}
    missing = {"young": labels["young"], "age": pa.array(age, mask=gone)}
    one, other = (directions(step(**fields), types, batch_of(latents, columns)) for columns in (told, missing))
    for name in types:
        assert one[name].status == "ok" and one[name].n == other[name].n
        np.testing.assert_array_equal(one[name].vector, other[name].vector)
    faint = directions(step(**fields), types, batch_of(latents, {**missing, "age": 1e-200 * age}))
    assert (faint["age"].status, faint["young"].status) == ("constant", "ok")


def test_nan_labels_are_missing_labels() -> None:
    latents, _ = faces(200)
    age = np.random.default_rng(8).normal(size=200)
    age[:40] = np.nan
    found = directions(step(), {"age": "float"}, batch_of(latents, {"age": age}))["age"]
    truth = LinearRegression().fit(age[40:, None], latents[40:].astype(float)).coef_[:, 0]
    np.testing.assert_allclose(coefficients(found), truth, atol=1e-10)


def test_collinear_attributes_are_named_and_the_others_kept() -> None:
    latents, labels = faces(300)
    columns = {**labels, "old": ~labels["young"]}
    types = BOOLS | {"old": "bool"}
    found = directions(step(), types, batch_of(latents, columns))
    assert {n: d.status for n, d in found.items()} == {
        "smiling": "ok",
        "glasses": "ok",
        "young": "collinear",
        "old": "collinear",
    }
    assert "l2 above 0" in str(found["old"].message)
    alone = directions(step(), BOOLS, batch_of(latents, labels))
    np.testing.assert_allclose(found["smiling"].vector, alone["smiling"].vector, atol=1e-9)
    ridged = only(batch_of(latents, columns), types, l2=1.0)
    assert set(ridged.values()) == {"ok"}


def test_near_collinear_attributes_carry_their_inflation() -> None:
    latents, labels = faces(4000)
    nearly = labels["young"] ^ (np.arange(4000) % 100 == 0)
    found = directions(step(), BOOLS | {"youngish": "bool"}, batch_of(latents, {**labels, "youngish": nearly}))
    x = np.column_stack([*labels.values(), nearly]).astype(float)
    expected = np.diagonal(np.linalg.inv(np.corrcoef(x.T)))[2]
    assert f"variance inflation {expected:.0f}" in str(found["young"].message)
    assert found["smiling"].message is None


def test_attributes_that_differ_in_two_rows_of_thousands_are_still_told_apart() -> None:
    latents, _ = faces(4000)
    young = np.random.default_rng(0).random(4000) > 0.5
    other = young.copy()
    other[[7, 77]] ^= True
    found = directions(
        step(holdout=0.0), {"young": "bool", "other": "bool"}, batch_of(latents, {"young": young, "other": other})
    )
    exact = LinearRegression().fit(np.column_stack([young, other]).astype(float), latents.astype(float)).coef_.T
    for direction, truth in zip((found["young"], found["other"]), exact, strict=True):
        np.testing.assert_allclose(coefficients(direction), truth, rtol=1e-6)
        assert "variance inflation" in str(direction.message)


def test_too_few_rows_for_the_attributes() -> None:
    latents, _ = faces(8)
    columns = {f"a{i}": np.arange(8) % (i + 2) < (i + 2) // 2 for i in range(7)}
    found = directions(step(), dict.fromkeys(columns, "bool"), batch_of(latents, columns))
    assert {d.status for d in found.values()} == {"too_few"}
    assert "8 complete rows for 7 attributes" in str(found["a0"].message)


def test_no_cell_with_both_classes() -> None:
    latents, labels = faces(100)
    columns = {"young": labels["young"], "school": labels["young"]}
    found = only(batch_of(latents, columns), {"young": "bool", "school": "bool"}, estimator="balanced_mean_difference")
    assert set(found.values()) == {"no_overlap"}


@pytest.mark.parametrize("estimator", ["mean_difference", "ols"])
def test_equal_means_have_no_direction(estimator: str) -> None:
    latents = np.tile(np.eye(4, dtype=np.float32), (10, 1))
    found = only(batch_of(latents, {"y": np.arange(40) % 8 < 4}), {"y": "bool"}, estimator=estimator)
    assert found == {"y": "zero_norm"}


@pytest.mark.parametrize("offset", [0, 1e6])
@pytest.mark.parametrize(
    "fields",
    [
        *({"estimator": name} for name in CLOSED),
        {"estimator": "ols", "missing": "pairwise"},
        {"estimator": "ols", "l2": 1.0},
        {"estimator": "lda", "shrinkage": 0.0},
        {"estimator": "lda", "pattern": True},
    ],
    ids=lambda f: " ".join(map(str, f.values())),
)
def test_means_that_differ_by_rounding_have_no_direction(fields: dict[str, Any], offset: float) -> None:
    rng = np.random.default_rng(0)
    half = (rng.normal(size=(50, 4)) + offset).astype(np.float32)
    order = rng.permutation(100)
    latents, y = np.vstack([half, half[rng.permutation(50)]])[order], np.repeat([True, False], 50)[order]
    more = {"controls": ()} if fields["estimator"] == "balanced_mean_difference" else {}
    found = directions(step(holdout=0.0, **fields, **more), {"y": "bool"}, batch_of(latents, {"y": y}))["y"]
    assert (found.status, found.vector) == ("zero_norm", None)


@pytest.mark.parametrize("fields", [{"estimator": "ols"}, {"estimator": "ols", "missing": "pairwise"}], ids=str)
def test_what_another_attribute_explains_wholly_leaves_no_direction(fields: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    y, other = rng.random(60) > 0.5, rng.random(60) > 0.4
    found = only(batch_of(np.tile(y[:, None], (1, 3)).astype(np.float32), {"y": y, "other": other}),
                 {"y": "bool", "other": "bool"}, **fields)  # fmt: skip
    assert found == {"y": "ok", "other": "zero_norm"}


def test_an_optimum_at_zero_is_no_accident() -> None:
    """Without a penalty: balanced classes of the same rows have their optimum at 0, where there is no direction to start from."""
    half = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    for latents in (np.vstack([half, half]), np.full((100, 4), 3, np.float32)):
        batch = batch_of(latents, {"y": np.repeat([True, False], 50)})
        found = directions(step(estimator="logistic", holdout=0.0), {"y": "bool"}, batch)["y"]
        assert found.status == "zero_norm" and found.vector is None


def test_classes_that_differ_where_they_do_not_vary_are_parted() -> None:
    """A discriminant of the rest would be blind to the very coordinate that tells the classes apart."""
    rng = np.random.default_rng(2)
    y, rest = rng.random(80) > 0.5, rng.standard_normal((80, 2))
    told = np.column_stack([y, rest]).astype(np.float32)
    for shrinkage, latents, fix in (
        (0.0, told, "set shrinkage above 0"),
        (0.3, np.repeat(told[:, :1], 3, axis=1), "use mean_difference"),
        ("auto", np.repeat(told[:, :1], 3, axis=1), "use mean_difference"),
    ):
        found = directions(step(estimator="lda", shrinkage=shrinkage), {"y": "bool"}, batch_of(latents, {"y": y}))["y"]
        assert (found.status, found.vector) == ("separable", None)
        assert fix in str(found.message)
    steadied = directions(step(estimator="lda", shrinkage=0.1), {"y": "bool"}, batch_of(told, {"y": y}))["y"]
    assert steadied.status == "ok" and abs(steadied.vector[0]) > 0.9


def test_held_out_rows_of_one_class_leave_auc_out_and_say_so() -> None:
    latents, labels = faces(30)
    found = directions(step(holdout=0.01, estimator="mean_difference"), BOOLS, batch_of(latents, labels))["young"]
    assert (found.status, found.auc) == ("ok", None)
    assert "no held-out AUC" in str(found.message)


@pytest.mark.parametrize(
    ("fields", "types", "said"),
    [
        ({"estimator": "mean_difference"}, {"age": "float"}, "needs classes"),
        ({"estimator": "logistic"}, {"age": "int"}, "declare it bool"),
        ({"estimator": "balanced_mean_difference", "controls": ("weight",)}, {"y": "bool"}, "few distinct values"),
        ({"estimator": "balanced_mean_difference", "controls": ("yy",)}, {"y": "bool"}, "did you mean `y`"),
        ({"estimator": "ols", "controls": ("y",)}, {"y": "bool"}, "ols has no controls"),
        ({"estimator": "mean_difference", "l2": 2.0}, {"y": "bool"}, "has no penalty"),
        ({"estimator": "svm", "l2": 0.0}, {"y": "bool"}, "no single best plane"),
        ({"estimator": "ols", "pattern": True}, {"y": "bool"}, "no classifier's filter"),
        ({"estimator": "ridge", "extremes": 0.1}, {"age": "float"}, "takes numbers as they are"),
        ({"estimator": "svm", "extremes": 0.1}, {"y": "bool"}, "none of the attributes is a number"),
        ({"estimator": "logistic", "shrinkage": 0.1}, {"y": "bool"}, "no covariance to shrink"),
        ({"estimator": "lda", "folds": 4}, {"y": "bool"}, "chooses nothing"),
        ({"estimator": "ridge", "folds": 4, "l2": 1.0}, {"y": "bool"}, "nothing to choose"),
    ],
)
def test_impossible_steps_are_refused_before_anything_is_read(
    fields: dict[str, Any], types: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        next(fit(step(**fields), types, dim=4, labels=types | {"weight": "float"}))
    assert check_fit(step(**fields), types | {"weight": "float"}, list(types))


def test_too_many_cells_name_the_fix() -> None:
    rng = np.random.default_rng(9)
    latents, serial = rng.standard_normal((2 * MAX_CELLS + 2, 2)).astype(np.float32), np.arange(2 * MAX_CELLS + 2) // 2
    batch = batch_of(latents, {"y": np.arange(len(serial)) % 2 == 0, "serial": serial})
    asked = step(estimator="balanced_mean_difference", controls=("serial",), holdout=0)
    with pytest.raises(JobError, match=r"more than 4096 cells.*name the few that matter"):
        carried(fit(asked, {"y": "bool"}, dim=2, labels={"y": "bool", "serial": "int"}), [chunks(batch, 1000)])


def test_a_category_of_too_many_values_is_refused() -> None:
    latents = np.ones((MAX_VALUES + 1, 2), np.float32)
    batch = batch_of(latents, {"id": [f"{i}" for i in range(MAX_VALUES + 1)]})
    with pytest.raises(JobError, match="more than 256 values"):
        carried(fit(step(), {"id": "category"}, dim=2), [chunks(batch, 50)])


def test_a_balanced_fit_names_the_controls_that_rows_lack() -> None:
    latents, labels = faces(60)
    columns = {"smiling": labels["smiling"], "none": pa.nulls(60, pa.bool_())}
    asked = step(estimator="balanced_mean_difference", controls=("smiling", "none"), attributes=("smiling",))
    found = directions(asked, dict.fromkeys(columns, "bool"), batch_of(latents, columns))["smiling"]
    assert (found.status, found.message) == (
        "no_labels",
        "of the rows that have none too: no selected row has this label",
    )
