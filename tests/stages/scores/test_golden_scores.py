"""Disentanglement scores: the golden table of latent-science §6, and equality with the published definitions anywhere else.

The table is one draw. Ours, default_rng(3) with the factors first and the noise after them, gives MIG, continuous SAP,
modularity and IRS of all five representations to the digits that the table has, so these are held to half a unit of the last
one. Of 1,200 draws (seeds 0 to 199, two generators, three ways to draw factors) it is the only one that does.

The other columns hang on draws that the table does not name. Looked for, with that sample or one of their own:
- discrete SAP, 40,300 recipes: test rows from the same generator after up to two other draws, from fresh ones (seeds 0 to 99),
  parts of the sample or all of it; 500 to 5,000 of them; training rows of their own; 19 settings of classifier and scale. 33 give
  .611 and .269, as chance would (one in 700 or so of other seeds), and none of these .003 too. Trained on the table's own rows
  and tested on others, the score is .626 ± .006.
- FactorVAE 4,248 and β-VAE 858 (orders of draws, rows that give the variances, what was drawn before, votes one by one or all
  at once): 120 and 11 give the digits of `rotated` (chance: 3 %), 23 and 5 of these those of `noise` too (chance: a fifth and a
  quarter). Of the 46 FactorVAE recipes whose generator was followed on to the β-VAE score, none gives all four digits.
- DCI: none of 59 draws of rows gives .753 and .755; those of the table's own first 2,000 rows are .751 and .754, whatever the
  classifier's seed.

So these are held as what they are, draws: each digit must lie in the band of our score's own draws (`BANDS`, `BOOSTED`). That
finds a wrong definition only if it moves a score by more than the band's half width: .07 for discrete SAP, which jumps when the
classifier loses a level, .04 for FactorVAE and β-VAE, .002 to .005 for DCI. A hinge that is not squared (.235), codes that are not
standardised (.524) or half as large (.442) are outside. What a score is does not rest on this: each equals its definition to
1e-12 on any representation.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stages.scores.beta_vae import beta_vae_score
from stages.scores.dci import completeness, disentanglement, importances
from stages.scores.factor_sampling import GridSampler
from stages.scores.factor_vae import factor_vae_score
from stages.scores.information import histogram_bins, information, information_bias
from stages.scores.irs import interventional_robustness
from stages.scores.mig import mig, mig_per_factor
from stages.scores.modularity import modularity
from stages.scores.null import orders_of, permutation_nulls
from stages.scores.sap import accuracies, sap, sap_continuous
from tests.stages.scores import reference
from tests.stages.scores.representations import KINDS, SIZES, Drawn, represent, rows, standardised

VOTES = (1500, 800)
EXACT = {  # representation: (score, tolerance) of MIG, SAP continuous, modularity, IRS
    "identity": ((0.999, 5e-4), (1, 1e-3), (1, 1e-3), (1, 1e-12)),
    "twice": ((0, 1e-12), (0, 1e-12), (1, 1e-3), (1, 1e-12)),
    "constant": ((0.999, 5e-4), (1, 1e-3), (0.8, 1e-3), (1, 1e-12)),
    "rotated": ((0.498, 5e-4), (0.502, 5e-4), (0.895, 5e-4), (0.731, 5e-4)),
    "noise": ((0.001, 5e-4), (0, 5e-4), (0.59, 0.005), (0.31, 0.005)),
}
DRAWS, VOTED_DRAWS = range(100, 299), range(100, 124)
BANDS = {  # (score, representation): the table's digits, and the band of our draws
    ("sap_discrete", "identity"): (0.611, (0.537, 0.68)),
    ("sap_discrete", "rotated"): (0.269, (0.189, 0.339)),
    ("sap_discrete", "noise"): (0.003, (0.002, 0.0155)),
    ("factor_vae", "rotated"): (0.731, (0.7185, 0.792)),
    ("factor_vae", "noise"): (0.23, (0.216, 0.284)),
    ("beta_vae", "rotated"): (0.791, (0.7365, 0.812)),
    ("beta_vae", "noise"): (0.25, (0.205, 0.301)),
}
"""Discrete SAP: lowest to highest of 199 draws, which holds another draw 99 times in 100 whatever its distribution.
FactorVAE and β-VAE: where Student's t of 24 draws puts another with 99 %."""
BOOSTED = {  # representation: the table's digits and the band, of D and C
    "identity": ((1, (0.999, 1.0)), (1, (0.999, 1.0))),
    "twice": ((1, (0.999, 1.0)), (0.674, (0.665, 0.6745))),
    "constant": ((1, (0.999, 1.0)), (1, (0.999, 1.0))),
    "rotated": ((0.753, (0.75, 0.7542)), (0.755, (0.75, 0.7578))),
    "noise": ((0.001, (0.0002, 0.0025)), (0.001, (0.0004, 0.0035))),
}
"""`rotated`: lowest to highest of 59 draws, which holds another 97 times in 100; `noise`: of 18, 9 in 10; C of `twice`: Student's t
of 18, 99 %. A draw takes 15 s, so no test repeats them."""


def column_scores(codes: np.ndarray, levels: np.ndarray) -> tuple[float, float, float, float]:
    """MIG, SAP continuous, modularity, IRS."""
    found = information(histogram_bins(codes), levels)
    return (
        mig(found),
        sap_continuous(codes, levels.astype(float), levels >= 0),
        modularity(found.mutual),
        interventional_robustness(codes, levels).score,
    )


def discrete(seed: int, size: float = 1.0) -> dict[tuple[str, str], float]:
    """Discrete SAP of three representations of one draw; `size` multiplies the codes."""
    rng = np.random.default_rng(seed)
    parts = []
    for n in (4000, 2000):
        codes, levels = rows("identity", n, rng)
        turned, noise = represent("rotated", levels, rng), rng.standard_normal((n, 4))
        parts += [np.concatenate([turned[:, :2], codes[:, 2:], codes[:, :2], noise], axis=1) * size, levels]
    matrix = accuracies(*parts)
    of = {"rotated": slice(0, 4), "identity": slice(2, 6), "noise": slice(6, 10)}
    return {("sap_discrete", kind): sap(matrix[columns]) for kind, columns in of.items()}


def voted(seed: int) -> dict[tuple[str, str], float]:
    rng = np.random.default_rng(seed)
    return {
        (name, kind): score(Drawn(kind), rng, votes=VOTES)
        for name, score in (("factor_vae", factor_vae_score), ("beta_vae", beta_vae_score))
        for kind in ("rotated", "noise")
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_golden_table(kind: str) -> None:
    rng = np.random.default_rng(3)
    for score, (value, tolerance) in zip(column_scores(*rows(kind, 4000, rng)), EXACT[kind], strict=True):
        assert abs(score - value) <= tolerance


@pytest.mark.parametrize("kind", ["identity", "twice", "constant"])
def test_the_golden_table_where_a_draw_changes_nothing(kind: str) -> None:
    rng = np.random.default_rng(3)
    assert factor_vae_score(Drawn(kind), rng, votes=VOTES) == beta_vae_score(Drawn(kind), rng, votes=VOTES) == 1
    train, test = rows(kind, 4000, rng), rows(kind, 2000, rng)
    if kind == "twice":
        assert sap(accuracies(*train, *test)) == 0
    if kind == "constant":
        plain = sap(accuracies(train[0][:, :4], train[1], test[0][:, :4], test[1]))
        assert sap(accuracies(*train, *test)) == pytest.approx(plain, abs=0.01)


def test_the_golden_table_is_within_the_bands_of_our_draws() -> None:
    for (score, kind), (published, (low, high)) in BANDS.items():
        assert low <= published <= high, (score, kind)
    for where, value in {**discrete(3), **voted(3)}.items():
        low, high = BANDS[where][1]
        assert low <= value <= high, where


def test_the_bands_of_discrete_sap_tell_another_definition() -> None:
    """Of codes of half the size, as if C were a quarter of .01, both gaps leave their bands."""
    halved = discrete(3, size=0.5)
    for kind in ("identity", "rotated"):
        assert halved["sap_discrete", kind] < BANDS["sap_discrete", kind][1][0]


@pytest.mark.slow
def test_the_bands_are_those_of_our_draws() -> None:
    singles = [discrete(seed) for seed in DRAWS]
    votes = [voted(seed) for seed in VOTED_DRAWS]
    reach = stats.t.ppf(0.995, len(votes) - 1) * np.sqrt(1 + 1 / len(votes))
    for where, (_, band) in BANDS.items():
        if where[0] == "sap_discrete":
            values = [single[where] for single in singles]
            found = (min(values), max(values))
        else:
            values = [vote[where] for vote in votes]
            found = tuple(np.mean(values) + np.array([-1, 1]) * reach * np.std(values, ddof=1))
        assert found == pytest.approx(band, abs=0.001), (where, found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_golden_table_of_gradient_boosting(kind: str) -> None:
    rng = np.random.default_rng(3)
    found = importances(*rows(kind, 2000, rng), *rows(kind, 100, rng))
    pair = disentanglement(found.matrix), completeness(found.matrix)
    for score, (published, (low, high)) in zip(pair, BOOSTED[kind], strict=True):
        assert low <= published <= high
        assert low <= score <= high


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), d=st.integers(2, 9), n=st.integers(40, 400), far=st.sampled_from([0.0, 1e3]))
def test_equal_to_the_definitions_on_any_representation(seed: int, d: int, n: int, far: float) -> None:
    """Correlated factors, mixed, curved, constant, copied and rounded dimensions, some of them far from zero."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 30, rng.integers(2, 6))  # above 20 levels IRS bins the factor
    levels = np.stack([np.concatenate([[0, 1], rng.integers(0, s, n - 2)]) for s in sizes], axis=1)
    levels[:, -1] = (levels[:, -1] + levels[:, 0]) // 2
    levels[:2, -1] = (0, 1)
    codes = levels @ rng.standard_normal((len(sizes), d)) + rng.uniform(0, 2) * rng.standard_normal((n, d)) + far
    codes[:, 0] = np.round(codes[:, 0])
    codes[:, -1] = rng.choice([np.full(n, 7.0), codes[:, 0], np.tanh(codes[:, 0] - codes[:, 0].mean())])
    expected = [
        f(codes.T, levels.T) for f in (reference.mig, reference.sap_continuous, reference.modularity, reference.irs)
    ]
    assert column_scores(codes, levels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["constant", "noise"])
def test_model_scores_equal_the_definitions(kind: str) -> None:
    rng = np.random.default_rng(5)
    (codes, levels), (test_codes, test_levels) = rows(kind, 90, rng), rows(kind, 60, rng)
    found = importances(codes, levels[:, :2], test_codes, test_levels[:, :2], seed=4).matrix
    expected_pair = reference.dci(codes.T, levels[:, :2].T, seed=4)
    assert (disentanglement(found), completeness(found)) == pytest.approx(expected_pair, abs=1e-12)
    expected = reference.sap_discrete(codes.T, levels.T, test_codes.T, test_levels.T)
    assert sap(accuracies(codes, levels, test_codes, test_levels)) == pytest.approx(expected, abs=1e-12)
    same = {"batch": 16, "votes": (120, 80)}
    ours, theirs = np.random.default_rng(8), np.random.default_rng(8)
    expected = reference.factor_vae(Drawn(kind), theirs, variance_rows=500, **same)
    assert factor_vae_score(Drawn(kind), ours, variance_rows=500, **same) == pytest.approx(expected, abs=1e-12)
    assert beta_vae_score(Drawn(kind), ours, **same) == pytest.approx(reference.beta_vae(Drawn(kind), theirs, **same))


@dataclass(frozen=True)
class Turned:
    """Two factors of 3 and 4 levels, their plane turned by `angle`."""

    angle: float
    sizes: tuple[int, ...] = SIZES[:2]

    def codes(self, levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        c, s = np.cos(self.angle), np.sin(self.angle)
        return standardised(np.pad(levels, ((0, 0), (0, 2))))[:, :2] @ np.array([[c, s], [-s, c]])


def test_two_scores_cannot_see_a_rotation() -> None:
    """Turned by .4 rad no dimension is a factor, and both still score 1; MIG sees it."""
    rng = np.random.default_rng(1)
    levels = rng.integers(0, SIZES[:2], (4000, 2))
    for angle, seen in ((0.0, 0.99), (0.4, 0.45)):
        assert factor_vae_score(Turned(angle), rng, votes=(400, 400)) > 0.99
        assert beta_vae_score(Turned(angle), rng, votes=(400, 400)) > 0.99
        gap = mig(information(histogram_bins(Turned(angle).codes(levels, rng)), levels))
        assert gap > seen if angle == 0 else gap < seen


def test_information_of_independent_columns_is_the_bias() -> None:
    rng = np.random.default_rng(0)
    n, bins, levels = 3000, 20, 6
    codes = rng.uniform(size=(n, 60))
    found = information(histogram_bins(codes, bins=bins), rng.integers(0, levels, (n, 8)))
    assert found.mutual.mean() == pytest.approx(information_bias(bins, levels, n), rel=0.03)


def test_the_null_of_a_score_is_its_score_on_noise_and_not_zero() -> None:
    rng = np.random.default_rng(2)
    codes, levels = rows("identity", 2000, rng)
    orders = orders_of(np.arange(2000, dtype=np.uint64), 19)
    names = ("mig", "sap", "modularity", "irs")
    nulls = permutation_nulls(lambda order: dict(zip(names, column_scores(codes, levels[order]), strict=True)), orders)
    assert nulls["mig"].mean < 0.01 and nulls["sap"].mean < 0.01
    assert 0.4 < nulls["modularity"].mean < 0.75 and nulls["irs"].mean < 0.1  # modularity of chance is far from 0
    for name, score in zip(names, column_scores(codes, levels), strict=True):
        assert score > nulls[name].level and nulls[name].p_value(score) == pytest.approx(1 / 20)
    assert nulls["mig"].p_value(nulls["mig"].mean) > 0.2


def test_a_p_value_of_noise_is_uniform() -> None:
    """Otherwise noise would pass more often than one time in twenty."""
    p_values = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        codes, levels = rng.standard_normal((200, 3)), rng.integers(0, 3, (200, 2))
        bins = histogram_bins(codes)
        orders = [rng.permutation(200) for _ in range(9)]
        null = permutation_nulls(lambda order, b=bins, y=levels: {"mig": mig(information(b, y[order]))}, orders)["mig"]
        p_values.append(null.p_value(mig(information(bins, levels))))
    assert np.mean(np.array(p_values) <= 0.1) == pytest.approx(0.1, abs=0.07)
    assert np.mean(p_values) == pytest.approx(0.55, abs=0.08)


def test_a_missing_label_leaves_its_own_factor_only() -> None:
    rng = np.random.default_rng(6)
    codes, levels = rows("rotated", 1200, rng)
    gaps = levels.copy()
    gaps[::3, 1] = -1
    kept = levels[:, 1:2][gaps[:, 1] >= 0]
    bins = histogram_bins(codes)
    found, full = information(bins, gaps), information(bins, levels)
    assert found.n.tolist() == [1200, 800, 1200, 1200]
    others = [0, 2, 3]
    assert np.array_equal(found.mutual[:, others], full.mutual[:, others])
    alone = information(bins[gaps[:, 1] >= 0], kept)
    assert mig_per_factor(found)[1] == pytest.approx(mig_per_factor(alone)[0], abs=1e-14)


def test_rows_that_fill_the_grid_are_sampled_by_factor() -> None:
    rng = np.random.default_rng(7)
    codes, levels = rows("identity", 6000, rng)
    sampler = GridSampler.of(codes, levels)
    assert sampler.sizes == SIZES
    drawn = np.stack(np.unravel_index(rng.integers(0, 360, 2000), SIZES), axis=1)
    assert np.array_equal(sampler.codes(drawn, rng), standardised(drawn))
    assert factor_vae_score(sampler, rng, votes=(200, 100), variance_rows=1000) == 1


def test_a_grid_with_holes_is_refused_with_their_number() -> None:
    rng = np.random.default_rng(7)
    codes, levels = rows("identity", 6000, rng)
    hole = (levels == [0, 1, 2, 3]).all(1) | (levels == [2, 1, 0, 5]).all(1)
    with pytest.raises(ValueError, match="2 of the 360 combinations of the factors' levels have no row"):
        GridSampler.of(codes[~hole], levels[~hole])
    with pytest.raises(ValueError, match="200 rows cannot hold all 360 combinations"):
        GridSampler.of(codes[:200], levels[:200])


def test_what_cannot_be_scored_is_refused() -> None:
    codes, levels = rows("identity", 100, np.random.default_rng(0))
    flat = np.zeros_like(levels)
    with pytest.raises(ValueError, match="factor 0 has 1 levels in 100 rows"):
        information(histogram_bins(codes), flat)
    with pytest.raises(ValueError, match="factor 0 is constant in 100 rows"):
        sap_continuous(codes, flat.astype(float), flat == 0)
    with pytest.raises(ValueError, match="1 dimensions; a gap between the two best needs at least 2"):
        mig(information(histogram_bins(codes[:, :1]), levels))
    with pytest.raises(ValueError, match="1 factor; modularity needs at least 2"):
        modularity(np.ones((3, 1)))
    with pytest.raises(ValueError, match="factor 0 needs two levels to train on"):
        importances(codes, flat, codes, flat)
    assert interventional_robustness(np.ones((100, 3)), levels).score == 0
