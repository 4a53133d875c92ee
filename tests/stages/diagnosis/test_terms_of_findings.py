"""Terms of a diagnosis that healthy and broken codecs do not tell apart: each against its textbook or scipy."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import binomtest

from schemas.codec import CustomCodec, LatentSpec, Preprocess
from schemas.measurements import Measurement
from stages.diagnosis.aggregate import full_kl, ks_bound, marginals, sliced_w2, wilson
from stages.diagnosis.diagnosis import diagnosis, probe_batches
from stages.diagnosis.evidence import Evidence, Limits, gather, probe_steps
from stages.diagnosis.neighbours import coverage_map, overlap
from stages.diagnosis.norms import NormHistogram
from stages.diagnosis.posterior import active_units
from stages.diagnosis.probe import CODE, DRAW, MOVE, Probe, Probed
from stages.diagnosis.scan import Scan
from stages.diagnosis.scores import TYPICALITY, Scale, Scores
from tests.codec_cases import StubbornCodec
from tests.stages.diagnosis.test_healthy_or_not import column


def test_the_full_kl_of_a_sample_of_the_prior_is_zero_on_average() -> None:
    """Without the Wishart bias it would read d(d + 1)/4n = 1.8 nats; with log(n/2) in it, d/2n less."""
    n, d, found = 30, 14, []
    for seed in range(600):
        z = np.random.default_rng(seed).normal(size=(n, d))
        z -= z.mean(0)  # of the mean's own chance this test is not
        covariance = np.cov(z.T)
        unclipped = full_kl(3 * np.ones(d), covariance, n)  # far off, so that nothing is cut at zero
        assert unclipped is not None
        found.append(unclipped - 9 * d / 2)
    assert np.mean(found) == pytest.approx(0, abs=4 * np.std(found) / np.sqrt(len(found)))
    assert np.std(found) / np.sqrt(len(found)) * 4 < d / (2 * n), "or the test would not see n for n − 1"


def test_the_ks_bound_holds_for_the_largest_of_many_tests() -> None:
    """DKW with a union bound: P(D > ε) ≤ 2 tests exp(−2nε²)."""
    for n, tests, alpha in ((100, 1, 0.05), (5000, 512, 0.001)):
        assert 2 * tests * np.exp(-2 * n * ks_bound(n, tests, alpha) ** 2) == pytest.approx(alpha)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 12), (7, 12), (12, 12), (480, 1000)])
def test_wilson_is_scipys(successes: int, n: int) -> None:
    exact = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    np.testing.assert_allclose(wilson(successes, n), (exact.low, exact.high), atol=2e-5)  # 1.96 for the quantile


def test_precision_recall_density_and_coverage_are_their_definitions() -> None:
    """Kynkäänniemi et al. 2019, Naeem et al. 2020, by every distance."""
    rng, k = np.random.default_rng(0), 3
    codes, draws = rng.normal(size=(90, 2)), 0.5 * rng.normal(size=(90, 2)) + 0.8
    between = cdist(draws, codes)
    code_radius = np.sort(cdist(codes, codes), axis=1)[:, k]
    draw_radius = np.sort(cdist(draws, draws), axis=1)[:, k]
    found = overlap(codes, draws, k=k)
    assert found.precision == (between <= code_radius).any(1).mean()
    assert found.recall == (between <= draw_radius[:, None]).any(0).mean()
    assert found.density == pytest.approx((between <= code_radius).sum() / (k * 90))
    assert found.coverage == (between <= code_radius).any(0).mean()
    np.testing.assert_array_equal(found.nearest_code, between.argmin(1))
    np.testing.assert_allclose(found.gap, between.min(1) / code_radius[between.argmin(1)])
    assert len({found.precision, found.recall, round(found.density, 6), found.coverage}) == 4


def test_the_map_has_the_main_axis_across_and_the_second_up() -> None:
    rng = np.random.default_rng(1)
    codes = rng.normal(size=(4000, 3)) * [4, 1, 0.5]
    seen = coverage_map(codes, codes[:100], size=8)
    values, vectors = np.linalg.eigh(np.cov(codes.T))
    across, up = ((codes - codes.mean(0)) @ vectors[:, i] for i in (2, 1))
    for row in range(8):
        for cell in range(8):
            inside = (across >= seen.edges[0][cell]) & (across < seen.edges[0][cell + 1])
            inside &= (up >= seen.edges[1][row]) & (up < seen.edges[1][row + 1])
            assert abs(int(inside.sum()) - seen.codes[row, cell]) <= 1
    assert np.ptp(seen.edges[0]) > 3 * np.ptp(seen.edges[1])
    assert seen.explained == pytest.approx((values[2] + values[1]) / values.sum())


def test_a_norm_of_a_histogram_is_the_middle_of_its_bin() -> None:
    norms = np.exp(np.random.default_rng(2).uniform(0, 1, 20_000))
    told = NormHistogram.of(norms**2)
    off = np.array([told.quantile(q) / np.quantile(norms, q) for q in np.linspace(0.01, 0.99, 99)]) - 1
    assert abs(off.mean()) < 1e-4, "a bin is .14 % wide"
    assert (told.counts @ told.centres) / told.n == pytest.approx(told.mean, rel=1e-5)


# ----------------------------------------------------------------------------------------------- from the evidence to a flag


def gathered(
    z: np.ndarray, logvar: np.ndarray | None = None, *, prior: str = "standard_normal", sample: int = 400
) -> Evidence:
    columns = {"id": pa.array([f"image {i}" for i in range(len(z))]), "latent": column(z)}
    if logvar is not None:
        columns["logvar"] = column(logvar)
    stage = Scan(z.shape[1], logvar is not None)
    scanned = stage.add(stage.start(), pa.record_batch(columns))
    latent = LatentSpec(shape=(z.shape[1],), space="z", prior=prior)
    found = gather(scanned, latent, limits=Limits(), sample=sample, seed=0)
    assert found is not None
    return found


def told(evidence: Evidence) -> dict[str, Measurement]:
    return {m.metric: m for m in diagnosis(evidence)}


def test_a_growing_sample_holds_half_as_much_again_at_most() -> None:
    stage = Scan(2, False, capacity=50)
    state, rng = stage.start(), np.random.default_rng(0)
    for part in range(40):
        ids = pa.array([f"image {part} {i}" for i in range(30)])
        state = stage.add(state, pa.record_batch({"id": ids, "latent": column(rng.normal(size=(30, 2)))}))
        assert sum(map(len, state.sample.parts)) < 75
    assert len(state.sample) == 50


def test_draws_are_as_wide_as_the_posterior_says() -> None:
    z = np.random.default_rng(0).normal(size=(4000, 3))
    evidence = gathered(z, np.full_like(z, np.log(4.0)))
    off = evidence.codes - evidence.sample.latents
    assert off.std() == pytest.approx(2, rel=0.03)
    np.testing.assert_allclose(evidence.aggregate_variance, z.astype(np.float32).var(0, ddof=1) + 4, rtol=1e-5)


def test_a_mahalanobis_distance_takes_coordinates_as_independent_where_rows_are_few() -> None:
    z = np.random.default_rng(0).normal(size=(99, 50)) * np.linspace(1, 3, 50)
    few, enough = gathered(z).gaussian, gathered(np.vstack([z, z[:1] + 1])).gaussian
    assert (few.whiten.ndim, enough.whiten.ndim) == (1, 2)
    np.testing.assert_allclose(few.whiten, 1 / z.astype(np.float32).std(0, ddof=1), rtol=1e-5)


def test_a_coordinate_that_never_varies_is_still_moved() -> None:
    z = np.random.default_rng(0).normal(size=(300, 4)) * [1, 2, 3, 0]
    steps, _ = probe_steps(gathered(z, prior="none"), 1024)
    deviations = z.std(0, ddof=1)
    np.testing.assert_allclose(steps, [*deviations[:3], deviations.mean()], rtol=1e-4)
    np.testing.assert_array_equal(probe_steps(gathered(z), 1024)[0], 1)


def test_active_units_at_three_times_the_threshold_and_a_third_of_it() -> None:
    units = active_units(np.array([0.2, 0.02, 0.02, 0.005, 0.001]), 0.01)
    assert (units.count, units.low, units.high) == (3, 1, 4)


def test_what_a_decoder_hears_is_measured_against_rounding() -> None:
    """Ten coordinates of which two are silent and deaf, two silent and heard: 20 % collapsed, and 10 % are allowed."""
    rng = np.random.default_rng(0)
    z, logvar = rng.normal(size=(500, 10)), np.full((500, 10), -4.0)
    z[:, 6:], logvar[:, 6:] = 0, 0
    change = np.array([4.0, 1, 1, 1, 1, 1, 2, 2, 0, 0])
    found = told(gathered(z, logvar).with_probe(Probed(change * 7, np.full(10, 7))))
    nats = 0.5 * np.log1p(12 * change)  # rounding to whole grey levels has a variance of 1/12
    heard = found["decoder_sensitivity"]
    assert (heard.value, heard.low, heard.high) == (pytest.approx(nats.mean()), 0, pytest.approx(nats.max()))
    dead = found["collapsed_dimensions"]
    assert (dead.value, dead.threshold, dead.status) == (2, 1, "collapsed")
    assert found["silent_dimensions"].value == 4 and found["heard_but_silent_dimensions"].value == 2


@pytest.mark.parametrize(("nats", "status"), [(0.008, "collapsed"), (0.012, "ok")])
def test_silence_is_counted_by_the_coordinate_and_kl_has_its_interval(nats: float, status: str) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 40)) * np.sqrt(2 * nats)  # ½E[μ²] a coordinate, and σ = 1
    kl = told(gathered(z, np.zeros_like(z)))["kl"]
    rows = 0.5 * (z.astype(np.float32).astype(float) ** 2).sum(1)
    assert kl.status == status and kl.value == pytest.approx(rows.mean())
    reach = 1.96 * rows.std(ddof=1) / np.sqrt(2000)
    np.testing.assert_allclose([kl.low, kl.high], [rows.mean() - reach, rows.mean() + reach], rtol=1e-3)


def test_the_norms_beside_what_the_prior_expects_of_as_many_rows() -> None:
    norm = told(gathered(np.random.default_rng(0).normal(size=(3000, 12))))["norm"]
    detail = json.loads(norm.detail)
    assert sum(detail["expected"]) == pytest.approx(3000, rel=0.01) and sum(detail["rows"]) == pytest.approx(
        3000, rel=0.01
    )
    assert np.abs(np.subtract(detail["expected"], detail["rows"])).max() < 60


def test_thresholds_of_distances_shrink_with_the_rows_they_are_of() -> None:
    """Draws of the prior themselves, as many as are compared, set what is chance."""
    evidence = gathered(np.random.default_rng(0).normal(size=(1600, 3)), sample=25)
    chance = 1.5 * np.sqrt(25 / 1600)
    found = told(evidence)
    assert found["w1_greatest"].threshold == pytest.approx(max(0.25, chance * marginals(evidence.others)[1].max()))
    few = gathered(np.random.default_rng(0).normal(size=(25, 3)), sample=25)
    assert told(few)["sliced_w2"].threshold == pytest.approx(max(0.15, 1.5 * sliced_w2(few.others, seed=0)))
    assert told(few)["sliced_w2"].threshold > 0.2, "chance must be what decides here"
    assert found["sliced_w2"].threshold == pytest.approx(max(0.15, chance * sliced_w2(evidence.others, seed=0)))
    assert found["sliced_w2"].threshold < told(few)["sliced_w2"].threshold


def test_the_worst_draws_are_those_furthest_from_any_code() -> None:
    evidence = gathered(np.random.default_rng(0).normal(size=(300, 2)) * 0.5, sample=300)
    worst = json.loads(told(evidence)["hole_cells"].detail)["worst"]
    gap = overlap(evidence.small, evidence.draws, k=5).gap
    np.testing.assert_allclose([w["gap"] for w in worst], np.sort(gap)[::-1][: len(worst)], atol=1e-3)


def test_flags_of_few_rows_wait_for_certainty() -> None:
    """Two-sample tests and shares of few rows reach their thresholds by chance: the p-value and the interval decide."""
    chance = dict.fromkeys(("mmd", "two_sample_accuracy", "precision"), 0)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        alike = told(gathered(rng.normal(size=(40, 2)), sample=40))["mmd"]
        assert alike.status == "ok"
        chance["mmd"] += alike.value > alike.threshold
        apart = told(gathered(rng.normal((0.9, 0), size=(120, 2)), sample=120))["two_sample_accuracy"]
        assert (apart.status != "ok") == (apart.low > apart.threshold)
        chance["two_sample_accuracy"] += apart.low <= apart.threshold < apart.value
        narrow = told(gathered(rng.normal(size=(30, 2)) * (0.1 + 0.02 * seed), sample=30))["precision"]
        assert (narrow.status != "ok") == (narrow.high < narrow.threshold)
        chance["precision"] += narrow.value < narrow.threshold <= narrow.high
    assert all(chance.values()), "or the test proves nothing"


def test_draws_that_come_back_a_little_off_are_no_holes() -> None:
    evidence = gathered(np.random.default_rng(0).normal(size=(100, 4)))
    size = np.sqrt(evidence.aggregate_variance.sum())

    def status(of_images: float, of_draws: float) -> str:
        cycles = {(CODE, i): of_images * size for i in range(30)} | {(DRAW, i): of_draws * size for i in range(30)}
        return told(evidence.with_probe(Probed(np.zeros(4), np.zeros(4, np.int64), cycles)))["cycle_ratio"].status

    assert [status(0.001, 0.04), status(0.001, 0.06), status(0.06, 0.11)] == ["ok", "off_manifold", "ok"]


def test_a_coordinate_that_breaks_the_decoder_does_not_lend_its_name_to_the_next() -> None:
    spec = CustomCodec(entry="tests.codec_cases:StubbornCodec", preprocess=Preprocess(size=(4, 4)))
    probe = Probe(np.array([1.0, 2.0]), lambda device: StubbornCodec(spec, device=device))  # 0 + 1 is where it raises
    probe.open("cpu")
    batch = pa.record_batch({"kind": [MOVE], "row": [0], "latent": column(np.array([[0.0, 5.0]]))})
    found = probe.add(probe.start(), batch)
    assert found.change.tolist() == [0, 4] and found.times.tolist() == [0, 1] and found.failed == 1


def test_a_norm_is_odd_both_ways_and_a_score_of_rounding_is_none() -> None:
    z = np.vstack([np.random.default_rng(0).normal(size=(400, 64)), np.zeros(64)])
    evidence = gathered(z)
    scores = Scores.fitted(evidence.codes, evidence.sample.hashes, evidence.gaussian, (TYPICALITY,))
    found = scores.of(z[-2:], np.zeros(2, np.uint64))
    assert found[TYPICALITY][1] == pytest.approx(-np.sqrt(32)) and found["anomaly"][1] > 4
    assert Scale(5.0, 1e-15).place(np.array([6.0])).tolist() == [0]
    assert Scale(5.0, 1e-3).place(np.array([6.0])) == pytest.approx([1000])


def test_a_probe_makes_no_more_pictures_than_it_may() -> None:
    for dim, decodes in ((3, 64), (10, 64), (200, 64), (6, 1024)):
        evidence = gathered(np.random.default_rng(0).normal(size=(700, dim)), sample=600)
        steps, moves = probe_steps(evidence, decodes)
        assert 1 <= moves <= 64 and moves * (np.count_nonzero(steps) + 1) <= decodes // 2
        _, batches = probe_batches(evidence, decodes)
        kinds = np.concatenate([batch.column("kind").to_numpy() for batch in batches])
        assert (kinds == MOVE).sum() == moves
        assert (kinds == CODE).sum() == (kinds == DRAW).sum() == decodes // 4


def test_tails_and_shells_are_flagged_on_either_side() -> None:
    rng = np.random.default_rng(0)
    tenth = told(gathered(rng.normal(size=(2000, 16)) * np.where(np.arange(2000) % 10, 1.0, 3.0)[:, None]))
    assert tenth["atypical_share"].status == "atypical" and tenth["mahalanobis_tail"].status == "heavy_tails"
    assert 0.08 < tenth["atypical_share"].value < 0.13 and 0.05 < tenth["mahalanobis_tail"].value < 0.13
    for scale in (0.4, 2.5):
        assert told(gathered(rng.normal(size=(500, 64)) * scale))["norm_deviation"].status == "off_shell"


def test_without_a_posterior_silence_does_not_depend_on_the_latents_unit() -> None:
    z = np.random.default_rng(0).normal(size=(500, 6)) * [1, 1, 1, 1, 1e-3, 1e-3]
    for unit in (1e-3, 1.0, 1e3):
        assert told(gathered(z * unit, prior="none"))["silent_dimensions"].value == 2


def test_distances_to_the_prior_are_allowed_by_the_dimension() -> None:
    found = told(gathered(np.random.default_rng(0).normal(size=(4000, 12)) + 0.25))  # ½ · .25² · 12 = .375 nats
    for name in ("aggregate_kl_diagonal", "aggregate_kl_full"):
        assert found[name].threshold == pytest.approx(1.2) and found[name].status == "ok"
        assert found[name].value == pytest.approx(0.375, abs=0.06)


def test_draws_between_codes_come_back_as_codes_and_say_nothing_of_holes() -> None:
    evidence = gathered(np.random.default_rng(0).normal(size=(100, 4)))
    cycles = {(kind, i): 1.0 + 5 * (kind == DRAW) for kind in (CODE, DRAW) for i in range(30)}
    probed = evidence.with_probe(Probed(np.zeros(4), np.zeros(4, np.int64), cycles))
    assert told(probed)["cycle_ratio"].status == "off_manifold"
    discrete = LatentSpec(shape=(2, 2), axes=("token", "feature"), space="z", prior="standard_normal", codebook=8)
    assert "cycle_ratio" not in told(replace(probed, latent=discrete))
