"""GANSpace against its closed form on a linear layer, for stored latents and for draws of the prior, at any width."""

import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from schemas.codec import ConvVAECodec, LinearCodec, Preprocess
from schemas.errors import JobError
from schemas.steps import ComponentsStep
from stages.codecs.base import Codec
from stages.codecs.factory import open_codec
from stages.components.eigen import signed
from stages.components.found import Found
from stages.components.ganspace import ganspace, source_of
from stages.components.principal import Limits
from stages.row_hash import hash_ids, salted
from stages.stage import Opens
from tests.codec_cases import weights_of
from tests.labelled import reduced, uneven
from tests.unlabelled import latent_batch, spread_rows, vectors

SPEC = ConvVAECodec(weights="somewhere", preprocess=Preprocess(size=(16, 16)))
WEIGHTS = weights_of()


def opening(spec: Any, device: str) -> Codec:
    return open_codec(spec, WEIGHTS if spec is SPEC else None, device=device)


def found_by(rows: np.ndarray, *, limits: Limits | None = None, splits: int = 5, **fields: Any) -> Found:
    step = ComponentsStep(**{"name": "gan", "estimator": "ganspace", "count": 4, "layer": "stem"} | fields)
    names = [f"{step.name}.{i}" for i in range(step.count)]
    source = source_of(step, partial(opening, SPEC))
    passes = ganspace(step, names, source, dim=rows.shape[1], limits=limits or Limits())
    parts = list(uneven(latent_batch(rows), splits))
    try:
        stage = next(passes)
        while True:
            stage = pickle.loads(pickle.dumps(stage)) if not isinstance(stage, Opens) else stage
            if isinstance(stage, Opens):
                stage.open("cpu")
            stage = passes.send(reduced(stage, parts))
    except StopIteration as end:
        return end.value


def closed_form(z: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Directions and activation variances for a = Wz + b: U = Σz Wᵀ V Λ⁻¹."""
    stem = open_codec(SPEC, WEIGHTS).layers.stem.weight.double().numpy()
    covariance = np.cov(z.astype(np.float64).T)
    variance, axes = np.linalg.eigh(stem @ covariance @ stem.T)
    variance, axes = variance[::-1][:count], axes[:, ::-1][:, :count]
    raw = (covariance @ stem.T @ axes / variance).T
    return signed(raw / np.linalg.norm(raw, axis=1, keepdims=True)), variance


@pytest.mark.parametrize(
    "limits", [Limits(), Limits(full=4, strips=10**6, block_values=3000), Limits(full=4, strips=4)],
    ids=["full", "strips", "sketched"],
)  # fmt: skip
def test_a_linear_layer_has_a_closed_form(limits: Limits) -> None:
    rows = spread_rows(300, 6, offset=2.0)
    found = found_by(rows, limits=limits, passes=20)
    exact, variance = closed_form(rows, 4)
    # The network computes in float32.
    np.testing.assert_allclose(vectors(found.directions), exact, atol=2e-4)
    told = [m.value for m in found.measurements if m.metric == "activation_variance"]
    np.testing.assert_allclose(told, variance, rtol=1e-5)
    for direction in found.directions:
        assert direction.sigma == pytest.approx((rows.astype(np.float64) @ direction.vector).std(ddof=1), rel=1e-9)
        np.testing.assert_allclose(direction.mean, rows.astype(np.float64).mean(0), rtol=1e-9)
    (r2,) = [m.value for m in found.measurements if m.metric == "latent_r2"]
    assert r2 is not None and 0.5 < r2 <= 1


def test_all_components_of_a_linear_layer_explain_the_latents() -> None:
    found = found_by(spread_rows(200, 6), count=6)
    (r2,) = [m.value for m in found.measurements if m.metric == "latent_r2"]
    assert r2 == pytest.approx(1, abs=1e-5)


def test_prior_draws_follow_from_ids_alone() -> None:
    rows = spread_rows(200, 6, offset=9.0)
    one, other = found_by(rows, latents="prior", splits=1), found_by(rows, latents="prior", splits=2)
    np.testing.assert_allclose(vectors(one.directions), vectors(other.directions), atol=1e-9)
    ids = latent_batch(rows).column("id")
    draws = open_codec(SPEC, WEIGHTS).sample_prior(salted(hash_ids(ids), "gan:0"))
    assert draws is not None
    np.testing.assert_allclose(vectors(one.directions), closed_form(draws.numpy(), 4)[0], atol=2e-4)
    # σ and mean are the data's: strengths mean the same for every direction of a dataset.
    vector = one.directions[0].vector
    assert one.directions[0].sigma == pytest.approx((rows.astype(np.float64) @ vector).std(ddof=1), rel=1e-9)
    seeded = found_by(rows, latents="prior", seed=1)
    assert not np.allclose(vectors(seeded.directions), vectors(one.directions), atol=1e-3)


def test_a_draw_stays_with_its_row_where_others_leave() -> None:
    rows = spread_rows(200, 6)
    rows[:60:2, 1] = np.nan
    draws = open_codec(SPEC, WEIGHTS).sample_prior(salted(hash_ids(latent_batch(rows).column("id")), "gan:0"))
    assert draws is not None
    kept = draws.numpy()[np.isfinite(rows).all(1)]
    np.testing.assert_allclose(vectors(found_by(rows, latents="prior").directions), closed_form(kept, 4)[0], atol=2e-4)


def test_a_hook_stays_on_no_module() -> None:
    codec = open_codec(SPEC, WEIGHTS)
    step = ComponentsStep(name="gan", estimator="ganspace", layer="decoder.1")
    source = source_of(step, lambda device: codec)
    assert source.width() == 16 * 4 * 4
    assert all(not module._forward_hooks for module in codec.layers.modules())


@pytest.mark.parametrize(
    ("fields", "words"),
    [({"layer": "decodr.1"}, "no such layer"), ({"layer": "encoder.0"}, "does not go through")],
)
def test_wrong_layers_are_refused(fields: dict[str, str], words: str) -> None:
    step = ComponentsStep(name="gan", estimator="ganspace", **fields)
    with pytest.raises(JobError, match=words):
        source_of(step, partial(opening, SPEC)).width()


def test_codecs_without_layers_or_prior_are_refused() -> None:
    step = ComponentsStep(name="gan", estimator="ganspace")
    with pytest.raises(JobError, match="no layers"):
        source_of(step, partial(opening, LinearCodec(dim=4, preprocess=Preprocess(size=(8, 8))))).width()
    step = step.model_copy(update={"latents": "prior"})
    plain = open_codec(SPEC.model_copy(), weights_of(variant="ae"))
    with pytest.raises(JobError, match="no prior"):
        source_of(step, lambda device: plain).width()


def test_rows_that_are_not_finite_leave() -> None:
    rows = spread_rows(100, 6)
    rows[7, 0] = np.nan
    found = found_by(rows)
    assert {(d.n, d.non_finite) for d in found.directions} == {(99, 1)}
    assert torch.isfinite(torch.tensor(vectors(found.directions))).all()
