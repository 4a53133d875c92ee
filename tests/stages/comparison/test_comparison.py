"""Two spaces whose relation is known: a rotation, a rotation with noise, a projection, and none at all."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial import procrustes as scipy_procrustes

from stages.comparison.alignment import disparity, linear_cka, procrustes
from stages.comparison.cka_terms import cka_terms, unbiased_cka
from stages.comparison.compare import Comparison, Settings, agreement, compare, tails_of
from stages.comparison.null import permutation_null
from stages.comparison.paired import Joint, Pairing
from stages.comparison.port import port
from stages.moments import Moments
from tests.labelled import batch_of, carried, chunks, reduced, uneven


def spaces(n: int = 400, d: int = 6, *, noise: float = 0.0, other: int | None = None, seed: int = 0) -> Any:
    """x (n, d), and y = (x − 1)·Q·3 + 5 of `other` dimensions, so that x is a rotated, scaled and moved y."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * np.linspace(1, 3, d) + 1
    turn = np.linalg.qr(rng.standard_normal((other or d, other or d)))[0][:d]
    y = 3 * (x - 1) @ turn + 5 + noise * rng.standard_normal((n, other or d))
    return x, y, turn


def joined(x: np.ndarray, y: np.ndarray) -> Any:
    return batch_of(np.concatenate([x, y], axis=1).astype(np.float32), {"label": [None] * len(x)})


def compared(x: np.ndarray, y: np.ndarray, **settings: Any) -> tuple[Comparison, dict[str, Any]]:
    asked = Settings(x.shape[1], y.shape[1], **settings)
    found, _ = carried(compare(asked), [chunks(joined(x, y), 50)])
    return found, {m.metric: m for m in found.measurements}


def joint(x: np.ndarray, y: np.ndarray) -> Joint:
    return Joint.of(Moments.of(np.concatenate([x, y], axis=1), full=True), x.shape[1])


def test_a_rotation_is_the_same_space() -> None:
    x, y, turn = spaces()
    found, by = compared(x, y)
    assert found.status == "ok"
    assert found.alignment is not None
    np.testing.assert_allclose(found.alignment.rotation, turn.T, atol=1e-5)
    assert found.alignment.scale == pytest.approx(1 / 3)
    assert by["row_cosine"].value == pytest.approx(1, abs=1e-6)
    assert by["cka"].value == pytest.approx(1, abs=1e-6)
    assert by["disparity"].value == pytest.approx(0, abs=1e-6)
    assert by["latent_fid_aligned"].value == pytest.approx(0, abs=1e-4)
    assert by["latent_fid"].value > 10
    assert by["chance"].value == pytest.approx(1 / 101)
    assert found.sample is not None and found.sample.shape == (by["disparity"].n, 12)


def test_a_wider_space_holds_a_narrow_one() -> None:
    """x of 4 in y of 9 numbers: seen from x nothing is missing."""
    found, by = compared(*spaces(d=4, other=9)[:2])
    assert found.status == "ok"
    assert by["disparity"].value == pytest.approx(0, abs=1e-6)
    assert "latent_fid" not in by


def test_what_a_wider_space_has_of_its_own_does_not_count_against_it() -> None:
    """y holds x and as much again of its own: all of x is there, at its own scale, and so is a direction's score."""
    x, y, turn = spaces(4000, d=4, other=9)
    rest = np.linalg.svd(turn)[2][4:]
    y = y + 6 * np.random.default_rng(5).standard_normal((len(y), 5)) @ rest
    fitted = procrustes(joint(x, y))
    assert fitted is not None and fitted.scale == pytest.approx(1 / 3, rel=0.02)
    found, by = compared(x, y)
    assert found.status == "ok" and by["disparity"].value < 0.02 and by["latent_fid_aligned"].value < 0.1
    scales = np.linspace(0.7, 1.3, 61) * fitted.scale
    left = [disparity(replace(fitted, scale=s), joint(x, y)) for s in scales]
    assert int(np.argmin(left)) == 30, "no other scale does better"


def test_noise_is_the_disparity() -> None:
    """Held-out disparity of a rotation with noise: the noise's share of y, up to the d/n that fitting costs."""
    x, y, _ = spaces(4000, noise=2.0)
    found, by = compared(x, y)
    variance = 9 * (np.linspace(1, 3, 6) ** 2).sum()
    expected = 1 - variance / (variance + 6 * 4)
    assert by["disparity"].value == pytest.approx(expected, rel=0.1)
    assert by["disparity"].low < expected < by["disparity"].high
    assert 0.9 < by["row_cosine"].value < 1
    assert found.status == "ok" and found.alignment is not None and found.sample is not None
    a, b = found.sample[:, :6] - found.alignment.x_mean, found.alignment(found.sample[:, 6:])
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    told = json.loads(by["row_cosine"].detail)["quantiles"]
    for q in ("0.01", "0.1", "0.5"):
        assert told[q] == pytest.approx(np.quantile(cosines, float(q)), abs=0.011), "to a bin of 0.01"


def test_an_unrelated_space_is_refused() -> None:
    x, _, _ = spaces()
    y, _, _ = spaces(seed=9)
    found, by = compared(x, y)
    assert found.status == "refused"
    assert "held-out disparity" in found.message
    assert by["disparity"].value > 0.9
    assert by["chance"].value > 0.05
    assert abs(by["row_cosine"].value) < 0.3


def test_the_null_keeps_its_level() -> None:
    """Unrelated spaces: p is below .1 one time in ten."""
    rng = np.random.default_rng(0)
    held = np.arange(60) % 4 == 0
    found = []
    for i in range(150):
        null = permutation_null(
            rng.standard_normal((60, 5)), rng.standard_normal((60, 5)), held, permutations=19, seed=i
        )
        assert null is not None
        found.append(null.p)
    assert 0.04 < np.mean(np.array(found) <= 0.1) < 0.18


def test_rows_of_both_latents_dealt_anew_are_refused() -> None:
    """The same space, but the rows do not belong together: what a wrong join would give."""
    x, y, _ = spaces()
    assert compared(x, np.roll(y, 7, axis=0))[0].status == "refused"


def test_chance_alone_refuses_where_any_disparity_is_allowed() -> None:
    x, y, _ = spaces()
    found, by = compared(x, np.roll(y, 7, axis=0), max_disparity=9.0)
    assert by["disparity"].value < 9 and by["chance"].value > 0.05
    assert found.status == "refused" and "not shown to be related" in found.message


def test_the_interval_of_an_agreement_is_fishers() -> None:
    """tanh(artanh r ± 1.96/√(n − 3))."""
    found = agreement(0.8, 28, subject="smile", kept=1.0, confidence=0.95)
    expected = np.tanh(np.arctanh(0.8) + np.array([-1, 1]) * 1.959963985 / 5)
    np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-6)
    assert agreement(0.8, 3, subject="smile", kept=1.0, confidence=0.95).status == "too_few"
    assert agreement(0.38, 28, subject="smile", kept=1.0, confidence=0.95).status == "ok"
    for none in (0.37, 0.0, -0.9):  # Fisher: .374 of 28 is where the interval reaches 0
        told = agreement(none, 28, subject="smile", kept=0.2, confidence=0.95)
        assert (told.status, told.value) == ("refused", none) and "no more than by chance" in told.message


@pytest.mark.parametrize("heavy", [False, True])
def test_the_interval_of_an_agreement_covers_whatever_the_tails(heavy: bool) -> None:
    """Scores of t with 6 degrees that agree by .9: Fisher's interval alone held that 86 times in 100."""
    rng, rho, n, inside, alone = np.random.default_rng(0), 0.9, 400, [], []
    for _ in range(800):
        x = rng.standard_t(6, n) / np.sqrt(1.5) if heavy else rng.standard_normal(n)
        y = rho * x + np.sqrt(1 - rho**2) * rng.standard_normal(n)
        for held, tails in ((inside, tails_of(x, y)), (alone, 1.0)):
            one = agreement(float(np.corrcoef(x, y)[0, 1]), n, subject="", kept=1, confidence=0.95, tails=tails)
            held.append(one.low <= rho <= one.high)  # type: ignore[operator]
    assert 0.92 <= np.mean(inside) <= 0.97
    assert (np.mean(alone) < 0.9) == heavy
    assert tails_of(x[:20], y[:20]) == tails_of(x, x) == tails_of(x, np.ones(n)) == 1


def test_disparity_is_scipys_on_the_rows_of_the_fit() -> None:
    x, y, _ = spaces(noise=5.0)
    fitted = procrustes(joint(x, y))
    assert fitted is not None
    assert disparity(fitted, joint(x, y)) == pytest.approx(scipy_procrustes(x, y)[2])


def test_disparity_of_moments_is_that_of_rows() -> None:
    x, y, _ = spaces(noise=3.0)
    fitted = procrustes(joint(x[:200], y[:200]))
    assert fitted is not None
    residual = (x[200:] - fitted.x_mean) - fitted(y[200:])
    expected = (residual**2).sum() / ((x[200:] - fitted.x_mean) ** 2).sum()
    assert disparity(fitted, joint(x[200:], y[200:])) == pytest.approx(expected)


def test_cka_by_its_kernels() -> None:
    x, y, _ = spaces(80, noise=4.0)
    centre = np.eye(80) - 1 / 80
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    assert linear_cka(joint(x, y)) == pytest.approx((k * m).sum() / np.linalg.norm(k) / np.linalg.norm(m))


@pytest.mark.parametrize("seed", range(2))
def test_any_split_gives_the_same_comparison(seed: int) -> None:
    x, y, _ = spaces(300, noise=3.0)
    batch = joined(x, y)
    settings = Settings(6, 6, permutations=10, replicates=20)
    whole, _ = carried(compare(settings), [[batch]])
    parts, _ = carried(compare(settings), list(uneven(batch, seed)))
    rows = np.concatenate([x, y], axis=1).astype(np.float32).astype(np.float64)
    direct = unbiased_cka(joint(x, y), cka_terms(rows, joint(x, y)), confidence=0.95)
    (cka,) = (m for m in parts.measurements if m.metric == "cka")
    assert direct is not None and (cka.low, cka.high) == (pytest.approx(direct.low), pytest.approx(direct.high))
    for one, other in zip(whole.measurements, parts.measurements, strict=True):
        assert (one.metric, one.n, one.status) == (other.metric, other.n, other.status)
        assert one.value == pytest.approx(other.value, rel=1e-8, abs=1e-9), one.metric
        for mine, theirs in ((one.low, other.low), (one.high, other.high)):
            assert mine == (None if theirs is None else pytest.approx(theirs, rel=1e-8, abs=1e-9)), one.metric


def test_a_direction_and_its_score_are_carried_over() -> None:
    x, y, turn = spaces()
    found, _ = compared(x, y)
    assert found.alignment and found.everything and found.held_out
    old = np.eye(6)[2]
    ported = port(
        old, found.alignment, everything=found.everything, held_out=found.held_out, raw_norm=2.0, intercept=0.7
    )
    assert ported is not None
    np.testing.assert_allclose(ported.vector, turn[:, 2], atol=1e-5)
    assert (ported.kept, ported.agreement) == (pytest.approx(1), pytest.approx(1))
    assert ported.sigma == pytest.approx((x @ turn[:, 2]).std(ddof=1), rel=1e-6)
    assert ported.raw_norm is not None and ported.intercept is not None
    np.testing.assert_allclose(
        ported.raw_norm * (x @ ported.vector) + ported.intercept, 2.0 * (y @ old) + 0.7, atol=1e-3
    )


def test_a_direction_the_new_space_lacks_is_none() -> None:
    """y has a coordinate that x knows nothing of: it is not carried over as some other one."""
    x, y, _ = spaces(d=4, other=5)
    found, _ = compared(x, y)
    assert found.alignment and found.everything and found.held_out
    lost = np.linalg.svd(found.alignment.rotation)[0][:, -1]
    facts = {"everything": found.everything, "held_out": found.held_out, "raw_norm": None, "intercept": None}
    assert port(lost, found.alignment, **facts) is None


def test_the_score_of_a_direction_that_is_half_lost_is_that_of_what_is_left() -> None:
    """Rows that the new space can hold keep their score, although the carried direction is shorter than one."""
    x, y, _ = spaces(d=4, other=5)
    found, _ = compared(x, y)
    aligned = found.alignment
    assert aligned and found.everything and found.held_out
    old = np.full(5, 5**-0.5)
    facts = {"everything": found.everything, "held_out": found.held_out, "raw_norm": 2.0, "intercept": 0.7}
    ported = port(old, aligned, **facts)  # type: ignore[arg-type]
    assert ported is not None and ported.raw_norm is not None and ported.intercept is not None
    assert 0.3 < ported.kept < 0.97
    held = aligned.y_mean + np.random.default_rng(3).standard_normal((20, 4)) @ aligned.rotation.T
    scores = ported.raw_norm * (aligned(held) + aligned.x_mean) @ ported.vector + ported.intercept
    np.testing.assert_allclose(scores, 2.0 * held @ old + 0.7, rtol=1e-9)


def test_what_cannot_be_compared_says_why() -> None:
    x, y, _ = spaces()
    assert compared(np.full_like(x, np.nan), y)[0].status == "no_rows"
    assert compared(x, np.ones_like(y))[0].status == "no_variance"
    assert compared(x[:5], y[:5])[0].status == "too_few"
    bad = x.copy()
    bad[3, 0] = np.inf
    assert compared(bad, y)[1]["left_out"].value == 1


def test_the_pass_is_a_fold() -> None:
    x, y, _ = spaces(100)
    stage = Pairing(6, 6, 0.2)
    state = reduced(stage, [[joined(x, y)], []])
    assert (state.train.n + state.held_out.n, state.non_finite) == (100, 0)
    assert state.together.n == 100 and min(part.n for part in state.parts) > 0
