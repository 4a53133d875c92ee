"""Trust regions: codes end where the region ends, whatever the step's length, and rows outside go no further out."""

import numpy as np
import pytest

from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.steps import TraverseStep, TrustRegion
from stages.code_sets.axes import Direction
from stages.code_sets.gaussian import Gaussian
from stages.code_sets.parents import parents_batch, parents_schema
from stages.code_sets.traverse import Traverse
from stages.code_sets.trust import Neighbourhood, Shell, Trust, ellipsoid, shell, typicality
from stages.columns import column_of, matrix_of
from stages.moments import Moments

D = 16
RNG = np.random.default_rng(0)
DATA = (RNG.standard_normal((400, D)) @ RNG.standard_normal((D, D)) + 3).astype(np.float32)
MOMENTS = Moments.of(DATA, full=True)


def mahalanobis(limit: float = 3.0) -> Trust:
    gaussian = Gaussian.of(MOMENTS, at="edit.where")
    return Trust(ellipsoid(gaussian, TrustRegion(limit=limit), at="edit"), clip=True)


def squared_distance(z: np.ndarray) -> np.ndarray:
    """D² by the textbook, from NumPy's own covariance."""
    off = z - DATA.mean(0, dtype=np.float64)
    return np.einsum("...i,ij,...j->...", off, np.linalg.inv(np.cov(DATA.T.astype(np.float64))), off)


def random_steps(n: int, length: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 3, D)) * length


def test_typicality_is_the_shells_distance_in_standard_deviations():
    z = np.random.default_rng(2).standard_normal((20_000, 64))
    t = typicality(z)
    assert abs(t.mean()) < 0.03 and abs(t.std() - 1) < 0.03
    assert typicality(np.zeros((1, 256)))[0] == pytest.approx(-np.sqrt(128)), (
        "the origin is 11.3 deviations of ‖z‖² inside"
    )


@pytest.mark.parametrize("length", [0.7, 1.0, 1e200])
def test_a_step_is_shortened_to_the_shells_edge_and_no_further(length):
    z = np.random.default_rng(3).standard_normal((200, D))
    z *= np.sqrt(D) / np.linalg.norm(z, axis=1, keepdims=True)  # on the shell
    codes = z[:, None] + random_steps(200, length)
    held, marks = Trust(Shell(D, 2.0), clip=True).hold(z, codes)
    clipped = marks["clipped"]
    assert (np.abs(typicality(held)) <= 2 + 1e-9).all()
    np.testing.assert_allclose(np.abs(typicality(held[clipped])), 2, atol=1e-9)
    np.testing.assert_array_equal(held[~clipped], codes[~clipped])
    assert clipped.all() if length > 100 else 0 < clipped.sum() < clipped.size
    assert {-1, 1} >= set(
        np.sign(typicality(held[clipped]))
    )  # both edges count: outward, and inward at the first crossing
    moved, wanted = (held - z[:, None])[clipped], (codes - z[:, None])[clipped]
    unit = wanted / np.abs(wanted).max(1, keepdims=True)
    cosine = (moved * unit).sum(1) / np.linalg.norm(moved, axis=1) / np.linalg.norm(unit, axis=1)
    np.testing.assert_allclose(cosine, 1, atol=1e-9)


def test_inward_steps_stop_where_they_first_leave():
    z = np.full((1, D), 1.0)
    held, marks = Trust(Shell(D, 1.0), clip=True).hold(z, -z[:, None])
    assert marks["clipped"].all()  # −z is as typical as z, but the way there leads through the origin
    assert typicality(held)[0, 0] == pytest.approx(-1.0)


def test_a_row_outside_may_come_back_but_goes_no_further_out():
    z = np.full((2, D), 3.0)
    codes = np.stack([z * 0.5, z * 2], axis=1)
    held, marks = Trust(Shell(D, 1.0), clip=True).hold(z, codes)
    assert marks["clipped"].tolist() == [[False, True]] * 2
    np.testing.assert_allclose(held, np.stack([z * 0.5, z], axis=1))


@pytest.mark.parametrize("length", [1.0, 1e5])
def test_mahalanobis_holds_codes_inside_the_datas_ellipsoid(length):
    z = DATA[:50].astype(np.float64)
    codes = z[:, None] + random_steps(50, length)
    held, marks = mahalanobis().hold(z, codes)
    edge = np.maximum(D + 3 * np.sqrt(2 * D), squared_distance(z))
    assert (squared_distance(held) <= edge[:, None] * (1 + 1e-6)).all()
    rows, frames = np.nonzero(marks["clipped"])
    assert len(rows)
    np.testing.assert_allclose(squared_distance(held[rows, frames]), edge[rows], rtol=1e-6)


def test_neighbours_hold_codes_near_the_data():
    trust = Trust(Neighbourhood.of(DATA, k=5, limit=1.0, at="edit"), clip=True)
    z = DATA[:20].astype(np.float64)
    held, marks = trust.hold(z, z[:, None] + random_steps(20, 50.0))

    def fifth(codes: np.ndarray) -> np.ndarray:
        return np.sort(np.linalg.norm(codes[:, None] - DATA[None].astype(np.float64), axis=2), axis=1)[:, 4]

    own = np.sort(np.linalg.norm(DATA[:, None] - DATA[None], axis=2).astype(np.float64), axis=1)[:, 5]
    radius = np.quantile(own, 0.99)
    flat = held.reshape(-1, D)
    edge = np.repeat(np.maximum(radius, fifth(z)), 3)
    assert (fifth(flat) <= edge * (1 + 1e-5)).all()
    clipped = marks["clipped"].reshape(-1)
    assert clipped.sum() > 30
    np.testing.assert_allclose(fifth(flat[clipped]), edge[clipped], rtol=1e-3)


@pytest.mark.parametrize(("small", "singular"), [(1e-7, True), (1e-5, False)])
def test_a_direction_without_spread_beside_the_others_makes_a_covariance_singular(small: float, singular: bool):
    data = np.random.default_rng(3).standard_normal((200, 3)) * [1.0, 1.0, small]
    for full in (True, False):
        gaussian = Gaussian.of(Moments.of(data, full=full), at="e")
        assert gaussian.singular is singular and gaussian.low == pytest.approx(small**2, rel=0.5)


def test_flag_only_changes_nothing_and_names_what_is_out():
    z = DATA[:50].astype(np.float64)
    codes = z[:, None] + random_steps(50, 0.5)
    region = mahalanobis().region
    held, marks = Trust(region, clip=False).hold(z, codes)
    np.testing.assert_array_equal(held, codes)
    np.testing.assert_array_equal(marks["atypical"], squared_distance(codes) > D + 3 * np.sqrt(2 * D))
    assert 0 < marks["atypical"].sum() < marks["atypical"].size


def test_a_singular_covariance_and_a_tiny_sample_are_refused():
    flat = DATA.copy()
    flat[:, 0] = 1
    with pytest.raises(JobError, match="singular"):
        ellipsoid(Gaussian.of(Moments.of(flat, full=True), at="w"), TrustRegion(), at="edit")
    with pytest.raises(JobError, match="singular"):
        ellipsoid(Gaussian.of(Moments.of(DATA[:10], full=True), at="w"), TrustRegion(), at="edit")
    with pytest.raises(JobError, match="two rows"):
        Gaussian.of(Moments.of(DATA[:1], full=True), at="w")
    with pytest.raises(JobError, match="use a smaller k"):
        Neighbourhood.of(DATA[:5], k=5, limit=1, at="edit")
    with pytest.raises(JobError, match="coincide"):
        Neighbourhood.of(np.ones((20, D), np.float32), k=5, limit=1, at="edit")


def test_a_traversal_marks_single_frames():
    spec = LatentSpec(shape=(D,), space="z", prior="standard_normal", centred_shell=True)
    z = RNG.standard_normal((4, D)).astype(np.float32)
    z *= np.sqrt(D) / np.linalg.norm(z, axis=1, keepdims=True)
    direction = Direction("smile", np.eye(D)[0], 1.0, np.zeros(D))
    step = TraverseStep(directions=("smile",), strengths=(-1e6, 0, 1e6), trust=TrustRegion(by="typicality"))
    stage = Traverse(step, [direction], spec, trust=Trust(Shell(D, 3.0), clip=True))
    batch = stage(
        parents_batch(range(4), [[str(i)] for i in range(4)], [column_of(z, parents_schema(spec, 1).field("latent_0"))])
    )
    assert batch.column("flags").to_pylist() == [["clipped"], [], ["clipped"]] * 4
    np.testing.assert_allclose(typicality(matrix_of(batch.column("latent"))[[0, 2]].astype(float)), 3, atol=1e-4)
    assert '"trust":{' in batch.column("operation")[0].as_py()


def test_only_declared_shells_are_flagged_unasked():
    assert shell(LatentSpec(shape=(D,), space="z", prior="standard_normal")) is None
    asked = shell(LatentSpec(shape=(D,), space="z", prior="standard_normal", centred_shell=True))
    assert asked is not None and not asked.clip
