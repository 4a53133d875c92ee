"""Composition of directions: what each of the three ways promises, and refusal of sets without full rank."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.directions.compose import Basis, Dependent, dependent_rows, lowdin, project_out

SEEDS = st.integers(0, 2**32 - 1)


def some(seed: int, k: int = 3, d: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((k, d)) * [[1.0], [20.0], [0.01], [3.0]][:k]


def set_points(basis: Basis, z: np.ndarray, targets: np.ndarray, origin: np.ndarray | float = 0.0) -> np.ndarray:
    """What a dual basis is for: the codes nearest to `z` whose scores are `targets`."""
    return z + (targets - (z - origin) @ basis.vectors.T) @ basis.dual


@given(seed=SEEDS)
@settings(max_examples=20)
def test_dual_basis_reaches_every_set_point_by_the_shortest_way(seed: int) -> None:
    rng, v = np.random.default_rng(seed), some(seed)
    z, targets, origin = rng.standard_normal((5, 7)), rng.standard_normal((5, 3)), rng.standard_normal(7)
    basis = Basis.of(v)
    np.testing.assert_allclose(basis.dual @ v.T, np.eye(3), atol=1e-9)
    moved = set_points(basis, z, targets, origin)
    np.testing.assert_allclose((moved - origin) @ v.T, targets, atol=1e-9)
    expected = z + np.linalg.lstsq(v, (targets - (z - origin) @ v.T).T, rcond=None)[0].T  # the minimum-norm solution
    np.testing.assert_allclose(moved, expected, atol=1e-6 * np.abs(expected).max())
    np.testing.assert_allclose(set_points(basis, moved, targets, origin), moved, atol=1e-8)


@given(seed=SEEDS)
@settings(max_examples=20)
def test_lowdin_is_orthonormal_nearest_and_does_not_know_the_order(seed: int) -> None:
    v = some(seed)
    unit = v / np.linalg.norm(v, axis=1)[:, None]
    made = lowdin(v)
    np.testing.assert_allclose(made @ made.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(lowdin(v[[2, 0, 1]]), made[[2, 0, 1]], atol=1e-10)
    values, vectors = np.linalg.eigh(unit @ unit.T)
    np.testing.assert_allclose(made, (vectors / np.sqrt(values)) @ vectors.T @ unit, atol=1e-6)
    turn, _ = np.linalg.qr(np.random.default_rng(seed + 1).standard_normal((3, 3)))
    assert np.linalg.norm(made - unit) <= np.linalg.norm(turn @ made - unit) + 1e-12


@given(seed=SEEDS)
@settings(max_examples=20)
def test_projection_is_the_least_squares_residual(seed: int) -> None:
    v = some(seed, k=4)
    left = project_out(v[:2], v[2:])
    fitted = np.linalg.lstsq(v[2:].T, v[:2].T, rcond=None)[0]
    np.testing.assert_allclose(left, v[:2] - fitted.T @ v[2:], atol=1e-8)
    cosines = left @ v[2:].T / np.linalg.norm(left, axis=1)[:, None] / np.linalg.norm(v[2:], axis=1)
    assert np.abs(cosines).max() < 1e-12


def test_dependent_directions_are_named_and_only_they() -> None:
    v = some(0, k=4)
    v = np.vstack([v, v[1] - 2 * v[3], np.zeros(7)])
    assert dependent_rows(v[:4]) == ()
    assert dependent_rows(v) == (1, 3, 4, 5)
    for refused in (Basis.of, lowdin):
        with pytest.raises(Dependent) as error:
            refused(v)
        assert error.value.rows == (1, 3, 4, 5)
    with pytest.raises(Dependent):
        project_out(v[:1], v[[1, 3, 4]])
    assert not project_out(v[4:5], v[[1, 3]]).any()


def test_more_directions_than_dimensions_are_dependent() -> None:
    assert dependent_rows(np.random.default_rng(1).standard_normal((4, 3))) == (0, 1, 2, 3)


def test_nearly_parallel_directions_still_meet_their_set_points() -> None:
    v = np.array([[1.0, 0, 0], [1.0, 1e-4, 0]])
    basis = Basis.of(v)
    assert 1e4 < basis.condition < 4e4
    moved = set_points(basis, np.zeros((1, 3)), np.array([1.0, 1.0]))
    np.testing.assert_allclose(moved, [[1, 0, 0]], atol=1e-7)
