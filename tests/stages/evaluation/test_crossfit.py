"""A readout is judged on rows that it was not fitted on: what it seems to know of noise is nothing, what it knows stays."""

import json

import numpy as np
import pyarrow as pa
import pytest

from schemas.codec import CustomCodec, Preprocess
from stages.attributes import Column
from stages.evaluation.attribution import blame, scorer_leaks
from stages.evaluation.crossfit import CrossFit, fold_of, folds_for
from stages.evaluation.design import Design, Edit
from stages.evaluation.effects import Evaluation
from stages.evaluation.models import CodecSource
from stages.evaluation.readout import Readout, least_squares_readout
from stages.evaluation.refits import Refit
from stages.evaluation.replicates import Results
from stages.evaluation.response import ScorerResponse
from stages.row_hash import hash_ids
from tests.labelled import batch_of, carried, directions, reduced, step, uneven
from tests.stages.evaluation.test_attribution import TYPES, simulated

COLUMNS = (Column("a", "a", "bool"), Column("b", "b", "bool"))


def fitted(batch: pa.RecordBatch, columns: tuple[Column, ...] = COLUMNS, *, group: str | None = None) -> Readout:
    dim = batch.schema.field("latent").type.list_size
    found, _ = carried(least_squares_readout(columns, dim=dim, group=group), list(uneven(batch, 0)))
    assert isinstance(found, Readout)
    return found


def response(
    batch: pa.RecordBatch, readout: Readout, columns: tuple[Column, ...], *, held_out: bool, replicates: int = 100
) -> ScorerResponse:
    d = readout.coefficients.shape[1]
    mine = (np.empty((0, d)), readout.held_out) if held_out else (readout.coefficients, None)
    group = readout.held_out.group if readout.held_out is not None else None
    stage = Refit(columns, mine[0], np.zeros(d), replicates, 0, group, mine[1])
    sums = reduced(stage, list(uneven(batch, 1)))
    return ScorerResponse.of(tuple(c.name for c in columns), sums, confidence=0.95, held_out=held_out)


def noise(n: int, d: int, seed: int, *, per_group: int = 1) -> pa.RecordBatch:
    """Labels `a` and `b` that the latents know nothing of; rows of one `who` share them, and most of their latents."""
    rng = np.random.default_rng(seed)
    labels = {name: np.repeat(rng.random(n // per_group) < 0.5, per_group) for name in "ab"}
    own = 1.0 if per_group == 1 else 0.3
    z = own * rng.standard_normal((n, d)) + np.repeat(rng.standard_normal((n // per_group, d)), per_group, axis=0)
    who = [f"person {i // per_group}" for i in range(n)]
    return batch_of(z.astype(np.float32), {**labels, "who": who})


@pytest.mark.parametrize("group", [None, "who"])
def test_every_row_is_scored_by_the_fit_of_the_other_folds(group: str | None) -> None:
    batch = noise(120, 6, 0, per_group=3)
    held_out = fitted(batch, group=group).held_out
    assert held_out is not None
    z = batch.column("latent").flatten().to_numpy().reshape(120, 6).astype(float)
    y = np.column_stack([batch.column("labels").field(n).to_numpy(zero_copy_only=False) for n in "ab"]).astype(float)
    names = batch.column("id") if group is None else batch.column("labels").field("who")
    hashes = hash_ids(names)
    folds = fold_of(hashes, folds_for(6))
    assert len(set(folds.tolist())) == 10
    if group:
        assert all(len(set(folds[i : i + 3])) == 1 for i in range(0, 120, 3))
    expected, missed, spread = np.empty((120, 2)), np.zeros(2), np.zeros(2)
    for fold in range(10):
        mine, others = folds == fold, folds != fold
        mean, level = z[others].mean(axis=0), y[others].mean(axis=0)
        w = np.linalg.lstsq(z[others] - mean, y[others] - level, rcond=None)[0]
        expected[mine] = (z[mine] - z[mine].mean(axis=0)) @ w
        missed += ((y[mine] - level - (z[mine] - mean) @ w) ** 2).sum(axis=0)
        spread += ((y[mine] - level) ** 2).sum(axis=0)
    np.testing.assert_allclose(held_out(z, hashes), expected, atol=1e-4)
    np.testing.assert_allclose(held_out.r2, 1 - missed / spread, atol=1e-4)
    level = np.array([y[folds == fold].mean(axis=0) for fold in folds])
    by_hand = [np.corrcoef(expected[:, j], (y - level)[:, j])[0, 1] for j in range(2)]
    np.testing.assert_allclose(held_out.r, by_hand, atol=1e-4)


@pytest.mark.parametrize("per_group", [1, 4])
def test_a_readout_of_noise_answers_to_its_label_in_sample_and_is_unseen_on_rows_kept_apart(per_group: int) -> None:
    """100 independent rows of 40 numbers: in-sample R² and S are d/(n − 1) = .4, and their interval is far from 0."""
    seen, inside, values, r2, chance = [0, 0], [], [], [], []
    for seed in range(30):
        batch = noise(100 * per_group, 40, seed, per_group=per_group)
        readout = fitted(batch, group="who" if per_group > 1 else None)
        told = [response(batch, readout, COLUMNS, held_out=held, replicates=60) for held in (False, True)]
        inside.append(told[0].matrix[0].diagonal())
        values.append(told[1].matrix[0].diagonal())
        seen = [s + len(t.usable) for s, t in zip(seen, told, strict=True)]
        r2 += [m.value for m in readout.knows]
        chance += [m.status == "at_chance" for m in readout.knows]
    assert np.mean(inside) == pytest.approx(0.4, abs=0.05)
    assert abs(np.mean(values)) < 0.05
    assert seen[0] == 60 and seen[1] <= 5
    assert per_group > 1 or sum(chance) >= 55
    assert max(r2) < 0.2 and np.mean(r2) < -0.3


@pytest.mark.parametrize("d", [1, 10])
def test_chance_is_not_taken_for_knowledge_more_often_than_it_should(d: int) -> None:
    """Folds say nothing twice, so without the width of that 9 % of noise in ten numbers would be known, not 5 %."""
    known = 0
    for seed in range(60):
        batch = noise(200, d, seed)
        known += sum(m.status == "ok" for m in fitted(batch).knows)
    assert known <= 6  # of 120, one-sided 5 %


def test_noise_is_seldom_seen() -> None:
    seen = 0
    for seed in range(40):
        batch = noise(200, 10, seed)
        seen += len(response(batch, fitted(batch), COLUMNS, held_out=True, replicates=60).usable)
    assert seen <= 3  # of 80, one-sided 2.5 %


def test_what_a_readout_knows_is_neither_lost_nor_flattered() -> None:
    """S of the fit on new rows is what the cross-fit says; in-sample it is flattered by what is learnt by heart."""
    told, flattered, truth, known = [], [], [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)

        def drawn(n: int, rng: np.random.Generator = rng) -> pa.RecordBatch:
            a = rng.random(n) < 0.5
            b = np.where(rng.random(n) < 0.8, a, ~a)
            z = rng.standard_normal((n, 60))
            z[:, 0] += a
            z[:, 1] += 1.5 * b
            return batch_of(z.astype(np.float32), {"a": a, "b": b})

        batch, fresh = drawn(300), drawn(3000)
        readout = fitted(batch)
        told.append(response(batch, readout, COLUMNS, held_out=True, replicates=20).matrix[0])
        flattered.append(response(batch, readout, COLUMNS, held_out=False, replicates=20).matrix[0])
        truth.append(response(fresh, readout, COLUMNS, held_out=False, replicates=20).matrix[0])
        known += [m.status == "ok" for m in readout.knows]
    assert sum(known) >= 38
    told_, flattered_, truth_ = (np.mean(values, axis=0) for values in (told, flattered, truth))
    np.testing.assert_allclose(told_, truth_, atol=0.04)
    assert (flattered_.diagonal() > truth_.diagonal() + 0.1).all()


def test_a_planted_leak_is_split_by_a_cross_fitted_readout() -> None:
    """ρ=.6, κ=.5, and a least squares readout that borrows from the other label. In label units ρ and κ/1.5 are shown."""
    batch, _ = simulated(6000, 0)
    readout = fitted(batch)
    told = response(batch, readout, COLUMNS, held_out=True)
    edits = tuple(
        Edit(e, "a", e, d.vector, d.mean, d.sigma)  # type: ignore[arg-type]
        for e in ("mean_difference", "ols")
        for d in [directions(step(estimator=e, holdout=0.0), TYPES, batch)["a"]]
    )
    design = Design(edits, (-1.0, 1.0), "latent", ("a", "b"), readout, identity=False, replicates=100)
    options = {"kappa": 0.5, "blind": True}
    spec = CustomCodec(entry="tests.leaky_codec:LeakyCodec", options=options, preprocess=Preprocess(size=16))
    stage = Evaluation(design, CodecSource(spec, lambda: None, allow_code=True))
    stage.open("cpu")
    found = Results(design, stage.add(stage.start(), batch.slice(0, 200)), 0.95)
    parts = {m.metric: json.loads(m.detail)["in_score_units"] for m in blame(found, told)}
    # In the population: labels ±½ of covariance ρ/4, latents of means 1 and 1.5 a label, noise of variance .16.
    yy = np.array([[1, 0.6], [0.6, 1]]) / 4
    yz = yy * [1.0, 1.5]
    s = (np.linalg.solve(yy, yz) @ np.linalg.solve(np.diag([1.0, 1.5]) @ yz + 0.16 * np.eye(2), yz.T)).T
    np.testing.assert_allclose(told.matrix[0], s, atol=0.02)
    data, model = s[1, 1] / s[0, 0] * np.array([0.6, 0.5 / 1.5])
    whole = s @ [1, 0.6 + 0.5 / 1.5]
    assert parts["leak_data"] == pytest.approx(data, abs=0.05)
    assert parts["leak_model"] == pytest.approx(model, abs=0.05)
    assert parts["leak_scorer"] == pytest.approx(whole[1] / whole[0] - data - model, abs=0.05)


def test_what_knows_nothing_is_told_in_the_measurements() -> None:
    batch = noise(100, 20, 1)
    readout = fitted(batch)
    rng = np.random.default_rng(0)
    vector = rng.standard_normal(20)
    vector /= np.linalg.norm(vector)
    edits = tuple(Edit(e, "a", e, vector, np.zeros(20), 1.0) for e in ("mean_difference", "ols"))
    design = Design(edits, (-1.0, 1.0), "latent", ("a", "b"), readout, identity=False, replicates=60)
    options = {"dim": 20}
    spec = CustomCodec(entry="tests.leaky_codec:LeakyCodec", options=options, preprocess=Preprocess(size=24))
    stage = Evaluation(design, CodecSource(spec, lambda: None, allow_code=True))
    stage.open("cpu")
    found = Results(design, stage.add(stage.start(), batch), 0.95)
    told = response(batch, readout, COLUMNS, held_out=True)
    assert told.why_not("a", "b") == "unseen"
    rows = {(m.metric, m.subject, m.target): m for m in (*scorer_leaks(found, told), *blame(found, told))}
    own = rows["scorer_response", "a", "a"]
    assert own.status == "unseen" and "does not rise with its label" in own.message
    assert own.low is not None and own.low <= 0
    assert rows["scorer_leak", "a", "b"].status == rows["leak_scorer", "a", "b"].status == "unseen"
    assert rows["leak_scorer", "a", "b"].value is None
    assert "the scorer's own leaks are in it" in rows["leak_model", "a", "b"].message
    inside = response(batch, readout, COLUMNS, held_out=False)
    flattered = {m.subject: m for m in scorer_leaks(found, inside) if m.metric == "scorer_response"}
    assert flattered["a"].status == "ok" and (flattered["a"].low or 0) > 0


def test_rows_of_one_person_alone_cannot_be_kept_apart() -> None:
    batch = noise(60, 4, 0, per_group=60)
    labels = np.random.default_rng(0).random(60) < 0.5
    z = batch.column("latent").flatten().to_numpy().reshape(60, 4)
    batch = batch_of(z, {"a": labels, "b": ~labels, "who": ["one"] * 60})
    readout = fitted(batch, COLUMNS[:1], group="who")
    assert readout.held_out is None
    assert [(m.metric, m.status, m.value) for m in readout.knows] == [("readout_r2", "too_few", None)]


def test_the_scores_asked_for_keep_their_cross_fit() -> None:
    readout = fitted(noise(60, 4, 0))
    one = readout.only(["b"]).held_out
    assert isinstance(one, CrossFit) and readout.held_out is not None
    np.testing.assert_array_equal(one.coefficients[:, 0], readout.held_out.coefficients[:, 1])
    np.testing.assert_array_equal(one.r2, readout.held_out.r2[1:])
