"""Each statistic against what is known in closed form, and the edges where textbooks go wrong."""

import json
import math
import random
from functools import reduce
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import chi, kstest, norm, wasserstein_distance

from stages.code_sets.token_priors import TokenCounts
from stages.diagnosis import aggregate, neighbours
from stages.diagnosis.codebook import about_codebook, codebook_use
from stages.diagnosis.draws import normals
from stages.diagnosis.norms import NormHistogram, norm_deviations, typicality
from stages.diagnosis.posterior import active_units, collapsed, sensitivity_nats, total_kl
from stages.diagnosis.scan import Scan, Scanned
from stages.diagnosis.scan import scan as scan_passes
from stages.diagnosis.scores import Gaussian, Scale, Scores, tail_share
from stages.row_hash import hash_ids

RNG = np.random.default_rng(0)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Each test draws the same numbers, whichever ran before it."""
    RNG.bit_generator.state = START


def rows(
    z: np.ndarray, logvar: np.ndarray | None = None, *, start: int = 0, tokens: np.ndarray | None = None
) -> pa.RecordBatch:
    def column(values: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).reshape(-1)), values.shape[1])

    columns = {"id": pa.array([f"i{start + k}" for k in range(len(z))]), "latent": column(z)}
    if tokens is not None:
        flat = pa.array(tokens.astype(np.int32).reshape(-1))
        columns["codes"] = pa.FixedSizeListArray.from_arrays(flat, tokens.shape[1])
    return pa.record_batch(columns | ({} if logvar is None else {"logvar": column(logvar)}))


def scan(z: np.ndarray, logvar: np.ndarray | None = None, **settings: int) -> Scanned:
    stage = Scan(z.shape[1], logvar is not None, **settings)
    return stage.add(stage.start(), rows(z, logvar))


# -- norms ---------------------------------------------------------------------------------------------------------------


def test_the_shell_at_256_dimensions() -> None:
    """The standard deviation of the norm is .707, and the origin is 22.6 of them away, though its density is the greatest."""
    norms = np.linalg.norm(RNG.normal(size=(20_000, 256)), axis=1)
    assert norms.std() == pytest.approx(0.707, abs=0.012)
    assert norm_deviations(np.zeros(1), 256)[0] == pytest.approx(-22.63, abs=0.01)
    z = RNG.normal(size=(1000, 256))
    squares = np.append((z**2).sum(1), 0.0)  # the origin last
    log_prior = -0.5 * squares
    odd = np.abs(typicality(squares, 256))
    assert log_prior.argmax() == 1000 and odd.argmax() == 1000
    assert typicality(np.zeros(1), 256)[0] == pytest.approx(-math.sqrt(128))
    scores = typicality(squares[:-1], 256)
    assert abs(scores.mean()) < 0.12 and scores.std() == pytest.approx(1, abs=0.08)


def test_a_histogram_knows_mean_quantiles_and_tails() -> None:
    norms = np.linalg.norm(RNG.normal(size=(50_000, 64)), axis=1)
    found = NormHistogram.of(norms**2)
    assert found.n == 50_000
    assert found.mean == pytest.approx(norms.mean(), rel=1e-12) and found.std == pytest.approx(norms.std(), rel=1e-6)
    for q in (0.001, 0.5, 0.999):
        assert found.quantile(q) == pytest.approx(np.quantile(norms, q, method="higher"), rel=2e-3)
    assert found.beyond(64, 3) == pytest.approx((np.abs(typicality(norms**2, 64)) > 3).mean(), abs=3e-4)
    edges, counts = found.bars(4, 12, 16)
    assert counts.sum() == 50_000 and np.abs(counts / 50_000 - np.diff(chi.cdf(edges, 64))).max() < 0.01
    assert NormHistogram.of(np.zeros(3)).n == 3, "a zero norm has a bin too"


# -- the scan ------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6), st.randoms(use_true_random=False), st.sampled_from([0.0, 1e4])
)
@settings(max_examples=20, deadline=None)
def test_any_split_and_order_gives_the_same(cuts: list[int], order: object, offset: float) -> None:
    rng = np.random.default_rng(1)
    n = sum(cuts)
    z, logvar = rng.normal(size=(n, 5)) + offset, rng.normal(size=(n, 5))
    stage = Scan(5, True, capacity=20)
    whole = stage.add(stage.start(), rows(z, logvar))
    edges = np.cumsum([0, *cuts])
    parts = [stage.add(stage.start(), rows(z[a:b], logvar[a:b], start=int(a))) for a, b in pairwise(edges)]
    order.shuffle(parts)  # type: ignore[attr-defined]
    merged = parts[0]
    for part in parts[1:]:
        merged = stage.merge(merged, part)
    assert merged.n == whole.n == n
    np.testing.assert_allclose(merged.moments.z_mean, whole.moments.z_mean, rtol=1e-12)
    np.testing.assert_allclose(merged.moments.zz, whole.moments.zz, rtol=1e-9)
    assert (merged.norms.counts == whole.norms.counts).all()
    assert merged.posterior is not None and whole.posterior is not None
    np.testing.assert_allclose(merged.posterior.variance, whole.posterior.variance, rtol=1e-12)
    assert merged.posterior.kl == pytest.approx(whole.posterior.kl, rel=1e-12)
    one, two = merged.sample.rows(), whole.sample.rows()
    assert one is not None and two is not None and one.ids == two.ids and (one.latents == two.latents).all()
    assert len(one) == min(20, n)


def test_rows_that_cannot_be_in_the_sample_are_passed_over() -> None:
    """Knowing how many rows come gives the same sample from fewer copies; where most are not finite, a second pass does."""
    z = RNG.normal(size=(4000, 3))

    def passed(z: np.ndarray) -> tuple[list[Scan], Scanned]:
        stages, passes = [], scan_passes(3, logvar=False, rows=len(z), capacity=50)
        try:
            stage = next(passes)
            while True:
                stages.append(stage)
                stage = passes.send(stage.add(stage.start(), rows(z)))
        except StopIteration as finished:
            return stages, finished.value

    stages, found = passed(z)
    assert len(stages) == 1 and sum(map(len, found.sample.parts)) < 200
    sampled, plain = found.sample.rows(), scan(z, capacity=50).sample.rows()
    assert sampled is not None and plain is not None and len(sampled) == 50
    assert sampled.ids == plain.ids and (sampled.latents == plain.latents).all()

    z[100:, 1] = np.nan
    stages, found = passed(z)
    sampled = found.sample.rows()
    assert len(stages) == 2 and (found.n, found.non_finite) == (100, 3900)
    assert sampled is not None and len(sampled) == 50 and all(int(name[1:]) < 100 for name in sampled.ids)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_coordinates_far_from_zero_or_constant_lose_no_digits(dtype: type) -> None:
    """Plain sums are differences of large numbers there. Rows without a latent leave, whatever lies in their memory."""
    z = (RNG.normal(size=(3000, 90)) * 0.1 + np.repeat([0, 3, 1000], 30)).astype(dtype)
    z[:, :3], z[5] = [0, 0.3, -700], np.nan
    values = pa.array(z.reshape(-1))
    latent = pa.FixedSizeListArray.from_arrays(values, 90, mask=pa.array(np.arange(3000) == 5))
    stage = Scan(90, False)
    batch = pa.record_batch({"id": [f"i{i}" for i in range(3000)], "latent": latent})
    found, exact = stage.add(stage.start(), batch), np.delete(z, 5, axis=0).astype(np.float64)
    assert (found.n, found.non_finite) == (2999, 1)
    np.testing.assert_allclose(found.moments.z_mean, exact.mean(0), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(found.moments.z_variance, exact.var(0, ddof=1), rtol=1e-9, atol=1e-24)


def test_scans_in_turns_in_one_thread_do_not_mix() -> None:
    """A thread keeps its blocks' memory: two widths, short and long batches, rows that go far from zero later on."""
    rng = np.random.default_rng(1)
    parts = {
        dim: [rng.normal(size=(n, dim)).astype(np.float32) + far for n, far in ((7, 0), (6000, 0), (50, 1e4), (900, 0))]
        for dim in (3, 170)
    }
    stages = {dim: Scan(dim, True) for dim in parts}
    states = {dim: stage.start() for dim, stage in stages.items()}
    for turn in range(4):
        for dim, stage in stages.items():
            z = parts[dim][turn]
            states[dim] = stage.add(states[dim], rows(z, z * 1e-4, start=10_000 * turn))
    for dim, found in states.items():
        z = np.concatenate(parts[dim]).astype(np.float64)
        np.testing.assert_allclose(found.moments.z_mean, z.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.moments.z_variance, z.var(0, ddof=1), rtol=1e-10)
        np.testing.assert_allclose(found.norms.mean, np.linalg.norm(z, axis=1).mean(), rtol=1e-12)
        assert found.posterior is not None
        logs = np.concatenate([(part * 1e-4).astype(np.float32) for part in parts[dim]]).astype(np.float64)
        np.testing.assert_allclose(found.posterior.variance, np.exp(logs).sum(0), rtol=1e-10)


def test_rows_that_are_not_finite_leave_first() -> None:
    z = RNG.normal(size=(50, 4))
    z[3, 1], z[7, 0] = np.nan, np.inf
    logvar = np.zeros((50, 4))
    logvar[9, 2] = np.nan
    found = scan(z, logvar)
    good = np.delete(z, [3, 7, 9], axis=0).astype(np.float32).astype(np.float64)
    assert (found.n, found.non_finite) == (47, 3)
    np.testing.assert_allclose(found.moments.z_mean, good.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.moments.z_variance, good.var(0, ddof=1), rtol=1e-10)
    logvar[9, 2], logvar[11, 0] = (
        2000,
        200,
    )  # finite, but no width of anything: exp of them is infinite, or its square is
    wild = scan(z, logvar)
    assert (wild.n, wild.non_finite) == (46, 4)
    total = total_kl(wild)
    assert total is not None and np.isfinite(total).all()
    nothing = scan(np.full((3, 4), np.nan))
    assert (nothing.n, nothing.non_finite, nothing.sample.rows()) == (0, 3, None)


def test_kl_is_the_closed_form() -> None:
    from stages.diagnosis.posterior import kl_per_dimension, posterior_std

    means, logvar = RNG.normal(size=(400, 3)) * [2, 1, 0], np.array([-2.0, 0.5, 0.0]) + 0.1 * RNG.normal(size=(400, 3))
    logvar[:, 2] = 0
    m, v = means.astype(np.float32).astype(float), logvar.astype(np.float32).astype(float)
    each = 0.5 * (m**2 + np.exp(v) - 1 - v)
    found = scan(means, logvar)
    kl, total, widths = kl_per_dimension(found), total_kl(found), posterior_std(found)
    assert kl is not None and total is not None and widths is not None
    np.testing.assert_allclose(kl, each.mean(0), rtol=1e-10, atol=1e-12)
    assert kl[2] == 0
    assert total[0] == pytest.approx(each.sum(1).mean(), rel=1e-10)
    assert total[1] == pytest.approx(each.sum(1).std() / math.sqrt(399), rel=1e-6)
    np.testing.assert_allclose(widths, np.exp(v / 2).mean(0), rtol=1e-10)


def test_draws_are_the_row_s_own_and_normal() -> None:
    hashes = hash_ids(pa.array([f"row {n}" for n in range(4000)]))
    drawn = normals(hashes, 3, salt="test")
    assert (normals(hashes[50:60], 3, salt="test") == drawn[50:60]).all()
    assert all(kstest(drawn[:, j], "norm").pvalue > 0.001 for j in range(3))
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.06
    assert (normals(hashes, 1, salt="other") != drawn[:, :1]).all()


# -- use of coordinates ----------------------------------------------------------------------------------------------------


def test_active_units_tell_how_much_hangs_on_the_threshold() -> None:
    variances = np.array([1.0, 0.5, 0.02, 0.011, 0.009, 0.004, 1e-5])
    found = active_units(variances, 0.01)
    assert (found.count, found.low, found.high) == (4, 6, 2) or (found.count, found.high, found.low) == (4, 6, 2)
    assert dict(found.curve)[0.01] == 4 and dict(found.curve)[1e-4] == 6


def test_collapse_needs_silence_and_a_deaf_decoder() -> None:
    kl = np.array([0.0, 0.0, 1.0, 1.0, 0.0])
    heard = np.array([0.0, 1.0, 0.0, 1.0, np.nan])
    assert collapsed(kl, heard, nats=0.01).tolist() == [True, False, False, False, False]
    assert sensitivity_nats(np.array([0.0, 1 / 12]), noise=1 / 12) == pytest.approx([0, 0.5 * math.log(2)])


# -- the aggregate and the prior -----------------------------------------------------------------------------------------------


def bimodal(n: int, dim: int = 1) -> np.ndarray:
    """Two modes at ±√.95 of variance .05 in the first coordinate: mean 0 and variance 1, like N(0, 1)."""
    z = RNG.normal(size=(n, dim))
    z[:, 0] = math.sqrt(0.95) * RNG.choice([-1, 1], n) + math.sqrt(0.05) * z[:, 0]
    return z


def test_the_gaussian_kl_is_blind_to_two_modes_and_the_others_are_not() -> None:
    def density(x: float) -> float:
        return 0.5 * float(
            norm.pdf(x, math.sqrt(0.95), math.sqrt(0.05)) + norm.pdf(x, -math.sqrt(0.95), math.sqrt(0.05))
        )

    true, _ = quad(lambda x: density(x) * (math.log(density(x)) - norm.logpdf(x)), -4, 4, points=[-1, 0, 1])
    assert true == pytest.approx(0.805, abs=0.001)
    z = bimodal(8000, 4)
    read = aggregate.diagonal_kl(z.mean(0), z.var(0, ddof=1))
    assert read[0] < 0.003 and aggregate.full_kl(z.mean(0), np.cov(z.T), len(z)) < 0.01  # type: ignore[operator]
    ks, w1 = aggregate.marginals(z)
    assert ks[0] > 0.15 > 3 * ks[1:].max() and w1[0] > 0.3 > 3 * w1[1:].max()
    assert aggregate.ks_bound(8000, 4) < ks[0] and ks[1:].max() < aggregate.ks_bound(8000, 4)
    prior = RNG.normal(size=(1000, 4))
    assert aggregate.mmd(z[:1000], prior, seed=0).p < 0.01
    assert aggregate.two_sample(z[:1000], prior, seed=0).low > 0.6


def test_draws_of_the_prior_are_left_in_peace() -> None:
    z, prior = RNG.normal(size=(2, 2000, 8))
    ks, _ = aggregate.marginals(z)
    assert ks.max() < aggregate.ks_bound(2000, 8)
    assert aggregate.sliced_w2(z, seed=0) < 0.06
    assert aggregate.mmd(z[:500], prior[:500], seed=0).p > 0.01
    found = aggregate.two_sample(z, prior, seed=0)
    assert found.low < 0.5 < found.high + 0.02
    bias = [aggregate.full_kl(x.mean(0), np.cov(x.T), 400) for x in RNG.normal(size=(20, 400, 40))]
    # Without the Wishart correction 40 × 41 / (4 · 400) = 1.03 nats would be read; the mean's own error, d/2n, stays.
    assert np.mean(bias) == pytest.approx(0.05, abs=0.03)  # type: ignore[arg-type]


def test_marginal_distances_are_scipy_s() -> None:
    z = RNG.normal(size=(500, 3)) * [1, 1.5, 1] + [0, 0, 0.4]
    ks, w1 = aggregate.marginals(z)
    assert ks == pytest.approx([kstest(z[:, j], "norm").statistic for j in range(3)])
    exact = norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    assert w1 == pytest.approx([wasserstein_distance(z[:, j], exact) for j in range(3)], abs=0.02)


def test_mmd_is_the_mean_of_kernels_over_pairs() -> None:
    """Unbiased within each set, the plain mean across."""
    x, y = RNG.normal(size=(2, 12, 3))
    both = np.concatenate([x, y])
    squares = ((both[:, None] - both[None]) ** 2).sum(2)
    usual = np.median(squares[np.triu_indices(24, 1)])
    kernel = sum(np.exp(-c * squares / usual) for c in (1, 4, 16)) / 3
    within = [(k.sum() - np.trace(k)) / (12 * 11) for k in (kernel[:12, :12], kernel[12:, 12:])]
    expected = sum(within) - 2 * kernel[:12, 12:].mean()
    assert aggregate.mmd(x, y, seed=0).value == pytest.approx(expected, rel=1e-9)


def test_mmd_sees_dependence_that_marginals_do_not() -> None:
    z = RNG.normal(size=(800, 2))
    z[:, 1] = np.sign(z[:, 0]) * np.abs(z[:, 1])
    ks, _ = aggregate.marginals(z)
    assert ks.max() < aggregate.ks_bound(800, 2)
    assert aggregate.mmd(z, RNG.normal(size=(800, 2)), seed=0).p < 0.01


# -- neighbours ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("true", [1, 2, 5])
def test_intrinsic_dimension_of_a_sheet_in_twenty(true: int) -> None:
    sheet = RNG.uniform(size=(2000, true)) @ np.linalg.qr(RNG.normal(size=(20, true)))[0].T
    found = neighbours.two_nn(sheet)
    assert found is not None and found.low < true < found.high + 0.1 * true


def test_duplicates_are_counted_and_too_few_points_say_so() -> None:
    points = RNG.normal(size=(200, 3))
    found = neighbours.two_nn(np.concatenate([points, points[:30]]))
    assert found is not None and found.duplicates == 60
    assert neighbours.two_nn(np.ones((50, 3))) is None and neighbours.two_nn(points[:10]) is None


def test_nearest_is_exact() -> None:
    points, queries = RNG.normal(size=(700, 6)), RNG.normal(size=(40, 6))
    all_distances = np.linalg.norm(queries[:, None] - points, axis=2)
    distances, places = neighbours.nearest(queries, points, 4)
    np.testing.assert_allclose(distances, np.sort(all_distances, 1)[:, :4], rtol=1e-6)
    assert (places == np.argsort(all_distances, 1)[:, :4]).all()
    assert (neighbours.nearest(points, points, 1, same=True)[1][:, 0] != np.arange(700)).all()


def test_participation_ratio() -> None:
    assert neighbours.participation_ratio(np.diag([1.0, 1, 1, 0])) == pytest.approx(3)
    assert neighbours.participation_ratio(np.zeros((2, 2))) == 0


def test_overlap_tells_holes_from_missing_parts() -> None:
    draws, same = RNG.normal(size=(2, 800, 2))
    alike = neighbours.overlap(same, draws, k=5)
    assert min(alike.precision, alike.recall, alike.coverage) > 0.9 and alike.density == pytest.approx(1, abs=0.15)
    ring = same[np.linalg.norm(same, axis=1) > 1.4]  # nothing in the middle, where 62 % of the prior is
    holed = neighbours.overlap(ring, draws, k=5)
    assert holed.precision < 0.6 and holed.recall > 0.9
    assert np.linalg.norm(draws[holed.gap > 3], axis=1).max() < 1.4
    far = np.concatenate([same[:400], same[400:] + 8])
    missed = neighbours.overlap(far, draws, k=5)
    assert missed.recall < 0.6 and missed.coverage < 0.6 and missed.precision > 0.9


def test_the_map_shows_the_hole_where_it_is() -> None:
    z, draws = RNG.normal(size=(2, 6000, 2))
    z = z[np.linalg.norm(z, axis=1) > 1]
    seen = neighbours.coverage_map(z, draws, size=16)
    middle = [0.5 * (e[1:] + e[:-1]) for e in seen.edges]
    radius = np.hypot(*np.meshgrid(middle[0], middle[1]))
    assert seen.holes.any() and radius[seen.holes].max() < 1.25 and seen.holes[radius < 0.6].all()
    one = neighbours.coverage_map(z[:, :1], draws[:, :1], size=4)
    assert one.codes.sum() > 0 and one.explained == 1


def test_the_map_of_a_healthy_codec_has_no_holes() -> None:
    """Chance leaves cells at the rim empty; a map must not call them holes."""
    for n in (300, 2000):
        maps = [neighbours.coverage_map(*RNG.normal(size=(2, n, 8))) for _ in range(20)]
        assert sum(m.holes.sum() for m in maps) <= 2


# -- codebooks and scores -----------------------------------------------------------------------------------------------------


def used(tokens: np.ndarray, codes: int = 8) -> TokenCounts:
    counts = TokenCounts.empty(codes, bigram=False)
    counts.add(tokens)
    return counts


def test_codebook_perplexity_and_dead_codes() -> None:
    use = codebook_use(used(np.tile([[0, 1], [2, 3]], (50, 1))).single)
    assert use is not None and use.perplexity == pytest.approx(4) and use.dead == 4 and use.expected_dead < 1e-9
    assert use.tokens == 200 and codebook_use(np.zeros(8, np.int64)) is None
    few = codebook_use(used(np.array([[0, 1, 2]])).single)
    assert few is not None and few.dead == 5 and few.expected_dead == pytest.approx(8 * (7 / 8) ** 3)


def test_a_codebook_is_flagged_for_what_chance_does_not_explain() -> None:
    even = {m.metric: m for m in about_codebook(used(np.arange(8).repeat(40)[:, None]))}
    assert even["codebook_perplexity"].value == pytest.approx(8) and even["dead_codes"].value == 0
    assert {m.status for m in even.values()} == {"ok"} and json.loads(even["codebook_perplexity"].detail)["codes"] == 8
    few = {m.metric: m.status for m in about_codebook(used(np.arange(5)[:, None]))}
    assert few["dead_codes"] == "ok", "3 dead, 4.1 are dead by chance"
    one = {m.metric: m for m in about_codebook(used(np.zeros((50, 4), int), 64))}
    assert (one["codebook_perplexity"].status, one["dead_codes"].status) == ("collapsed", "dead_codes")
    assert one["dead_codes"].value == 63 and "63 of 64 codes are not used by 200 tokens" in one["dead_codes"].message
    assert one["dead_codes"].threshold == pytest.approx(one["expected_dead_codes"].value + 6.4)
    bad = {m.metric: m for m in about_codebook(used(np.array([[0, 8], [1, 2]])))}
    assert (bad["bad_index_rows"].value, bad["codebook_perplexity"].n) == (1, 2)
    assert list(about_codebook(None)) == []


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_codes_are_counted_by_the_one_scan_whatever_the_split(chance: random.Random) -> None:
    z, tokens = RNG.normal(size=(60, 3)), RNG.integers(0, 8, (60, 4))
    z[5, 1] = np.nan
    stage = Scan(3, logvar=False, codebook=8)
    edges = sorted(chance.sample(range(1, 60), 5))
    states = [
        stage.add(stage.start(), rows(part, tokens=here, start=start))
        for part, here, start in zip(np.split(z, edges), np.split(tokens, edges), [0, *edges], strict=True)
    ]
    chance.shuffle(states)
    found = reduce(stage.merge, states, stage.start()).codebook
    whole = np.bincount(np.delete(tokens, 5, axis=0).reshape(-1), minlength=8)
    assert found is not None and found.single.tolist() == whole.tolist(), "the row that is not finite is not counted"


def test_mahalanobis_is_chi_square_whatever_the_shape() -> None:
    mixing = RNG.normal(size=(6, 6)) * [100, 1, 1, 1, 0.01, 1]
    z = RNG.normal(size=(5000, 6)) @ mixing.T + 7
    gaussian = Gaussian.of(z.mean(0), np.cov(z.T), len(z))
    distances = gaussian.squared_distance(z, among=np.ones(5000, bool))
    assert gaussian.rank == 6 and distances.mean() == pytest.approx(6, rel=1e-3)
    assert np.mean(distances > 12.5916) == pytest.approx(0.05, abs=0.01)  # χ² with 6 degrees
    flat = np.concatenate([z, z[:, :1]], axis=1)
    assert Gaussian.of(flat.mean(0), np.cov(flat.T), len(z)).rank == 6, "a direction without variance is left out"
    few = RNG.normal(size=(4, 9))
    assert Gaussian.of(few.mean(0), np.cov(few.T), 4).rank == 3
    alone = Gaussian.independent(z.mean(0), np.append(z[:, :5].var(0), 0.0))
    assert alone.rank == 5
    expected = (((z - z.mean(0)) ** 2)[:, :5] / z[:, :5].var(0)).sum(1)
    assert alone.squared_distance(z) == pytest.approx(expected)


def test_a_row_of_the_estimate_is_judged_as_if_it_had_been_left_out() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(40, 5)) @ rng.normal(size=(5, 5))
    found = Gaussian.of(z.mean(0), np.cov(z.T), 40).squared_distance(z, among=np.arange(40) < 39)
    for i in range(39):
        rest = np.delete(z, i, axis=0)
        away = z[i] - rest.mean(0)
        literally = away @ np.linalg.inv(np.cov(rest.T)) @ away
        assert found[i] == pytest.approx(literally * 39 * (39 - 5 - 2) / (38 * 40), rel=1e-9)


@pytest.mark.parametrize("per_coordinate", [2, 4, 16])
def test_rows_of_the_estimate_and_others_are_equally_far(per_coordinate: int) -> None:
    """Of one Gaussian. With 4 rows a coordinate, two rows in three that were not sampled were called anomalies."""
    rng, dim = np.random.default_rng(2), 120
    z, unseen = rng.normal(size=(per_coordinate * dim, dim)), rng.normal(size=(1500, dim))
    gaussian = Gaussian.of(z.mean(0), np.cov(z.T), len(z))
    hashes = np.arange(len(z), dtype=np.uint64)
    scores = Scores.fitted(z, hashes, gaussian, ["mahalanobis"])
    for rows, named in ((z, hashes), (unseen, np.arange(10**6, 10**6 + 1500, dtype=np.uint64))):
        found = scores.of(rows, named)
        assert found["mahalanobis"].mean() == pytest.approx(dim, rel=0.02)
        assert found["mahalanobis"].std() == pytest.approx(gaussian.deviation, rel=0.2)
        assert abs(np.median(found["anomaly"])) < 0.12 and (found["anomaly"] > 3).mean() < 0.02
        assert tail_share(found["mahalanobis"], gaussian) < 0.015


def test_an_odd_image_stands_out_whatever_is_odd_about_it() -> None:
    z = RNG.normal(size=(3000, 16)) * np.linspace(0.5, 1.5, 16)
    names = ["typicality", "mahalanobis"]
    hashes, others = np.arange(3000, dtype=np.uint64), np.arange(3000, 3004, dtype=np.uint64)
    gaussian = Gaussian.of(z.mean(0), np.cov(z.T), len(z))
    scores = Scores.fitted(z, hashes, gaussian, names, reconstruction=Scale(5.0, 1.0))
    ordinary = scores.of(z, hashes, np.full(3000, 5.0))["anomaly"]
    assert (ordinary > 3).mean() < 0.03
    odd = np.zeros((4, 16))
    odd[1, 0], odd[2], odd[3] = 4.0, 3.0, z[0]
    found = scores.of(odd, others, np.array([5.0, 5.0, 5.0, 20.0]))
    assert (found["anomaly"][[1, 2]] > 3).all() and found["anomaly"][3] == pytest.approx(15)
    assert found["typicality"][0] == pytest.approx(-math.sqrt(8))
    missing = scores.of(odd, others, np.array([np.nan] * 4))["anomaly"]
    assert np.isfinite(missing).all() and missing[3] < 3
    assert Scale(1.0, 0.0).place(np.array([1.0, 2.0])).tolist() == [0, 0]


def test_a_scale_from_a_histogram() -> None:
    values = np.abs(RNG.normal(size=20_000)) + 3
    exact, counted = Scale.of(values), Scale.of_histogram(NormHistogram.of(values**2))
    assert counted.median == pytest.approx(exact.median, rel=3e-3)
    assert counted.deviation == pytest.approx(exact.deviation, rel=0.02)


def test_norms_of_a_posterior_are_those_of_its_draws() -> None:
    """E‖z‖² of a draw is ‖μ‖² + Σσ²: means alone lie nearer to the origin than what the decoder was trained on."""
    means, logvar = RNG.normal(size=(300, 4)) * 0.5, np.full((300, 4), np.log(0.75))
    drawn = scan(means, logvar).drawn_norms
    assert drawn is not None
    assert drawn.squares / drawn.n == pytest.approx((means**2).sum(1).mean() + 3, rel=1e-6)


def test_a_gaussian_of_few_rows_has_no_more_directions_than_they_have() -> None:
    """Rounding gives a covariance of 5 rows more than 4 directions; distances along those would be noise over noise."""
    z = RNG.normal(size=(5, 8))
    jittered = np.cov(z.T) + 1e-6 * np.eye(8)
    assert Gaussian.of(z.mean(0), jittered, 5).rank == 4
