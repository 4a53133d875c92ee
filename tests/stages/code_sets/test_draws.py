"""Analogies, walks and samples: formulas, distributions that are kept or lost as promised, and draws that no batch changes."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from scipy import stats

from schemas.batches import codes_schema
from schemas.codec import ConvVAECodec, LatentSpec, Preprocess
from schemas.errors import JobError
from schemas.identity import row_seed
from schemas.steps import AnalogyStep, SampleStep, TrustRegion, WalkStep
from stages.code_sets.analogy import Analogy, analogy, analogy_method
from stages.code_sets.draw import Draw
from stages.code_sets.gaussian import Gaussian
from stages.code_sets.mixture import Mixture, fit_mixture
from stages.code_sets.noise import draw_name, normal_rows, streams
from stages.code_sets.pairing import random_triples
from stages.code_sets.parents import parents_batch, parents_schema
from stages.code_sets.spread import CoordinateSpread, LatentSample, coordinate_moments
from stages.code_sets.trust import Shell, Trust, typicality
from stages.code_sets.walk import Walk, pcn_step
from stages.codecs.factory import open_codec
from stages.columns import column_of, matrix_of
from stages.moments import Moments
from tests.codec_cases import weights_of

D = 8
PLAIN = LatentSpec(shape=(D,), space="z")
NORMAL = LatentSpec(shape=(D,), space="z", prior="standard_normal", centred_shell=True)
RNG = np.random.default_rng(0)
ROOT = np.linalg.qr(RNG.standard_normal((D, D)))[0] * np.linspace(0.5, 3, D)
DATA = (RNG.standard_normal((3000, D)) @ ROOT.T + np.arange(D)).astype(np.float32)
GAUSSIAN = Gaussian.of(Moments.of(DATA, full=True), at="sample.where")
COVARIANCE = np.cov(DATA.T.astype(np.float64))


def rows(parents: np.ndarray, spec: LatentSpec, *, start: int = 0) -> pa.RecordBatch:
    """parents (n, count, d)"""
    schema = parents_schema(spec, parents.shape[1])
    numbers = range(start, start + len(parents))
    ids = [[f"i{k}.{p}" for p in range(parents.shape[1])] for k in numbers]
    return parents_batch(
        numbers, ids, [column_of(parents[:, p], schema.field(f"latent_{p}")) for p in range(parents.shape[1])]
    )


def draws(count: int, *, start: int = 0) -> pa.RecordBatch:
    return parents_batch(range(start, start + count), [[]] * count, [])


def codes(batch: pa.RecordBatch, frames: int) -> np.ndarray:
    return (
        matrix_of(batch.column("latent")).reshape(-1, frames, batch.column("latent").type.list_size).astype(np.float64)
    )


def joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


# ------------------------------------------------------------------------------------------------------------ analogies


def test_raw_analogies_sit_as_far_off_the_shell_as_derived_and_lol_ones_on_it():
    """√(2d) = 22.6 standard deviations at d = 256 (latent-science §4)."""
    a, b, c = np.random.default_rng(1).standard_normal((3, 4000, 256))
    raw = analogy(a, b, c, np.array([1.0]), mean=None)[:, 0]
    np.testing.assert_allclose(raw, b - a + c)
    assert typicality(raw).mean() == pytest.approx(22.63, abs=0.2)
    lol = typicality(analogy(a, b, c, np.array([1.0]), mean=np.zeros(256))[:, 0])
    assert lol.mean() == pytest.approx(0, abs=0.1) and lol.std() == pytest.approx(1, abs=0.05)


def test_lol_keeps_any_gaussian_and_begins_at_c():
    a, b, c = DATA[:1000].astype(float), DATA[1000:2000].astype(float), DATA[2000:].astype(float)
    made = analogy(a, b, c, np.array([0.0, 0.7]), mean=GAUSSIAN.mean)
    np.testing.assert_allclose(made[:, 0], c, atol=1e-12)
    off = Gaussian.of(Moments.of(made[:, 1], full=True), at="t")
    np.testing.assert_allclose(off.mean, GAUSSIAN.mean, atol=0.4)
    np.testing.assert_allclose(off.root @ off.root, COVARIANCE, atol=0.12 * np.abs(COVARIANCE).max())


def test_an_analogy_names_its_parents_flags_and_survives_bad_rows():
    parents = np.random.default_rng(2).standard_normal((4, 3, D)).astype(np.float32) * 2
    parents[1, 2, 0] = np.inf
    stage = Analogy(AnalogyStep(name="like", method="raw", strengths=(0, 1)), NORMAL)
    batch = stage(rows(parents, NORMAL))
    assert batch.schema.equals(codes_schema(NORMAL), check_metadata=True)
    assert batch.column("parents")[0].as_py() == ["i0.0", "i0.1", "i0.2"]
    flags = batch.column("flags").to_pylist()
    assert flags[2] == flags[3] == ["nan_input"] and batch.column("latent").null_count == 2
    far = np.abs(typicality(codes(batch, 2))) > 3
    assert [f == ["atypical"] for f in flags[4:]] == far[2:].reshape(-1).tolist() and far[2:].any()
    whole, split = batch, joined([stage(rows(parents[:1], NORMAL)), stage(rows(parents[1:], NORMAL, start=1))])
    assert split.column("latent").equals(whole.column("latent"))


def test_auto_follows_the_declared_space():
    assert analogy_method(AnalogyStep(), NORMAL) == "lol" and analogy_method(AnalogyStep(), PLAIN) == "raw"
    with pytest.raises(ValidationError):
        AnalogyStep(triples=())


@pytest.mark.parametrize(("images", "expected"), [(2, 0), (3, 5), (30, 5)])
def test_random_triples_are_of_three_images_and_do_not_depend_on_order(images, expected):
    ids = [f"i{k}" for k in range(images)]
    found = random_triples(iter(ids), count=5, seed=3)
    assert len(found) == len(set(found)) == expected and all(len(set(t)) == 3 for t in found)
    assert found == random_triples(reversed(ids), count=5, seed=3)
    if images == 30:
        assert len({i for t in found for i in t}) == 15


# ------------------------------------------------------------------------------------------------------------ walks


def test_pcn_keeps_the_normal_exactly_and_plain_steps_drift_as_derived():
    n, d, steps, beta = 4000, 4, 60, 0.4
    noise = np.random.default_rng(4)
    z = plain = noise.standard_normal((n, d))
    start, standard = z, Gaussian.standard(d)
    for _ in range(steps):
        z = pcn_step(z, noise.standard_normal((n, d)), size=beta, gaussian=standard)
        plain = plain + beta * noise.standard_normal((n, d))
    assert min(stats.kstest(z[:, j], "norm").pvalue for j in range(d)) > 0.01 / d
    np.testing.assert_allclose(np.cov(z.T), np.eye(d), atol=0.08)
    assert stats.kstest((z**2).sum(1), "chi2", args=(d,)).pvalue > 0.01
    # It has moved on: what is left of the start is √(1−β²)^k of it.
    assert abs(np.corrcoef(start[:, 0], z[:, 0])[0, 1]) < 0.06
    assert (plain**2).sum(1).mean() == pytest.approx(d * (1 + steps * beta**2), rel=0.05)
    assert stats.kstest(plain[:, 0], "norm").pvalue < 1e-20


def test_pcn_keeps_the_datas_gaussian():
    z = DATA.astype(np.float64)
    noise = np.random.default_rng(5)
    for _ in range(20):
        z = pcn_step(z, noise.standard_normal(z.shape), size=0.5, gaussian=GAUSSIAN)
    np.testing.assert_allclose(z.mean(0), GAUSSIAN.mean, atol=0.25)
    np.testing.assert_allclose(np.cov(z.T), COVARIANCE, atol=0.1 * np.abs(COVARIANCE).max())


@pytest.mark.parametrize("start", ["rows", "prior"])
@pytest.mark.parametrize("method", ["pcn", "isotropic"])
def test_a_walk_depends_on_its_row_alone_and_a_longer_one_begins_alike(start, method):
    def walk(frames: int, seed: int = 0) -> Walk:
        step = WalkStep(name="stroll", start=start, method=method, frames=frames, every=2, seed=seed)
        return Walk(step, NORMAL, gaussian=GAUSSIAN)

    z = DATA[:9, None]

    def given(a: int, b: int) -> pa.RecordBatch:
        return rows(z[a:b], NORMAL, start=a) if start == "rows" else draws(b - a, start=a)

    whole = walk(4)(given(0, 9))
    assert whole.schema.equals(codes_schema(NORMAL), check_metadata=True)
    assert joined([walk(4)(given(0, 1)), walk(4)(given(1, 9))]).equals(whole)
    assert whole.column("strength").to_pylist()[:4] == [0, 2, 4, 6] and set(whole.column("unit").to_pylist()) == {
        "step"
    }
    np.testing.assert_array_equal(codes(walk(7)(given(0, 9)), 7)[:, :4], codes(whole, 4))
    if start == "rows":
        np.testing.assert_array_equal(codes(whole, 4)[:, 0], z[:, 0])
    else:
        assert whole.column("parents").to_pylist() == [[]] * 36 and len(set(whole.column("strip").to_pylist())) == 9
    assert not np.array_equal(codes(walk(4, seed=1)(given(0, 9)), 4)[:, 1], codes(whole, 4)[:, 1])


def test_a_walks_steps_are_the_formulas_and_every_counts_them():
    z = DATA[:5, None]
    step = WalkStep(name="w", size=0.3, frames=3, every=2)
    made = codes(Walk(step, PLAIN, gaussian=GAUSSIAN)(rows(z, PLAIN)), 3)
    noise = streams([f"i{k}.0" for k in range(5)], step="w", seed=0)
    at = z[:, 0].astype(np.float64)
    for frame in (1, 2):
        for _ in range(2):
            at = pcn_step(at, normal_rows(noise, D), size=0.3, gaussian=GAUSSIAN)
        np.testing.assert_allclose(made[:, frame], at, atol=1e-5)


def test_specs_that_make_no_sense_are_refused():
    for fields in (
        {"size": 1.5},
        {"start": "prior", "where": "id = 'a'"},
        {"start": "prior", "limit": 3},
        {"trust": {"by": "typicality"}},
    ):
        with pytest.raises(ValidationError):
            WalkStep.model_validate(fields)
    with pytest.raises(ValidationError, match="outside: flag"):
        SampleStep(trust=TrustRegion())
    assert WalkStep(size=1.5, method="isotropic").size == 1.5


# ------------------------------------------------------------------------------------------------------------ samples


def sample(mixture: Mixture, n: int, *, spec: LatentSpec = PLAIN, trust=None, **step) -> np.ndarray:
    stage = Draw(SampleStep(name="s", **step), spec, source=mixture, centre=GAUSSIAN.mean, trust=trust)
    return codes(stage(draws(n)), stage.frames)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_gaussians_draws_have_its_mean_and_covariance_scaled_by_the_temperature(temperature):
    z = sample(Mixture.of(GAUSSIAN), 5000, temperature=temperature)[:, 0]
    np.testing.assert_allclose(z.mean(0), GAUSSIAN.mean, atol=0.15)
    np.testing.assert_allclose(np.cov(z.T), temperature**2 * COVARIANCE, atol=0.08 * np.abs(COVARIANCE).max())


def test_truncation_pulls_towards_the_mean_and_one_is_the_draw():
    z = sample(Mixture.of(GAUSSIAN), 40, truncation=(0.0, 0.5, 1.0))
    np.testing.assert_allclose(z[:, 0], np.tile(GAUSSIAN.mean, (40, 1)), atol=1e-5)
    np.testing.assert_allclose(z[:, 1], (z[:, 2] + GAUSSIAN.mean) / 2, atol=1e-5)
    np.testing.assert_array_equal(z[:, 2], sample(Mixture.of(GAUSSIAN), 40)[:, 0])


def test_draws_are_named_seeded_and_the_same_in_any_batch():
    stage = Draw(SampleStep(name="s", count=30), PLAIN, source=Mixture.of(GAUSSIAN), centre=GAUSSIAN.mean)
    whole = stage(draws(30))
    assert joined([stage(draws(7)), stage(draws(1, start=7)), stage(draws(22, start=8))]).equals(whole)
    assert len(set(whole.column("id").to_pylist())) == 30 and whole.column("parents").null_count == 0
    other = Draw(SampleStep(name="s", seed=1), PLAIN, source=Mixture.of(GAUSSIAN), centre=GAUSSIAN.mean)(draws(30))
    assert not other.column("latent").equals(whole.column("latent"))


def test_the_priors_draws_are_standard_normal_and_atypical_ones_are_flagged():
    standard = Mixture.of(Gaussian.standard(D))
    z = sample(standard, 4000, spec=NORMAL, method="prior")[:, 0]
    assert min(stats.kstest(z[:, j], "norm").pvalue for j in range(D)) > 0.01 / D
    trust = Trust(Shell(D, 1.0), clip=False)
    hot = Draw(
        SampleStep(name="s", method="prior", temperature=2), NORMAL, source=standard, centre=np.zeros(D), trust=trust
    )
    batch = hot(draws(200))
    expected = np.abs(typicality(codes(batch, 1)[:, 0])) > 1
    assert [f == ["atypical"] for f in batch.column("flags").to_pylist()] == expected.tolist() and expected.sum() > 100


def test_a_codec_that_samples_its_prior_makes_the_draws_and_each_follows_from_its_own_seed():
    codec = open_codec(
        ConvVAECodec(family="conv_vae", weights="w", preprocess=Preprocess(size=16)), weights_of(variant="vae")
    )
    step = SampleStep(name="s", method="prior", temperature=0.5, seed=3)
    zero, standard = np.zeros(codec.latent.dim), Mixture.of(Gaussian.standard(codec.latent.dim))
    stage = Draw(step, codec.latent, source=standard, centre=zero)
    whole = stage(draws(40), codec)
    assert joined([stage(draws(3), codec), stage(draws(37, start=3), codec)]).equals(whole)
    seeds = np.array([row_seed(draw_name(k), "s", 3) for k in range(40)], np.uint64)
    expected = 0.5 * codec.sample_prior(seeds).numpy()
    np.testing.assert_array_equal(codes(whole, 1)[:, 0], expected.astype(np.float64))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_a_mixture_finds_planted_clusters_whatever_their_scale(covariance):
    means = np.array([[-4.0, 0, 0], [4, 0, 0], [0, 6, 0]]) * 1000 + 7
    which = np.repeat([0, 1, 2], [600, 300, 100])
    data = means[which] + 1000 * np.random.default_rng(6).standard_normal((1000, 3)) * [1, 0.5, 0.2]
    fitted = fit_mixture(data.astype(np.float32), components=3, covariance=covariance, seed=0, at="sample")
    assert fitted.converged and fitted.rows == 1000
    order = np.argsort(-fitted.mixture.weights)
    np.testing.assert_allclose(fitted.mixture.weights[order], [0.6, 0.3, 0.1], atol=0.02)
    np.testing.assert_allclose([fitted.mixture.components[i].mean for i in order], means, atol=150)
    spec = LatentSpec(shape=(3,), space="z")
    stage = Draw(SampleStep(name="g", method="gmm"), spec, source=fitted.mixture, centre=np.zeros(3))
    z = codes(stage(draws(3000)), 1)[:, 0]
    nearest = np.linalg.norm(z[:, None] - means, axis=2).argmin(1)
    np.testing.assert_allclose(np.bincount(nearest) / 3000, [0.6, 0.3, 0.1], atol=0.03)
    np.testing.assert_allclose(z[nearest == 0].std(0), [1000, 500, 200], rtol=0.1)
    density = np.zeros(1000)
    for weight, part in zip(fitted.mixture.weights, fitted.mixture.components, strict=True):
        root = np.diag(part.root) if part.root.ndim == 1 else part.root
        density += weight * stats.multivariate_normal(part.mean, root @ root).pdf(data)
    assert fitted.log_density == pytest.approx(np.log(density).mean(), abs=1e-4), "in the data's own units"


def test_a_mixture_of_too_few_or_equal_rows_is_refused_and_slow_em_is_said():
    with pytest.raises(JobError, match="use fewer components"):
        fit_mixture(DATA[:4], components=8, covariance="full", seed=0, at="sample")
    with pytest.raises(JobError, match="all the same"):
        fit_mixture(np.ones((40, D), np.float32), components=2, covariance="full", seed=0, at="sample")
    assert not fit_mixture(DATA[:400], components=40, covariance="diagonal", seed=0, at="s", rounds=1).converged


@pytest.mark.parametrize("full", [True, False])
def test_mean_and_spread_are_those_of_the_rows_with_finite_latents(full):
    """A null row's memory holds anything: it must not be read as a latent."""
    z, present = DATA[:200].copy(), np.arange(200) != 7
    z[7], z[9, 2] = 1e6, np.nan
    field = parents_schema(PLAIN, 1).field("latent_0")
    batch = pa.RecordBatch.from_arrays([column_of(z, field, valid=present)], names=["latent"])
    stage = CoordinateSpread(D, full=full)
    parts = [stage.add(stage.start(), batch.slice(a, b)) for a, b in ((0, 50), (50, 150))]
    found, kept = stage.merge(*parts), np.delete(z, [7, 9], axis=0).astype(np.float64)
    moments = coordinate_moments(found)
    np.testing.assert_allclose(moments.mean, kept.mean(0), rtol=1e-10)
    np.testing.assert_allclose(moments.std, kept.std(0, ddof=1), rtol=1e-10)


def test_the_sample_behind_a_mixture_depends_on_the_ids_alone():
    stage = LatentSample(D, 50)
    ids = np.array([f"i{k}" for k in range(300)])
    z = DATA[:300].copy()
    z[5, 3] = np.nan
    field = parents_schema(PLAIN, 1).field("latent_0")

    def fold(order: np.ndarray, cuts: int) -> np.ndarray:
        states = []
        for part in np.array_split(order, cuts):
            batch = pa.RecordBatch.from_arrays([pa.array(ids[part]), column_of(z[part], field)], names=["id", "latent"])
            states.append(stage.add(stage.start(), batch))
        state = states[0]
        for other in states[1:]:
            state = stage.merge(state, other)
        assert state.non_finite == 1
        return state.sample.rows().latents

    whole = fold(np.arange(300), 1)
    assert whole.shape == (50, D) and np.isfinite(whole).all()
    np.testing.assert_array_equal(whole, fold(np.random.default_rng(0).permutation(300), 7))
