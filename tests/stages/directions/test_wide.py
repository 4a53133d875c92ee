"""Ridge and LDA of wide latents: Σzz in strips equals it whole, a sketch says how good it is, and real widths fit in memory."""

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from stages.components.principal import Limits
from stages.directions import group_scatter, row_sets
from stages.directions.direction import Direction
from stages.directions.fit import fit
from stages.directions.row_sets import MAX_BYTES, RowSetPass
from stages.scatter import conjugate
from tests.labelled import BOOLS, batch_of, carried, coefficients, faces, step, uneven
from tests.unlabelled import latent_batch, pca_of, spread_rows

STRIPS = Limits(full=4, strips=10**6, block_values=100)
REASSEMBLED = Limits(full=10**6, strips=10**6, block_values=100)
SKETCHED = Limits(full=4, strips=4)
WAYS = pytest.mark.parametrize("limits", [STRIPS, REASSEMBLED, SKETCHED], ids=["strips", "reassembled", "sketched"])

RIDGES: list[dict[str, Any]] = [{"estimator": "ridge"}, {"estimator": "ridge", "l2": 3.0}]
DISCRIMINANTS: list[dict[str, Any]] = [
    {"estimator": "lda"},
    {"estimator": "lda", "shrinkage": 0.1},
    {"estimator": "lda", "shrinkage": 0.0},
    {"estimator": "lda", "shrinkage": 1.0},
]


def fitted(fields: dict[str, Any], splits: Any, limits: Limits | None, types: Any = None) -> dict[str, Direction]:
    dim = next(b for split in splits for b in split).schema.field("latent").type.list_size
    found, _ = carried(fit(step(**fields), types or BOOLS, dim=dim, limits=limits), splits)
    return {direction.attribute: direction for direction in found}


def cosine(a: Direction, b: Direction) -> float:
    assert a.vector is not None and b.vector is not None, (a.status, a.message, b.status)
    return float(a.vector @ b.vector)


@WAYS
@pytest.mark.parametrize("holdout", [0.2, 0.0])
@pytest.mark.parametrize("fields", RIDGES + DISCRIMINANTS, ids=lambda f: " ".join(map(str, f.values())))
def test_every_way_gives_the_same(limits: Limits, holdout: float, fields: dict[str, Any]) -> None:
    latents, labels = faces(400, d=11)
    latents[:, 2] *= 20
    gaps = {**labels, "smiling": pa.array(labels["smiling"], mask=np.arange(400) % 5 == 0)}
    batch, fields = batch_of(latents, gaps), fields | {"holdout": holdout}
    whole = fitted(fields, [[batch]], None)
    found = fitted(fields, list(uneven(batch, 1)), limits)
    for name, direction in found.items():
        if limits is SKETCHED and fields == {"estimator": "lda", "holdout": holdout}:
            assert cosine(direction, whole[name]) > 0.9999  # shrunk in coordinates of other units
            continue
        np.testing.assert_allclose(direction.vector, whole[name].vector, atol=1e-8)
        np.testing.assert_allclose(direction.raw_norm, whole[name].raw_norm, rtol=1e-7)
        np.testing.assert_allclose(direction.intercept, whole[name].intercept, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(direction.sigma, whole[name].sigma, rtol=1e-7)
        assert (direction.n, direction.auc, direction.message) == (
            whole[name].n, whole[name].auc, whole[name].message,
        )  # fmt: skip
        if limits is REASSEMBLED and whole[name].standard_error is not None:
            np.testing.assert_allclose(direction.standard_error, whole[name].standard_error, rtol=1e-8)


@WAYS
def test_wide_fits_are_scikit_learns(limits: Limits) -> None:
    latents, labels = faces(500, d=11)
    wide, batch = latents.astype(float), batch_of(latents, labels)
    ridges = fitted({"estimator": "ridge", "l2": 40.0}, [[batch]], limits)
    shrunk = fitted({"estimator": "lda", "shrinkage": 0.3}, [[batch]], limits)
    for name, y in labels.items():
        ridge = Ridge(alpha=40.0, solver="svd").fit(wide, y.astype(float))
        np.testing.assert_allclose(coefficients(ridges[name]), ridge.coef_, rtol=1e-6, atol=1e-9)
        lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(wide, y)
        np.testing.assert_allclose(coefficients(shrunk[name]), lda.coef_[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("limits", [STRIPS, SKETCHED], ids=["strips", "sketched"])
def test_fewer_rows_than_latents(limits: Limits) -> None:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((60, 90)).astype(np.float32)
    y = latents[:, 0] + 0.5 * rng.standard_normal(60) > 0
    batch, wide = batch_of(latents, {"y": y}), latents.astype(float)
    for l2 in (0.0, 5.0):  # without a penalty the least coefficients
        found = fitted({"estimator": "ridge", "l2": l2}, [[batch]], limits, {"y": "bool"})["y"]
        exact = Ridge(alpha=l2, solver="svd").fit(wide, y.astype(float)).coef_
        if l2 == 0:
            exact = np.linalg.pinv(wide - wide.mean(0)) @ (y - y.mean())
        np.testing.assert_allclose(coefficients(found), exact, rtol=0, atol=1e-7 * np.abs(exact).max())
        assert found.message is None and found.standard_error is None
    chosen = fitted({"estimator": "ridge"}, [[batch]], limits, {"y": "bool"})["y"]
    same = fitted({"estimator": "ridge"}, [[batch]], None, {"y": "bool"})["y"]
    assert cosine(chosen, same) > 1 - 1e-9 and str(chosen.message).split(";")[0] == str(same.message).split(";")[0]
    assert fitted({"estimator": "lda"}, [[batch]], limits, {"y": "bool"})["y"].vector[0] > 0.3
    bare = fitted({"estimator": "lda", "shrinkage": 0.0}, [[batch]], limits, {"y": "bool"})["y"]
    assert bare.status == "too_few" and "set shrinkage above 0" in str(bare.message) and bare.vector is None


def test_what_is_not_reached_is_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    latents, labels = faces(300, d=11)
    latents[:, 2] *= 1000
    monkeypatch.setattr(group_scatter, "MAX_ITERATIONS", 3)
    monkeypatch.setattr(group_scatter, "TRIED_ITERATIONS", 3)
    for fields in ({"estimator": "ridge", "l2": 1e-3}, {"estimator": "lda", "shrinkage": 0.0}):
        for direction in fitted(fields, [[batch_of(latents, labels)]], STRIPS).values():
            assert direction.status == "not_converged" and direction.vector is None
            assert "set" in str(direction.message)
    chosen = fitted({"estimator": "ridge"}, [[batch_of(latents, labels)]], STRIPS)
    assert all("smaller penalties not solved" in str(d.message) for d in chosen.values() if d.status == "ok")


@WAYS
@pytest.mark.parametrize("fields", RIDGES + DISCRIMINANTS, ids=lambda f: " ".join(map(str, f.values())))
def test_latents_that_tell_nothing_or_all_end_in_a_status(limits: Limits, fields: dict[str, Any]) -> None:
    y = np.arange(60) % 2 == 0
    same, parted = np.full((60, 11), 3, np.float32), np.repeat(y[:, None], 11, axis=1).astype(np.float32)
    spoilt = faces(60, d=11)[0]
    spoilt[4, 2], spoilt[9] = np.nan, np.inf
    for latents in (same, parted, spoilt):
        found = fitted(fields, [[batch_of(latents, {"y": y})]], limits, {"y": "bool"})["y"]
        assert found.status in ("ok", "zero_norm", "not_converged", "too_few", "separable")
        assert (found.vector is not None) == (found.status == "ok")
        assert found.vector is None or np.isfinite(found.vector).all()
        assert latents is not same or found.vector is None
        assert latents is not spoilt or (found.non_finite == 2 and found.status == "ok")


def test_constant_classes_stay_typed() -> None:
    latents, labels = faces(200, d=11)
    labels["young"][:] = True
    for fields in RIDGES + DISCRIMINANTS:
        found = fitted(fields, [[batch_of(latents, labels)]], STRIPS)
        assert found["young"].status == "single_class" and found["smiling"].status == "ok"
        none = fitted(fields, [[batch_of(latents, labels).slice(0, 0)]], SKETCHED)
        assert {d.status for d in none.values()} == {"no_rows"}


@pytest.mark.parametrize("fields", [{"estimator": "ridge", "l2": 50.0}, *DISCRIMINANTS[:2]], ids=str)
def test_passes_carry_a_sketch_to_the_exact_solution_or_say_how_far(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    latents = spread_rows(1500, 160, decay=0.97)
    rng = np.random.default_rng(3)
    score = (latents / latents.std(0)) @ rng.standard_normal(160)  # weak directions tell as much as strong ones
    batch, types = batch_of(latents, {"y": score + 2 * score.std() * rng.standard_normal(1500) > 0}), {"y": "bool"}
    few = Limits(full=4, strips=4, block_values=160 * 60)  # 48 directions
    exact = fitted(fields, [[batch]], None, types)["y"]
    for most, near in ((1, 0.7), (4, 0.97), (12, 0.9999)):  # one is the sketch's own solution: measured .73 to .97
        monkeypatch.setattr(conjugate, "MAX_PASSES", most)
        found = fitted(fields, list(uneven(batch, 2)), few, types)["y"]
        assert cosine(found, exact) > near
        if most < 12:
            assert "approximate: passes ended at a residual of" in str(found.message)
    monkeypatch.setattr(conjugate, "MAX_PASSES", 60)
    found = fitted(fields, list(uneven(batch, 2)), few, types)["y"]
    assert cosine(found, exact) > 0.9999 and "approximate" not in str(found.message)
    assert abs(found.auc - exact.auc) < 1e-3


def test_a_sketch_of_all_rows_serves_rows_that_lie_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label that only rows of one side know: their mean is not that of the frame."""
    monkeypatch.setattr(conjugate, "MAX_PASSES", 60)
    latents = spread_rows(800, 80, decay=0.95)
    sides = latents @ np.random.default_rng(4).standard_normal(80)
    known = sides > np.quantile(sides, 0.6)
    told = latents[:, 3] / latents[:, 3].std() + 0.5 * np.random.default_rng(5).standard_normal(800) > 0
    batch = batch_of(latents, {"y": [bool(v) if k else None for v, k in zip(told, known, strict=True)]})
    few, fields = Limits(full=4, strips=4, block_values=80 * 30), {"estimator": "ridge", "l2": 50.0}
    found, exact = (fitted(fields, [[batch]], limits, {"y": "bool"})["y"] for limits in (few, None))
    assert cosine(found, exact) > 0.999999 and found.raw_norm == pytest.approx(exact.raw_norm, rel=1e-4)


def test_choices_on_a_sketch_say_so() -> None:
    latents = spread_rows(600, 80, decay=0.9)
    batch, types = batch_of(latents, {"y": latents[:, 3] > 0}), {"y": "bool"}
    few = Limits(full=4, strips=4, block_values=80 * 30)
    for fields in ({"estimator": "ridge"}, {"estimator": "lda"}):
        found, exact = (fitted(fields, [[batch]], limits, types)["y"] for limits in (few, None))
        assert "on a sketch of 24 directions with 99" in str(found.message)
        assert cosine(found, exact) > 0.9


def test_passes() -> None:
    latents, labels = faces(300, d=11)

    def passes(limits: Limits, **fields: Any) -> list[str]:
        return carried(fit(step(**fields), BOOLS, dim=11, limits=limits), [[batch_of(latents, labels)]])[1]

    assert passes(STRIPS, estimator="ridge", l2=1.0) == ["RowSetPass", *["PartsPass"] * 2, "Scoring"]
    assert passes(SKETCHED, estimator="ridge", l2=1.0) == ["RowSetPass", "OverLatents", "PartsPass", "Scoring"]
    assert passes(STRIPS, estimator="lda", pattern=True) == [
        "RowSetPass", "FourthPowers", *["PartsPass"] * 2, "PatternPass", "Scoring",
    ]  # fmt: skip


def shipped(value: Any) -> Any:
    """What a worker sends, as it arrives: in shared memory that may not be written."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(b) for b in buffers])


@WAYS
@pytest.mark.parametrize("fields", [*RIDGES[:1], *DISCRIMINANTS[:1]], ids=lambda f: " ".join(map(str, f.values())))
def test_stages_and_states_travel(limits: Limits, fields: dict[str, Any]) -> None:
    batch = batch_of(*faces(300, d=11))
    splits = list(uneven(batch, 4))
    passes = fit(step(**fields, group="id:."), BOOLS, dim=11, limits=limits)
    stage, found = shipped(next(passes)), None
    while found is None:
        state = stage.start()
        for split in splits:
            folded = stage.start()
            for rows in split:
                folded = stage.add(folded, rows)
            state = stage.merge(shipped(state), shipped(folded))
        try:
            stage = shipped(passes.send(shipped(state)))
        except StopIteration as end:
            found = end.value
    for direction, here in zip(found, fitted(fields | {"group": "id:."}, splits, limits).values(), strict=True):
        assert direction.status == here.status == "ok"
        np.testing.assert_array_equal(direction.vector, here.vector)


@pytest.mark.parametrize("dim", [512, 1672, 2048, 3300, 4096, 16384, 65536])
@pytest.mark.parametrize("fields", [*RIDGES, *DISCRIMINANTS[:1]], ids=lambda f: " ".join(map(str, f.values())))
def test_no_width_is_refused_and_no_pass_outgrows_its_memory(dim: int, fields: dict[str, Any]) -> None:
    stage = next(fit(step(**fields), BOOLS, dim=dim))
    assert isinstance(stage, RowSetPass) and stage.set_bytes <= MAX_BYTES == row_sets.MAX_BYTES


# ------------------------------------------------------------------------------------------------- real widths


def planted(n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    y = np.arange(n) % 2 == 0
    latents = rng.standard_normal((n, d), np.float32)
    latents[y, :50] += 0.8
    return latents, y


def least_ridge(latents: np.ndarray, y: np.ndarray, l2: float) -> np.ndarray:
    """Ridge by its n × n form: no d × d matrix."""
    x = latents.astype(np.float64) - latents.mean(0, dtype=np.float64)
    return x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(len(x)), y - y.mean())


@pytest.mark.slow
def test_ridge_and_lda_of_latents_too_wide_to_stay_whole() -> None:
    latents, y = planted(300, 4200)
    splits = [[batch_of(latents, {"y": y})]]
    found = fitted({"estimator": "ridge"}, splits, None, {"y": "bool"})["y"]
    l2 = float(str(found.message).split()[1].rstrip(","))
    exact = least_ridge(latents, y, l2)
    assert found.vector @ exact / np.linalg.norm(exact) > 1 - 1e-9 and found.auc > 0.8
    # LDA by Woodbury: ((1−s)/n·XᵀX + s·t·I)⁻¹ gap, X the rows less their class means.
    shrunk = fitted({"estimator": "lda", "shrinkage": 0.2}, splits, None, {"y": "bool"})["y"]
    wide = latents.astype(np.float64)
    gap = wide[y].mean(0) - wide[~y].mean(0)
    x = wide - np.where(y[:, None], wide[y].mean(0), wide[~y].mean(0))
    a, b = 0.8 / 300, 0.2 * (x**2).sum() / 300 / 4200
    exact = (gap - x.T @ np.linalg.solve(np.eye(300) * b / a + x @ x.T, x @ gap)) / b
    np.testing.assert_allclose(coefficients(shrunk), exact, rtol=0, atol=1e-6 * np.abs(exact).max())
    assert fitted({"estimator": "lda", "shrinkage": 0.0}, splits, None, {"y": "bool"})["y"].status == "too_few"


@pytest.mark.slow
def test_ridge_and_pca_of_17000_latents() -> None:
    latents, y = planted(200, 17_000)
    found = fitted({"estimator": "ridge", "l2": 2000.0}, [[batch_of(latents, {"y": y})]], None, {"y": "bool"})["y"]
    exact = least_ridge(latents, y, 2000.0)  # 200 rows span fewer directions than the sketch has
    np.testing.assert_allclose(coefficients(found), exact, rtol=0, atol=1e-6 * np.abs(exact).max())
    assert found.message is None
    rng = np.random.default_rng(8)
    latents += rng.standard_normal((200, 3)) * [8, 5, 3] @ rng.standard_normal((3, 17_000))
    components, _ = pca_of([[latent_batch(latents)]], count=3)
    x = latents.astype(np.float64) - latents.mean(0, dtype=np.float64)
    values = np.linalg.eigvalsh(x @ x.T)[::-1][:3] / 199
    np.testing.assert_allclose([c.sigma**2 for c in components.directions], values, rtol=1e-6)
