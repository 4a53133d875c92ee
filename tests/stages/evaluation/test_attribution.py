"""Data, model or scorer: a planted share of each, told apart from decoded pictures and from untouched ones.

ρ=.6, μ₁/μ₀=1.5 and κ=.5 as in latent-science §6, and a scorer that takes .3 of the first attribute for the second: a plain
direction's leak of 1.7 in all. The codec is blind to its own fault, as a real one is: originals show no κ.
"""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

from schemas.batches import pixels_schema
from schemas.codec import CustomCodec, LinearCodec, Preprocess
from schemas.measurements import Measurement
from schemas.source import LabelType
from stages.attributes import Column
from stages.evaluation.attribution import blame, scorer_leaks
from stages.evaluation.design import Design, Edit
from stages.evaluation.effects import Evaluation
from stages.evaluation.models import CodecSource
from stages.evaluation.on_labels import add_rows, empty_sums
from stages.evaluation.originals import Originals, Scored
from stages.evaluation.readout import Readout
from stages.evaluation.refits import Refit, Refits, gradient
from stages.evaluation.replicates import Results
from stages.evaluation.response import ScorerResponse
from stages.row_hash import hash_ids
from tests.labelled import batch_of, directions, reduced, step, uneven
from tests.leaky_codec import LeakyCodec
from tests.stages_evaluation import leaky_stage

RHO, RATIO, KAPPA = 0.6, 1.5, 0.5
DATA = RHO * RATIO
TYPES: dict[str, LabelType] = {"a": "bool", "b": "bool"}
COLUMNS = (Column("a", "a", "bool"), Column("b", "b", "bool"))
PARTS = ("leak_data", "leak_model", "leak_scorer")
Found = dict[tuple[str, str, str], Measurement]


def simulated(n: int, seed: int, *, per_group: int = 1) -> tuple[pa.RecordBatch, np.ndarray]:
    """What untouched pictures show: (±μ₀, ±μ₁, 0, 0) + noise, the two labels balanced and correlated by ρ.

    Rows of one group share their labels and half of their noise's variance.
    """
    rng = np.random.default_rng(seed)
    groups = n // per_group
    first = rng.random(groups) < 0.5
    second = np.where(rng.random(groups) < (1 + RHO) / 2, first, ~first)
    first, second = np.repeat(first, per_group), np.repeat(second, per_group)
    noise = rng.standard_normal((n, 4))
    if per_group > 1:
        noise = np.sqrt(0.5) * (noise + np.repeat(rng.standard_normal((groups, 4)), per_group, axis=0))
    shown = 0.4 * noise
    shown[:, 0] += 0.5 * (2 * first - 1)
    shown[:, 1] += 0.5 * RATIO * (2 * second - 1)
    who = [f"person {i // per_group}" for i in range(n)]
    return batch_of(shown.astype(np.float32), {"a": first, "b": second, "who": who}), shown


def originals(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows as untouched pictures: drawn by a codec without a fault."""
    spec = CustomCodec(entry="tests.leaky_codec:LeakyCodec", options={"kappa": 0.0}, preprocess=Preprocess(size=16))
    latents = batch.column("latent").flatten().to_numpy().reshape(len(batch), -1)
    pixels = LeakyCodec(spec, device="cpu").decode(torch.tensor(latents)).numpy()
    n, labels = len(batch), batch.column("labels")
    text = pa.array([""] * n)
    columns = {
        "seq": pa.array(range(n), pa.int64()),
        "id": batch.column("id"),
        "uri": text,
        "source_version": text,
        "content_hash": text,
        "width": pa.array([16] * n, pa.int32()),
        "height": pa.array([16] * n, pa.int32()),
        "error": pa.nulls(n, pa.string()),
        "message": pa.nulls(n, pa.string()),
        "pixels": pa.FixedSizeListArray.from_arrays(pa.array(pixels.reshape(-1)), 16 * 16 * 3),
        "labels": labels,
    }
    schema = pixels_schema(16, 16, labels.type)
    return pa.RecordBatch.from_arrays([columns[f.name] for f in schema], schema=schema)


def judge(replicates: int = 100, *, leak: float = 0.0, back: float = 0.0, group: str | None = None) -> Originals:
    options = {"names": ["a", "b"], "leak": leak, "back": back}
    stage = Originals(
        COLUMNS,
        (0, 1),
        "tests.leaky_codec:Patches",
        options,
        scores=2,
        replicates=replicates,
        group=group,
        allow_code=True,
    )
    stage.open("cpu")
    return stage


def split(
    n: int,
    seed: int,
    *,
    leak: float,
    back: float = 0.0,
    evaluated: int = 120,
    replicates: int = 100,
    pictures: bool = False,
    per_group: int = 1,
) -> Found:
    """`pictures`: the response comes from drawn originals; else from what they show, which a reduce over latents scores."""
    batch, shown = simulated(n, seed, per_group=per_group)
    group = "who" if per_group > 1 else None
    plain = directions(step(estimator="mean_difference", holdout=0.0), TYPES, batch)["a"]
    ols = directions(step(holdout=0.0), TYPES, batch)["a"]
    edits = tuple(
        Edit(name, "a", name, d.vector, d.mean, d.sigma)  # type: ignore[arg-type]
        for name, d in (("mean_difference", plain), ("ols", ols))
    )
    design = Design(
        edits, (-1.0, 1.0), "sigma", ("a", "b"), identity=False, replicates=replicates, gradient=True, group=group
    )
    stage = leaky_stage(design, kappa=KAPPA, leak=leak, back=back)
    state = stage.add(stage.start(), batch.slice(0, evaluated))
    assert state.response is not None
    slopes = gradient(state.response)
    assert slopes is not None
    scores = np.array([[1.0, back, 0, 0], [leak, 1.0, 0, 0]])
    both = np.concatenate([slopes, scores])
    sums = reduced(Refit(COLUMNS, both, shown.mean(axis=0), replicates, 0, group), [[batch]])
    mine = sums[..., [0, 1, 2, 5, 6]]
    if pictures:
        mine = reduced(judge(replicates, leak=leak, back=back, group=group), [[originals(batch)]]).sums
    response = ScorerResponse.of(("a", "b"), mine, confidence=0.95)
    found = Results(design, state, 0.95)
    rows = (*blame(found, response, Refits.of(sums[..., :5])), *scorer_leaks(found, response))
    return {(m.metric, m.subject, m.target): m for m in rows}


def units(one: Measurement) -> tuple[float, float, float]:
    detail = json.loads(one.detail)
    return detail["in_score_units"], detail["low"], detail["high"]


@pytest.mark.parametrize("leak", [0.3, 0.0])
def test_data_model_and_scorer_are_told_apart(leak: float) -> None:
    found = split(6000, 0, leak=leak, evaluated=200, pictures=True)
    values = []
    for part, truth in zip(PARTS, (DATA, KAPPA, leak), strict=True):
        value, low, high = units(found[part, "a", "b"])
        assert low <= truth <= high, part
        assert 0 < high - low < 0.15, part
        assert found[part, "a", "b"].status == "ok"
        values.append(value)
    assert sum(values) == pytest.approx(DATA + KAPPA + leak, abs=0.06)
    own = found["scorer_leak", "a", "b"]
    assert own.n == 6000
    assert own.low is not None and own.high is not None
    assert (own.low <= 0 <= own.high) == (leak == 0)
    assert found["scorer_leak", "b", "a"].value == pytest.approx(0, abs=0.03)


def test_a_scorer_that_leaks_both_ways_is_undone() -> None:
    """Plain differences of measured leaks would blame the wrong one here: the effect on `a` is off as well."""
    found = split(20_000, 1, leak=0.3, back=-0.4, evaluated=200)
    for part, truth in (("leak_data", DATA), ("leak_model", KAPPA)):
        value, low, high = units(found[part, "a", "b"])
        assert value == pytest.approx(truth, abs=0.05)
        assert low <= truth <= high
    measured = sum(units(found[part, "a", "b"])[0] for part in PARTS)
    shown = DATA + KAPPA
    assert measured == pytest.approx((shown + 0.3) / (1 - 0.4 * shown), abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("per_group", [1, 5])
def test_the_parts_are_within_their_intervals_as_often_as_they_say(per_group: int) -> None:
    """60 simulations of 1,500 labels: 95 % intervals hold the truths at least 90 % of the time, and are not vacuous. Twelve groups have Student's reach."""
    inside, width = np.zeros(3), []
    for seed in range(60):
        found = split(1500, seed, leak=0.3, evaluated=60, per_group=per_group)
        for at, (part, truth) in enumerate(zip(PARTS, (DATA, KAPPA, 0.3), strict=True)):
            _, low, high = units(found[part, "a", "b"])
            inside[at] += low <= truth <= high
            width.append(high - low)
    assert (inside >= 54).all(), inside
    assert max(width) < 0.39 * np.sqrt(per_group)


def test_a_linear_codec_ties_nothing_and_its_readout_is_the_one_that_leaks() -> None:
    """Least squares on noisy latents borrows from the correlated label: R of the balanced direction is S, to rounding."""
    rng = np.random.default_rng(0)
    first = rng.random(400) < 0.5
    second = np.where(rng.random(400) < 0.8, first, ~first)
    latents = rng.standard_normal((400, 4))
    latents[:, 0] += first
    latents[:, 1] += 2.0 * second
    batch = batch_of(latents.astype(np.float32), {"a": first, "b": second})
    labels = np.column_stack([first, second]).astype(float)
    centred = latents - latents.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred, centred.T @ (labels - labels.mean(axis=0))).T
    readout = Readout(("a", "b"), weights, np.zeros(2), {})
    edits = tuple(
        Edit(e, "a", e, d.vector, d.mean, d.sigma)  # type: ignore[arg-type]
        for e in ("mean_difference", "ols")
        for d in [directions(step(estimator=e, holdout=0.0), TYPES, batch)["a"]]
    )
    design = Design(edits, (-1.0, 1.0), "latent", ("a", "b"), readout, identity=False)
    spec = LinearCodec(dim=4, preprocess=Preprocess(size=32))
    stage = Evaluation(design, CodecSource(spec, lambda: None))
    stage.open("cpu")
    found = Results(design, stage.add(stage.start(), batch), 0.95)
    sums = reduced(Refit(COLUMNS, weights, latents.mean(axis=0), design.replicates, 0, None), [[batch]])
    response = ScorerResponse.of(("a", "b"), sums, confidence=0.95)
    parts = {m.metric: m for m in blame(found, response)}
    assert abs(parts["leak_model"].value) < 0.03  # 8-bit pictures
    y = labels - labels.mean(axis=0)
    yy, yz, zz = y.T @ y, y.T @ centred, centred.T @ centred
    by_hand = np.linalg.solve(yy, yz) @ np.linalg.solve(zz, yz.T)
    np.testing.assert_allclose(response.matrix[0].T, by_hand, atol=1e-6)
    detail = json.loads(parts["leak_scorer"].detail)
    assert detail["of_the_balanced"] == pytest.approx(by_hand[0, 1] / by_hand[0, 0], abs=0.02)
    assert detail["of_the_balanced"] > 0.1
    # A plain step also moves b's label by the labels' slope on one another, and both scores answer to both.
    plain = np.array([1.0, yy[0, 1] / yy[0, 0]])
    shown = plain * np.diagonal(by_hand)
    measured = plain @ by_hand
    whole = measured[1] / measured[0] - shown[1] / shown[0]
    assert detail["in_score_units"] == pytest.approx(whole, abs=0.05)


def test_any_split_of_the_originals_gives_the_same_response() -> None:
    batch, _ = simulated(300, 2)
    pictures = originals(batch)
    stage = judge(12, leak=0.3)
    whole = reduced(stage, [[pictures]])
    parts: Scored = reduced(stage, list(uneven(pictures, 0)))
    np.testing.assert_allclose(parts.sums, whole.sums, atol=1e-9)
    # Drawn originals say what the sums over what they show say.
    shown = reduced(
        Refit(COLUMNS, np.eye(4)[:2] + 0.3 * np.eye(4)[[2, 0]] * [[0], [1]], np.zeros(4), 12, 0, None), [[batch]]
    )
    made, told = (ScorerResponse.of(("a", "b"), s, confidence=0.95).matrix[0] for s in (whole.sums, shown))
    np.testing.assert_allclose(made, told, atol=5e-3)


def test_originals_that_say_nothing_leave_and_are_counted() -> None:
    batch, _ = simulated(60, 3)
    pictures = originals(batch)
    error = pa.array(["gone" if i < 2 else None for i in range(60)])
    labels = pictures.column("labels")
    none = pa.array([i == 5 for i in range(60)])
    kept = pa.array(
        [None if hole else v for hole, v in zip(none.to_pylist(), labels.field("a").to_pylist(), strict=True)]
    )
    labels = pa.StructArray.from_arrays([kept, labels.field("b"), labels.field("who")], ["a", "b", "who"])
    columns = [{"error": error, "labels": labels}.get(f.name, pictures.column(f.name)) for f in pictures.schema]
    schema = pictures.schema.set(pictures.schema.get_field_index("labels"), pa.field("labels", labels.type))
    state = reduced(judge(12), [[pa.RecordBatch.from_arrays(columns, schema=schema)]])
    assert (state.unread, state.unlabelled, state.unscored, state.sums[0, 0, 0]) == (2, 1, 0, 57)


def response_of(values: np.ndarray, scores: np.ndarray) -> ScorerResponse:
    sums = empty_sums(values.shape[1], scores.shape[1], replicates=40)
    add_rows(sums, values.astype(float), scores, hash_ids(pa.array([str(i) for i in range(len(values))])), seed=0)
    return ScorerResponse.of(tuple("abcdef"[: values.shape[1]]), sums, confidence=0.95)


def cases() -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    rng = np.random.default_rng(0)
    y = rng.random((200, 2)) < 0.5
    noise = 0.1 * rng.standard_normal((200, 2))
    yield y[:20], y[:20] + noise[:20], "too_few_labelled"
    yield np.column_stack([y[:, 0], np.ones(200, bool)]), y + noise, "constant_label"
    yield np.column_stack([y[:, 0], ~y[:, 0]]), y + noise, "collinear_labels"
    yield y, y.sum(axis=1, keepdims=True) * np.array([[1.0, 1.001]]) + noise / 1000, "ill_conditioned"


@pytest.mark.parametrize(("labels", "scores", "status"), list(cases()))
def test_a_response_that_cannot_be_undone_is_a_status(labels: np.ndarray, scores: np.ndarray, status: str) -> None:
    found = response_of(labels, scores)
    assert found.why_not("a", "b") == status
    assert np.isnan(found.undone(np.ones((41, 2)))).all()


def test_a_score_that_does_not_see_its_label_costs_its_own_leaks_only() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random((400, 3)) < 0.5
    scores = labels + 0.1 * rng.standard_normal((400, 3))
    scores[:, 2] = rng.standard_normal(400)
    found = response_of(labels, scores)
    assert (found.why_not("a", "b"), found.why_not("a", "c"), found.why_not("a", "x")) == ("", "unseen", "no_label")
    undone = found.undone(np.ones((41, 3)))
    assert np.isfinite(undone[:, :2]).all() and np.isnan(undone[:, 2]).all()


def test_without_a_response_the_model_s_part_says_that_it_is_both() -> None:
    batch, _ = simulated(200, 0)
    edits = tuple(Edit(e, "a", e, np.eye(4)[0], np.zeros(4), 1.0) for e in ("mean_difference", "ols"))
    stage = leaky_stage(Design(edits, (1.0,), "latent", ("a", "b"), identity=False), leak=0.3)
    results = Results(stage.design, stage.add(stage.start(), batch), 0.95)
    response = ScorerResponse.none("collinear_labels", "the labels determine one another")
    found = {m.metric: m for m in blame(results, response)}
    assert units(found["leak_model"])[0] == pytest.approx(KAPPA + 0.3, abs=0.01)
    assert "the scorer's own leaks are in it" in found["leak_model"].message
    assert (found["leak_scorer"].status, found["leak_scorer"].value) == ("collinear_labels", None)


def test_what_a_held_out_score_does_not_see_is_told_with_the_width_of_nothing() -> None:
    """√2 of its replicates' reach: folds say it twice (`crossfit.HALVES`). A score that sees its label is told as it is."""
    matrix = np.array([0.3, 0.1, 0.4])[:, None, None]
    blind = ScorerResponse(("a",), matrix, 100, held_out=True)
    seeing = ScorerResponse(("a",), matrix, 100, held_out=True, usable=(0,))
    np.testing.assert_allclose(blind.own(0), 0.3 + np.sqrt(2) * np.array([0, -0.2, 0.1]))
    np.testing.assert_allclose(seeing.own(0), [0.3, 0.1, 0.4])


def test_whether_leaks_can_be_undone_does_not_hang_on_the_units_of_labels_or_scores() -> None:
    rng, n = np.random.default_rng(2), 300
    labels = (rng.random((n, 2)) < 0.5).astype(float)
    scores = labels @ np.array([[1.0, 0.3], [0.2, 1.0]]) + 0.2 * rng.standard_normal((n, 2))
    hashes = hash_ids(pa.array([f"{i}" for i in range(n)]))
    for unit, said in ((1.0, 1.0), (1e4, 1.0), (1.0, 1e4), (1e-4, 1e4)):
        sums = empty_sums(2, 2, replicates=100)
        add_rows(sums, labels * [1, unit], scores * [said, 1], hashes, seed=0)
        found = ScorerResponse.of(("a", "b"), sums, confidence=0.95)
        assert (found.status, found.usable) == ("", (0, 1)), (unit, said)


def test_a_scorers_leak_is_told_in_deviations_of_the_scores() -> None:
    """The leak of a into b is S_ba/S_aa in units of the scores; a score in hundreds must not make it a hundred times as large."""
    rng, n = np.random.default_rng(4), 300
    labels = (rng.random((n, 2)) < 0.5).astype(float)
    scores = (labels @ np.array([[1.0, 0.3], [0.0, 1.0]]) + 0.2 * rng.standard_normal((n, 2))) * [1, 100]
    sums = empty_sums(2, 2, replicates=100)
    add_rows(sums, labels, scores, hash_ids(pa.array([f"{i}" for i in range(n)])), seed=0)
    stage = leaky_stage(Design((Edit("a", "a", "ols", np.eye(4)[0], np.zeros(4), 1.0),), (1.0,), "latent", ("a", "b"), identity=False))  # fmt: skip
    found = Results(stage.design, stage.add(stage.start(), simulated(60, 0)[0]), 0.95)
    told = {(m.metric, m.subject, m.target): m for m in scorer_leaks(found, ScorerResponse.of(("a", "b"), sums, confidence=0.95))}  # fmt: skip
    slope = np.linalg.lstsq(np.column_stack([np.ones(n), labels]), scores, rcond=None)[0]
    expected = slope[1, 1] / slope[1, 0] * found.sigma[0, 0] / found.sigma[0, 1]
    assert expected > 5 and told["scorer_leak", "a", "b"].value == pytest.approx(expected)
    assert told["scorer_response", "b", "b"].value == pytest.approx(slope[2, 1] / found.sigma[0, 1])
