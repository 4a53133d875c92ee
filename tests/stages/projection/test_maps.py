"""Maps keep planted groups apart, are the same on every run, and their trustworthiness is scikit-learn's."""

import numpy as np
import pyarrow as pa
import pytest
from sklearn.manifold import trustworthiness

from schemas.tables import is_computed
from stages.projection.columns import Positions, column_names, position_fields
from stages.projection.maps import MapSettings, mapped, missing_package, trust
from tests.unlabelled import latent_batch

SETTINGS = MapSettings(neighbours=10, perplexity=15.0, seed=0)


def clusters(n: int = 120, d: int = 8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    group = np.arange(n) % 3
    return rng.standard_normal((n, d)) + 12 * np.eye(3, d)[group], group


def separate(positions: np.ndarray, group: np.ndarray) -> bool:
    """Whether every row lies nearer to its own group's middle than to the others'."""
    middles = np.array([positions[group == g].mean(0) for g in range(3)])
    return bool((np.linalg.norm(positions[:, None] - middles, axis=2).argmin(1) == group).all())


@pytest.mark.parametrize("method", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_groups_stay_apart_and_maps_repeat(method: str) -> None:
    rows, group = clusters()
    scores = rows - rows.mean(0)
    scores = scores @ np.linalg.svd(scores, full_matrices=False)[2].T
    found = mapped(method, scores, SETTINGS)
    assert found.shape == (120, 2) and np.isfinite(found).all()
    assert separate(found, group)
    np.testing.assert_array_equal(found, mapped(method, scores, SETTINGS))
    assert 0.8 < trust(rows, found, SETTINGS) <= 1


def test_trust_is_one_for_the_thing_itself_and_about_a_half_for_noise() -> None:
    rng = np.random.default_rng(1)
    plane = rng.standard_normal((300, 2))
    assert trust(plane, plane * 3, SETTINGS) == 1
    noise = rng.standard_normal((300, 2))
    assert trust(plane, noise, SETTINGS) == pytest.approx(trustworthiness(plane, noise, n_neighbors=10))
    assert 0.4 < trust(plane, noise, SETTINGS) < 0.6


@pytest.mark.parametrize("method", ["pca", "tsne", pytest.param("umap", marks=pytest.mark.slow)])
def test_few_rows_lower_the_neighbourhood(method: str) -> None:
    rows, _ = clusters(10)
    found = mapped(method, rows, MapSettings(neighbours=200, perplexity=500.0, seed=0))
    assert np.isfinite(found).all()
    assert 0 <= trust(rows, found, MapSettings(neighbours=200, perplexity=30.0, seed=0)) <= 1


def test_packages_are_there_and_pca_needs_none() -> None:
    assert [missing_package(m) for m in ("pca", "umap", "tsne")] == [None] * 3


def test_columns_hold_nulls_where_there_is_no_position() -> None:
    rows, _ = clusters(6, 4)
    rows[2, 1] = np.nan
    batch = latent_batch(rows, ids=list("abcdef"))
    axes = np.eye(2, 4)
    maps = {"umap": np.array([[1.0, 2.0], [3.0, 4.0]])}
    positions = Positions("here", np.ones(4), axes, ("e", "b"), maps)
    found = positions(batch)
    fields = position_fields("here", ("pca", "umap"))
    assert all(is_computed(f) and f.nullable and f.type == pa.float32() for f in fields)
    assert found.schema.names == [f.name for f in fields]
    assert found.column("here_umap_1").to_pylist() == [None, 3, None, None, 1, None]
    assert found.column("here_umap_2").to_pylist() == [None, 4, None, None, 2, None]
    exact = rows.astype(np.float32)[:, 0].astype(np.float64) - 1
    told = found.column(column_names("here", "pca")[0]).to_pylist()
    assert told[2] is None
    np.testing.assert_allclose([v for v in told if v is not None], np.delete(exact, 2), rtol=1e-6)
    assert positions(batch.slice(0, 0)).num_rows == 0
