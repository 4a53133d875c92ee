"""Linear scores read from latents: the least squares they say they are, and what stands in for them where latents are wide."""

import numpy as np
import pytest

from schemas.source import LabelType
from stages.attributes import Column
from stages.evaluation.readout import Readout, least_squares_readout, logistic_readout, ridge_readout
from tests.labelled import batch_of, carried, uneven

TYPES: dict[str, LabelType] = {"smiling": "bool", "age": "float"}
COLUMNS = tuple(Column(name, name, kind) for name, kind in TYPES.items())


def rows(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.column_stack([rng.random(n) < 0.5, 40 + 10 * rng.standard_normal(n)])
    latents = rng.standard_normal((n, 6)) @ (np.eye(6) + 0.3 * rng.standard_normal((6, 6))) + 5
    latents[:, 0] += 2 * labels[:, 0]
    latents[:, 1] += labels[:, 1] / 10
    return latents.astype(np.float32), labels


def test_least_squares_is_what_it_says_on_any_split() -> None:
    latents, labels = rows()
    batch = batch_of(latents, {"smiling": labels[:, 0] > 0, "age": labels[:, 1]})
    found, _ = carried(least_squares_readout(COLUMNS, dim=6), list(uneven(batch, 0)))
    wide = latents.astype(float)
    centred = wide - wide.mean(axis=0)
    by_hand = np.linalg.lstsq(centred, labels - labels.mean(axis=0), rcond=None)[0]
    np.testing.assert_allclose(found.coefficients, by_hand.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found(wide).mean(axis=0), labels.mean(axis=0), rtol=1e-6)


def test_how_much_a_score_tells_is_of_rows_that_it_was_not_fitted_on() -> None:
    """Plain R² of noise is d/(n − 1); a label that the latent does not know must not look known."""
    latents, labels = rows(60)
    rng = np.random.default_rng(6)
    batch = batch_of(latents, {"smiling": rng.random(60) < 0.5, "age": labels[:, 1]})
    found, _ = carried(least_squares_readout(COLUMNS, dim=6), list(uneven(batch, 0)))
    noise, age = found.knows
    assert age.value == pytest.approx(0.374, abs=1e-3) and age.status == "ok" and age.n == 60
    assert noise.status == "at_chance" and "no better than chance" in noise.message
    chance = []
    for seed in range(60):
        flip = np.random.default_rng(seed).random(60) < 0.5
        found, _ = carried(least_squares_readout(COLUMNS[:1], dim=6), [[batch_of(latents, {"smiling": flip})]])
        chance.append(found.knows[0])
    assert sum(m.status == "ok" for m in chance) <= 6
    assert -0.3 < np.mean([m.value for m in chance]) < -0.05
    few, _ = carried(least_squares_readout(COLUMNS[1:], dim=6), [[batch.slice(0, 7)]])
    assert few.knows[0].status == "too_few" and few.knows[0].value is None


def test_ridge_reads_the_same_and_each_label_on_the_rows_that_know_it() -> None:
    latents, labels = rows()
    gaps = [None if i % 4 == 0 else float(v) for i, v in enumerate(labels[:, 1])]
    batch = batch_of(latents, {"smiling": labels[:, 0] > 0, "age": gaps})
    found, _ = carried(ridge_readout(TYPES, TYPES, dim=6), [[batch]])
    assert isinstance(found, Readout)
    assert found.attributes == ("smiling", "age")
    wide = latents.astype(float)
    for at, known in enumerate((np.ones(400, bool), np.arange(400) % 4 > 0)):
        centred = wide[known] - wide[known].mean(axis=0)
        by_hand = np.linalg.lstsq(centred, labels[known, at] - labels[known, at].mean(), rcond=None)[0]
        scores = found(wide)[:, at], wide @ by_hand
        assert np.corrcoef(scores)[0, 1] > 0.9999
        assert np.std(scores[0]) == pytest.approx(np.std(scores[1]), rel=0.05)


def test_what_cannot_be_read_is_named_and_costs_the_others_nothing() -> None:
    latents, labels = rows()
    batch = batch_of(latents, {"smiling": [True] * 400, "age": labels[:, 1]})
    for passes in (least_squares_readout(COLUMNS, dim=6), ridge_readout(TYPES, TYPES, dim=6)):
        found, _ = carried(passes, [[batch]])
        assert found.attributes == ("age",)
        assert set(found.missing) == {"smiling"}


def test_logistic_gives_log_odds() -> None:
    latents, labels = rows()
    batch = batch_of(latents, {"smiling": labels[:, 0] > 0, "age": labels[:, 1]})
    types: dict[str, LabelType] = {"smiling": "bool"}
    found, _ = carried(logistic_readout(types, TYPES, dim=6), [[batch]])
    share = 1 / (1 + np.exp(-found(latents.astype(float))[:, 0]))
    assert share.mean() == pytest.approx(labels[:, 0].mean(), abs=1e-3)  # the optimum of a fit with a free intercept
