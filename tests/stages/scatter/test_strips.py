"""A matrix in strips is that matrix: its products, its parts together, its solutions at several shifts, and where there are none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.components.over_latents import OverLatents
from stages.scatter.sketched import Frame, Sketched
from stages.scatter.spilled import Spilled
from stages.scatter.strips import Strips, cuts, in_strips, together
from stages.scatter.whole import Whole
from tests.labelled import carried
from tests.unlabelled import latent_batch, spread_rows


def strips_of(matrix: np.ndarray, block_values: int = 60) -> Strips:
    return Strips(tuple(Spilled.of(a, matrix[a:b, a:]) for a, b in cuts(len(matrix), block_values)))


def test_products_and_norm_are_the_matrixs() -> None:
    rng = np.random.default_rng(0)
    half = rng.standard_normal((30, 23))
    matrix = half.T @ half
    strips = strips_of(matrix)
    assert len(strips.strips) > 5 and strips.dim == 23
    np.testing.assert_array_equal(strips.dense(), matrix)
    for shape in ((23,), (23, 4)):
        columns = rng.standard_normal(shape)
        np.testing.assert_allclose(strips @ columns, matrix @ columns, rtol=1e-12, atol=1e-10)
    unit = rng.uniform(0.5, 2, 23)
    squared = ((matrix / np.outer(unit, unit)) ** 2).sum()
    assert strips.squared_norm(unit) == pytest.approx(squared, rel=1e-12)
    assert Whole(matrix).squared_norm(unit) == pytest.approx(squared, rel=1e-12)


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_passes_keep_parts_about_one_centre_and_put_them_together_about_their_own(offset: float) -> None:
    rows = spread_rows(200, 17, offset=offset)
    centre = rows.astype(np.float64).mean(0)
    halves = rows[:70], rows[70:120]

    def kept(part: np.ndarray) -> Strips:
        passes = in_strips(OverLatents, lambda counted: [counted.state], centre=centre, block_values=50)
        (strips,), names = carried(passes, [[latent_batch(part)]])
        assert len(names) == len(cuts(17, 50)) == 5
        return strips

    wide = rows[:120].astype(np.float64)
    found = together([kept(half) for half in halves], n=120, shift=wide.mean(0) - centre)
    exact = np.cov(wide.T) * 119
    np.testing.assert_allclose(found.dense(), exact, rtol=0, atol=1e-10 * np.abs(exact).max())


@given(seed=st.integers(0, 2**32 - 1), decay=st.sampled_from([1.0, 0.9]))
@settings(max_examples=20)
def test_every_shift_is_solved(seed: int, decay: float) -> None:
    rng = np.random.default_rng(seed)
    half = rng.standard_normal((60, 40)) * decay ** np.arange(40)
    matrix, rhs = half.T @ half, rng.standard_normal((40, 3))
    shifts = 10.0 ** rng.uniform(-1, 4, (5, 3))
    found = strips_of(matrix).solve(rhs, shifts)
    exact = Whole(matrix).solve(rhs, shifts)
    assert found.reached.all() and exact.reached.all()
    for x, y, shift in zip(found.x, exact.x, shifts, strict=True):
        for m in range(3):
            system = matrix + shift[m] * np.eye(40)
            np.testing.assert_allclose(system @ x[:, m], rhs[:, m], atol=1e-8 * np.linalg.norm(rhs[:, m]))
            np.testing.assert_allclose(x[:, m], y[:, m], rtol=1e-6, atol=1e-7 * np.abs(y[:, m]).max())


def test_a_singular_system_gets_its_least_solution_or_none() -> None:
    rng = np.random.default_rng(1)
    half = rng.standard_normal((12, 40))
    matrix, none = half.T @ half, np.zeros((1, 2))
    rhs = np.stack([half.T @ rng.standard_normal(12), rng.standard_normal(40)], axis=1)
    found = strips_of(matrix).solve(rhs, none)
    assert found.reached.tolist() == [[True, False]]
    np.testing.assert_allclose(found.x[0, :, 0], np.linalg.pinv(matrix) @ rhs[:, 0], atol=1e-9)
    assert np.isfinite(found.x).all()


def test_nothing_to_solve_is_solved_by_nothing() -> None:
    found = strips_of(np.eye(9)).solve(np.zeros((9, 1)), np.ones((2, 1)))
    assert not found.x.any() and found.reached.all()


def test_iterations_end_and_what_was_not_reached_is_told() -> None:
    matrix, rhs = np.diag(10.0 ** np.arange(8)), np.ones((8, 1))
    found = strips_of(matrix).solve(rhs, np.array([[0.0], [1e9]]), iterations=4)
    assert found.reached.tolist() == [[False], [True]]


def test_a_sketch_is_the_matrix_on_its_basis_and_even_beyond() -> None:
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    values = np.array([50.0, 30, 20, *[4.0] * 17])  # even beyond the third: what a sketch takes any rest to be
    matrix, unit = turn * values @ turn.T, rng.uniform(0.5, 2, 20)
    basis = turn[:, :3] @ np.linalg.qr(rng.standard_normal((3, 3)))[0]
    sketch = Sketched(Frame(np.zeros(20), unit, basis), basis.T @ matrix @ basis, float(values.sum()))
    columns, shifts = rng.standard_normal((20, 2)), np.array([[1.0, 2.0], [0.0, 9.0]])
    np.testing.assert_allclose(sketch @ columns, unit[:, None] * (matrix @ (unit[:, None] * columns)), atol=1e-9)
    np.testing.assert_allclose(sketch @ columns[:, 0], (sketch @ columns)[:, 0], atol=1e-12)
    np.testing.assert_allclose(sketch.solve(columns, shifts).x, Whole(matrix).solve(columns, shifts).x, atol=1e-10)
    assert sketch.squared_norm(unit) == pytest.approx((matrix**2).sum(), rel=1e-12)
    assert sketch.note == " on a sketch of 3 directions with 59.5 % of the variance"
    flat = Sketched(sketch.frame, sketch.inside, float(np.trace(sketch.inside)))
    assert flat.rest == 0 and flat.note == ""


def test_a_matrix_may_give_its_place_to_its_spectrum() -> None:
    rng = np.random.default_rng(4)
    half = rng.standard_normal((50, 30))
    matrix, rhs, shifts = half.T @ half, rng.standard_normal((30, 2)), np.array([[0.5, 2.0]])
    kept, own = Whole(matrix), Whole(matrix.copy(), own=True)
    np.testing.assert_array_equal(own @ rhs, matrix @ rhs)
    np.testing.assert_allclose(own.solve(rhs, shifts).x, kept.solve(rhs, shifts).x, rtol=1e-10)
    for whole in (own, kept):
        np.testing.assert_allclose(whole @ rhs, half.T @ (half @ rhs), atol=1e-11)
    assert np.shares_memory(own.spectrum[1], own.matrix) and not np.shares_memory(kept.spectrum[1], kept.matrix)
    np.testing.assert_array_equal(kept.matrix, half.T @ half)
