"""Draws from a normalising flow: its likelihood, where its draws lie, and that neither batch nor process changes them."""

import pickle
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.steps import SampleStep
from stages.code_sets import flow as module
from stages.code_sets.draw import Draw
from stages.code_sets.flow import CHUNK, FittedFlow, Flow, fit_flow, flow_problems
from stages.code_sets.gaussian import Gaussian
from stages.code_sets.likelihoods import likelihoods
from stages.code_sets.mixture import Mixture
from stages.columns import matrix_of
from stages.moments import Moments
from stages.row_hash import hash_ids
from tests.stages.code_sets.test_draws import draws, joined

D, RADIUS, OFFSET = 4, 30.0, 100.0
SPEC = LatentSpec(shape=(D,), space="z")


def ring(n: int) -> np.ndarray:
    """A ring in a turned plane of 4 dimensions, far from the origin."""
    rng = np.random.default_rng(1)
    angle, radius = rng.uniform(0, 2 * np.pi, n), RADIUS * (1 + 0.04 * rng.standard_normal(n))
    flat = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    z = np.concatenate([flat, 3 * rng.standard_normal((n, D - 2))], axis=1)
    return (z @ TURN.T + OFFSET).astype(np.float32)


def off_ring(z: np.ndarray) -> np.ndarray:
    """How far rows lie from the ring, as a share of its radius."""
    flat = ((z - OFFSET) @ TURN)[:, :2]
    return np.abs(np.linalg.norm(flat, axis=1) / RADIUS - 1)


TURN = np.linalg.qr(np.random.default_rng(2).standard_normal((D, D)))[0]
ROWS = ring(1500)
HASHES = hash_ids(pa.array([f"i{k}" for k in range(len(ROWS))]))


@pytest.fixture(scope="module")
def fitted() -> FittedFlow:
    return fit_flow(ROWS, HASHES, seed=3, at="sample")


def sample(source: Flow | Mixture, count: int, **step) -> np.ndarray:
    stage = Draw(SampleStep(name="s", method="flow", **step), SPEC, source=source, centre=ROWS.mean(0).astype(float))
    return matrix_of(stage(draws(count)).column("latent")).reshape(count, stage.frames, D).astype(np.float64)


def test_the_flow_beats_the_gaussian_on_rows_it_has_not_seen(fitted: FittedFlow):
    flow, gaussian, gain = likelihoods(fitted)
    assert (flow.metric, flow.subject, gaussian.subject) == ("log_likelihood", "flow", "gaussian")
    assert flow.n == gaussian.n == gain.n == 300 and fitted.rows == 1050
    assert gain.status == "ok" and gain.value == pytest.approx(flow.value - gaussian.value)
    assert gain.low is not None and gain.low > 0.3, "nats a dimension"
    # The truth: uniform on the circle, normal across it and in the other two dimensions.
    entropy = np.log(2 * np.pi * RADIUS) + 0.5 * np.log(2 * np.pi * np.e) * 3 + np.log(0.04 * RADIUS * 3 * 3)
    assert -entropy / D - 0.15 < flow.value < -entropy / D + 0.06, "no density can be higher than the true one"


def test_densities_are_in_the_datas_own_units_and_integrate_to_one(fitted: FittedFlow):
    """E_q[p/q] = 1 of a wider Gaussian q: a wrong Jacobian or scale would show."""
    rng = np.random.default_rng(5)
    mean, root = ROWS.mean(0, dtype=np.float64), 1.3 * np.linalg.cholesky(np.cov(ROWS.T.astype(np.float64)))
    noise = rng.standard_normal((20_000, D))
    log_q = -0.5 * (noise**2).sum(1) - D / 2 * np.log(2 * np.pi) - np.log(np.diag(root)).sum()
    whitening = fitted.flow.whitening
    for log_p in (
        fitted.flow.log_density(mean + noise @ root.T),
        whitening.log_density(whitening.whitened(mean + noise @ root.T)),
    ):
        assert np.exp(log_p - log_q).mean() == pytest.approx(1, abs=0.06)


def test_draws_lie_on_the_ring_where_the_gaussians_do_not(fitted: FittedFlow):
    gaussian = Mixture.of(Gaussian.of(Moments.of(ROWS, full=True), at="s"))
    on_ring = [(off_ring(sample(source, 1000)[:, 0]) < 0.15).mean() for source in (fitted.flow, gaussian)]
    assert on_ring[0] > 0.9 > 0.4 > on_ring[1]
    flat = (sample(fitted.flow, 1000)[:, 0] - OFFSET) @ TURN
    quadrants = np.bincount(2 * (flat[:, 0] > 0) + (flat[:, 1] > 0), minlength=4) / 1000
    assert quadrants.min() > 0.17, "all the way round"
    np.testing.assert_allclose(flat[:, 2:].std(0), 3, rtol=0.15)


def test_temperature_scales_the_noise_and_truncation_pulls_to_the_mean(fitted: FittedFlow):
    noise = np.random.default_rng(0).standard_normal((10, D))
    numbers, places = np.arange(10), np.zeros(10)
    half = fitted.flow.draw(numbers, places, noise, temperature=0.5)
    np.testing.assert_array_equal(half, fitted.flow.draw(numbers, places, 0.5 * noise, temperature=1))
    z, centre = sample(fitted.flow, 20, truncation=(0.0, 0.5, 1.0)), ROWS.mean(0).astype(float)
    np.testing.assert_allclose(z[:, 0], np.tile(centre, (20, 1)), rtol=1e-6)
    np.testing.assert_allclose(z[:, 1], (z[:, 2] + centre) / 2, rtol=1e-5)
    np.testing.assert_array_equal(z[:, 2], sample(fitted.flow, 20)[:, 0])


def test_draws_are_the_same_in_any_batch_and_process(fitted: FittedFlow):
    count = CHUNK + 20
    stage = Draw(SampleStep(name="s", method="flow"), SPEC, source=fitted.flow, centre=np.zeros(D))
    whole, sent = stage(draws(count)), pickle.loads(pickle.dumps(stage))
    parts = [sent(draws(7)), sent(draws(1, start=7)), sent(draws(count - 8, start=8))]
    assert joined(parts).equals(whole)
    other = Draw(SampleStep(name="s", method="flow", seed=1), SPEC, source=fitted.flow, centre=np.zeros(D))
    assert not other(draws(count)).column("latent").equals(whole.column("latent"))


def test_a_draw_has_the_same_last_bits_alone(fitted: FittedFlow):
    noise = np.random.default_rng(7).standard_normal((CHUNK, D))
    whole = fitted.flow.draw(np.arange(CHUNK), np.zeros(CHUNK), noise, temperature=1)
    for k in (0, 5, CHUNK - 1):
        alone = fitted.flow.draw(np.array([k]), np.zeros(1), noise[[k]], temperature=1)
        np.testing.assert_array_equal(alone[0], whole[k])


def test_a_fit_follows_from_its_seed_and_leaves_torch_as_it_was(monkeypatch: pytest.MonkeyPatch):
    import torch

    monkeypatch.setattr(module, "STEPS", 50)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first, again, other = (fit_flow(ROWS[:80], HASHES[:80], seed=seed, at="s") for seed in (0, 0, 1))
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    for name, weights in first.flow.weights.items():
        np.testing.assert_array_equal(weights, again.flow.weights[name])
    np.testing.assert_array_equal(first.log_density, again.log_density)
    assert first.steps > 0 and not np.array_equal(first.hashes, other.hashes)


def test_of_gaussian_rows_the_flow_says_that_it_gains_nothing():
    """In a plane of three dimensions: what never varies has no density, and would be gained without end."""
    flat = np.random.default_rng(4).standard_normal((200, 2)) * [1, 5]
    rows = (flat @ TURN[:2, :3] + 7).astype(np.float32)
    fitted = fit_flow(rows, HASHES[:200], seed=0, at="s")
    found = likelihoods(fitted)
    assert found[-1].status == "no_gain" and "method: gaussian" in found[-1].message and abs(found[-1].value) < 0.1
    assert fitted.flow.dim == 2
    z = fitted.flow.draw(np.arange(30), np.zeros(30), np.random.default_rng(0).standard_normal((30, 3)), temperature=1)
    normal = np.cross(TURN[0, :3], TURN[1, :3])
    np.testing.assert_allclose((z - 7) @ normal, 0, atol=1e-4)


def test_rows_on_a_line_get_a_flow_of_one_dimension(monkeypatch: pytest.MonkeyPatch):
    """An exponential law along a line: the Gaussian's loss is known, ½ln(2πe) − 1 nats."""
    monkeypatch.setattr(module, "STEPS", 400)
    along = np.random.default_rng(6).exponential(size=1000)
    fitted = fit_flow((along[:, None] * [2.0, 1.0]).astype(np.float32), HASHES[:1000], seed=0, at="s")
    gain = likelihoods(fitted)[-1]
    assert fitted.flow.dim == 1 and gain.status == "ok" and 0.2 < gain.value < 0.6
    noise = np.random.default_rng(0).standard_normal((2000, 2))
    z = fitted.flow.draw(np.arange(2000), np.zeros(2000), noise, temperature=1)
    np.testing.assert_allclose(z[:, 0], 2 * z[:, 1], atol=1e-5)
    assert (z[:, 1] < -0.1).mean() < 0.03 and z[:, 1].mean() == pytest.approx(1, abs=0.15)


def test_an_untrained_flow_is_the_gaussian(fitted: FittedFlow):
    untrained = replace(fitted.flow, weights=module._arrays(module._network(D, 3)), _network=None)
    rows = ROWS[:50].astype(np.float64)
    gaussian = fitted.flow.whitening.log_density(fitted.flow.whitening.whitened(rows))
    np.testing.assert_allclose(untrained.log_density(rows), gaussian, atol=1e-5)


def test_what_a_flow_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(JobError, match="a flow needs 50"):
        fit_flow(ROWS[:49], HASHES[:49], seed=0, at="sample")
    with pytest.raises(JobError, match="all the same"):
        fit_flow(np.ones((60, D), np.float32), HASHES[:60], seed=0, at="sample")
    with pytest.raises(JobError, match="flows end at 256"):
        fit_flow(np.ones((60, 257), np.float32), HASHES[:60], seed=0, at="sample")
    for field in ({"covariance": "diagonal"}, {"components": 3}, {"smoothing": 1.0}):
        with pytest.raises(ValidationError, match="no such option"):
            SampleStep(method="flow", **field)
    assert list(flow_problems(256, at="s")) == []
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    (problem,) = flow_problems(None, at="s")
    assert "zuko is not installed" in problem.reason and "pip install 'latentmill[flow]'" in problem.fix
