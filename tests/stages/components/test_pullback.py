"""The pullback metric against closed forms: a matrix, a sphere, an orthonormal basis, and autograd's Jacobian of a network."""

import json
import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from schemas.codec import ConvVAECodec, CustomCodec, LinearCodec, Preprocess, SphereCodec
from schemas.errors import JobError
from schemas.steps import ComponentsStep
from stages.codecs.base import Codec
from stages.codecs.factory import open_codec
from stages.codecs.sphere import Sphere
from stages.components.eigen import signed
from stages.components.found import Found
from stages.components.pullback import jacobian, local_spectra, logs, metrics, products
from stages.moments import Moments
from stages.stage import Opens
from tests.codec_cases import weights_of
from tests.labelled import reduced, uneven
from tests.planted_codec import PlantedCodec
from tests.unlabelled import latent_batch, spread_rows, vectors

SMALL = Preprocess(size=(8, 8))
SINGULAR = [5.0, 3.0, 2.0, 1.0, 0.5, 0.25]


def planted(**options: Any) -> CustomCodec:
    return CustomCodec(
        entry="tests.planted_codec:PlantedCodec", preprocess=SMALL, options={"singular": SINGULAR} | options
    )


def opening(spec: Any, device: str, **given: Any) -> Codec:
    return open_codec(spec, device=device, allow_code=True, **given)


def found_by(spec: Any, rows: np.ndarray, *, count: int, full_dim: int = 256, **fields: Any) -> Found:
    step = ComponentsStep(**{"name": "pull", "estimator": "jacobian", "count": count} | fields)
    names = [f"{step.name}.{i}" for i in range(count)]
    passes = jacobian(step, names, partial(opening, spec), dim=rows.shape[1], full_dim=full_dim)
    splits = list(uneven(latent_batch(rows), 5))
    try:
        stage = next(passes)
        while True:
            if isinstance(stage, Opens):
                stage.open("cpu")
            stage = passes.send(reduced(stage, splits))
    except StopIteration as end:
        return end.value


def values(found: Found, metric: str) -> list[float]:
    return [m.value for m in found.measurements if m.metric == metric and m.value is not None]


@pytest.mark.parametrize("full_dim", [256, 2], ids=["whole", "by products"])
def test_a_matrix_gives_its_singular_vectors(full_dim: int) -> None:
    rows = spread_rows(60, 6, offset=1.0)
    found = found_by(planted(), rows, count=4, full_dim=full_dim, passes=20)
    axes = PlantedCodec(planted(), device="cpu").axes
    np.testing.assert_allclose(vectors(found.directions), signed(axes[:4]), atol=1e-9)
    np.testing.assert_allclose(values(found, "pullback"), np.square(SINGULAR[:4]), rtol=1e-10)
    # By products of a few columns the trace is not known: no number, and no share of it.
    total = [np.square(SINGULAR).sum()] if full_dim == 256 else []
    np.testing.assert_allclose(values(found, "total_pullback"), total, rtol=1e-10)
    shares = np.square(SINGULAR[:4]) / total[0] if total else []
    np.testing.assert_allclose(values(found, "pullback_ratio"), shares, rtol=1e-10)
    # Every row has the same Jacobian, so single rows have that spectrum too.
    np.testing.assert_allclose(values(found, "local_pullback"), np.square(SINGULAR[:4]), rtol=1e-8)
    for direction in found.directions:
        assert direction.sigma == pytest.approx((rows.astype(np.float64) @ direction.vector).std(ddof=1), rel=1e-9)


def test_the_linear_codec_stretches_nothing() -> None:
    found = found_by(LinearCodec(dim=5, preprocess=SMALL), spread_rows(20, 5), count=5)
    np.testing.assert_allclose(values(found, "pullback"), 1, atol=1e-7)  # its rows are orthonormal to 1e-8


def test_the_sphere_stretches_as_its_chart_does() -> None:
    spec = SphereCodec(dim=3, preprocess=Preprocess(size=(16, 16)))
    rows = spread_rows(40, 3)
    codec = Sphere(spec)
    stretch = (2 * codec.radius / (1 + np.square(rows.astype(np.float64)).sum(1))) ** 2
    found = found_by(spec, rows, count=3)
    np.testing.assert_allclose(values(found, "pullback"), stretch.mean(), rtol=1e-6)
    np.testing.assert_allclose(values(found, "local_pullback"), math.exp(np.log(stretch).mean()), rtol=1e-6)
    told = {m.status for m in found.measurements if m.metric == "pullback"}
    assert told == {"ok"} or told == {"unresolved"} or told == {"ok", "unresolved"}


def test_a_network_equals_autograds_jacobian() -> None:
    spec = ConvVAECodec(weights="somewhere", preprocess=Preprocess(size=(16, 16)))
    codec = open_codec(spec, weights_of())
    z = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def decode(latents: torch.Tensor) -> torch.Tensor:
        return codec.decode_float(latents).flatten(1)

    found = metrics(decode, z)
    columns = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pulled = products(decode, z, columns)
    for i in range(3):
        exact = torch.autograd.functional.jacobian(lambda row: decode(row[None])[0], z[i]).double()
        scale = (exact.T @ exact).abs().max()
        assert (found[i] - exact.T @ exact).abs().max() < 1e-5 * scale
        assert (pulled[i] - exact.T @ exact @ columns[0]).abs().max() < 1e-4 * scale


@pytest.mark.parametrize("full_dim", [256, 2], ids=["whole", "by products"])
def test_rows_that_decode_to_nothing_are_counted(full_dim: int) -> None:
    rows = spread_rows(50, 6)
    rows[4] = np.nan
    limit = float(np.nanquantile(rows[:, 0], 0.9))
    found = found_by(planted(broken=limit), rows, count=2, full_dim=full_dim, passes=20)
    broken = int((rows[:, 0] > limit).sum())
    assert broken == 5
    assert {(d.n, d.non_finite) for d in found.directions} == {(44, 6)}
    np.testing.assert_allclose(values(found, "pullback"), np.square(SINGULAR[:2]), rtol=1e-9)


def test_a_codec_without_derivatives_is_refused() -> None:
    spec = CustomCodec(entry="tests.codec_cases:StubbornCodec", preprocess=SMALL)
    with pytest.raises(JobError, match="gradient"):
        found_by(spec, spread_rows(5, 2), count=1)


def test_what_is_rounding_beside_the_largest_eigenvalue_counts_as_that_and_no_less() -> None:
    """A decoder deaf along some axes leaves eigenvalues of 0, of 1e-19 or of −1e-17 there: one logarithm for all."""
    found = logs(np.array([[4.0, 1e-3, 1e-19], [4.0, 0.0, -1e-17]]))
    np.testing.assert_allclose(found, np.log([[4.0, 1e-3, 4e-12], [4.0, 4e-12, 4e-12]]))


def test_the_interval_of_local_spectra_is_that_of_their_mean_logarithm() -> None:
    """Of rows whose eigenvalues differ: exp(mean ± 1.96·s/√n)."""
    logged = np.random.default_rng(0).normal(1, 0.5, (40, 1))
    (told,) = [m for m in local_spectra(Moments.of(logged, full=False)) if m.metric == "local_pullback"]
    reach = 1.96 * logged.std(ddof=1) / np.sqrt(40)
    np.testing.assert_allclose((told.low, told.high), np.exp(logged.mean() + np.array([-1, 1]) * reach), rtol=1e-6)


def test_two_thirds_of_the_rows_lie_within_a_deviation_of_the_logarithm() -> None:
    logarithms = np.random.default_rng(0).normal(1, 0.5, size=(60, 1))
    (told,) = local_spectra(Moments.of(logarithms, full=False))
    ends = np.exp(logarithms.mean() + np.array([-1, 1]) * logarithms.std(ddof=1))
    assert list(json.loads(told.detail).values()) == pytest.approx(ends.tolist())


def test_one_row_has_a_spectrum_and_no_interval() -> None:
    (told,) = [m for m in found_by(planted(), spread_rows(1, 6), count=1).measurements if m.metric == "local_pullback"]
    assert told.value == pytest.approx(25) and (told.low, told.high, told.n) == (None, None, 1)


def test_no_rows_have_no_metric() -> None:
    found = found_by(planted(), np.full((3, 6), np.nan), count=2)
    assert [d.status for d in found.directions] == ["no_rows"] * 2
