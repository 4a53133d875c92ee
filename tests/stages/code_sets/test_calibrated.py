"""Strength by effect, row by row: decoded pictures show what was asked, or the code says that they do not."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from schemas.codec import CustomCodec, LatentSpec, LinearCodec, Preprocess
from schemas.errors import JobError
from schemas.steps import Change, EditStep, TraverseStep, TrustRegion
from stages.code_sets.axes import Direction
from stages.code_sets.calibrated import REACH, TOLERANCE, TRIES, solve
from stages.code_sets.edit import Edit
from stages.code_sets.gaussian import Gaussian
from stages.code_sets.parents import parents_batch, parents_schema
from stages.code_sets.traverse import Traverse
from stages.code_sets.trust import Trust, ellipsoid
from stages.codecs.base import Codec
from stages.codecs.linear import Linear
from stages.columns import column_of, matrix_of
from tests.codec_cases import NoiseCodec
from tests.saturating_codec import SaturatingCodec

D = 4
EFFECT = 0.5
LINEAR = Linear(LinearCodec(dim=D, preprocess=Preprocess(size=(16, 16))))
BLANK = 3.0
BENDING = SaturatingCodec(
    CustomCodec(entry="a:B", preprocess=Preprocess(size=(16, 16)), options={"dim": D, "blank": BLANK}), device="cpu"
)
FIRST = Direction("first", np.eye(D)[0], 1.0, np.zeros(D), EFFECT)
SLANTED = Direction("slanted", np.array([0.6, -0.8, 0, 0]), 1.0, np.zeros(D), EFFECT)
STRENGTHS = (-1.0, 0.0, 0.5, 1.0)


def latents(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n, D)).astype(np.float32)


def rows(z: np.ndarray, *, start: int = 0, spec: LatentSpec = LINEAR.latent) -> pa.RecordBatch:
    ids = [[f"i{k}"] for k in range(start, start + len(z))]
    return parents_batch(range(start, start + len(z)), ids, [column_of(z, parents_schema(spec, 1).field("latent_0"))])


def walk(codec: Codec, direction: Direction = FIRST, *, trust: Trust | None = None, **fields) -> Traverse:
    step = TraverseStep(
        **{
            "name": "walk",
            "directions": (direction.name,),
            "unit": "effect",
            "strengths": STRENGTHS,
            "calibrate": "row",
        }
        | fields
    )
    return Traverse(step, [direction], codec.latent, trust=trust)


def codes(batch: pa.RecordBatch, frames: int = len(STRENGTHS)) -> np.ndarray:
    return matrix_of(batch.column("latent")).reshape(-1, frames, D).astype(np.float64)


def shown(codec: Codec, z: np.ndarray, direction: Direction = FIRST) -> np.ndarray:
    """The score of what is decoded, read back: rows (…, d)."""
    back = codec.encode(codec.decode(torch.from_numpy(z.reshape(-1, D).astype(np.float32)))).mean
    return (back.double().numpy() @ direction.vector / EFFECT).reshape(z.shape[:-1])


@pytest.mark.parametrize("direction", [FIRST, SLANTED])
def test_on_the_exact_codec_the_length_is_the_linear_one(direction):
    z = latents(20)
    found = codes(walk(LINEAR, direction)(rows(z), LINEAR))
    mean = codes(walk(LINEAR, direction, calibrate="mean")(rows(z)))
    np.testing.assert_allclose(
        (found - z[:, None]) @ direction.vector, np.tile(np.array(STRENGTHS) * EFFECT, (20, 1)), atol=1e-6
    )
    np.testing.assert_allclose(found, mean, atol=1e-6)
    np.testing.assert_array_equal(found[:, 1], z)


def test_where_pictures_saturate_every_row_gets_its_own_length_and_the_mean_one_misses():
    z = latents(60)
    z[:, 0] *= 1.8  # up to tanh(0.9) + 0.25, which is below 1
    batch = walk(BENDING, strengths=(-0.5, 0.5))(rows(z), BENDING)
    assert batch.column("flags").to_pylist() == [[]] * 120
    asked, found = np.array([-0.5, 0.5]), codes(batch, 2)
    closed = np.arctanh(np.tanh(z[:, :1]) + asked * EFFECT) - z[:, :1]
    lengths = found[:, :, 0] - z[:, :1]
    # A score within 2 % of what was asked is a length within 2 % of it over the least slope on the way.
    slope = 1 - np.maximum(np.tanh(z[:, :1]) ** 2, np.tanh(z[:, :1] + lengths) ** 2)
    assert (np.abs(lengths - closed) <= (0.5 * TOLERANCE * EFFECT + 1e-3) / slope).all()
    assert np.ptp(lengths[:, 1]) > 0.15, "rows differ, or the test proves nothing"
    missed = np.abs(shown(BENDING, found) - shown(BENDING, z)[:, None] - asked)
    assert missed.max() <= TOLERANCE * 0.5 + 1e-6
    linear = codes(walk(BENDING, strengths=(-0.5, 0.5), calibrate="mean")(rows(z)), 2)
    assert np.abs(shown(BENDING, linear) - shown(BENDING, z)[:, None] - asked).mean() > 10 * missed.mean()


def test_what_no_length_reaches_comes_as_near_as_was_found_and_is_flagged():
    """tanh ends at 1: from z₀ = 1 the score can rise by (1 − .76)/.5 = .48, and no more; the look ends at 6 sigma."""
    z = latents(2)
    z[0, 0], z[1, 0] = 1.0, -1.0
    batch = walk(BENDING, strengths=(1.0,))(rows(z), BENDING)
    assert batch.column("flags").to_pylist() == [["effect_unreached"], []]
    found = codes(batch, 1)[:, 0]
    change = shown(BENDING, found) - shown(BENDING, z)
    assert change[0] == pytest.approx((1 - np.tanh(1)) / EFFECT, abs=0.01) and change[1] == pytest.approx(
        1, abs=TOLERANCE
    )
    assert 1 < found[0, 0] <= 1 + REACH + 1e-6


def test_inside_a_trust_region_codes_stop_at_its_edge_and_say_both():
    z = latents(12)
    region = ellipsoid(Gaussian(np.zeros(D), np.full(D, 0.3), 1.0), TrustRegion(limit=1.5), at="walk")
    batch = walk(BENDING, trust=Trust(region, clip=True), strengths=(0.1, 2.4))(rows(z), BENDING)
    flags = batch.column("flags").to_pylist()
    assert flags[::2] == [[]] * 12, "what is within reach is reached"
    assert flags[1::2] == [["effect_unreached", "clipped"]] * 12
    found = codes(batch, 2)
    assert not region.outside(found[:, 1] - 1e-4 * (found[:, 1] - z)).any()
    assert region.outside(found[:, 1] + 1e-4 * (found[:, 1] - z)).all(), "they stand at the edge"
    only = Trust(region, clip=False)
    flagged = walk(BENDING, trust=only, strengths=(0.1, 0.9))(rows(z), BENDING).column("flags").to_pylist()
    assert ["atypical"] in flagged and not any("clipped" in f for f in flagged)


def test_a_rows_answer_does_not_depend_on_its_batch():
    z = latents(9)
    z[4, 1] = np.nan
    for codec in (LINEAR, BENDING):
        stage = walk(codec)
        whole = stage(rows(z), codec)
        parts = [stage(rows(z[a:b], start=a), codec) for a, b in ((0, 1), (1, 6), (6, 9))]
        assert pa.Table.from_batches(parts).combine_chunks().to_batches()[0].equals(whole)
        assert whole.column("flags").to_pylist()[16:20] == [["nan_input"]] * 4


def test_a_row_whose_own_picture_has_no_score_is_lost_and_says_so():
    z = latents(3)
    z[1, -1] = 2 * BLANK
    batch = walk(BENDING)(rows(z), BENDING)
    assert batch.column("flags").to_pylist() == [[]] * 4 + [["non_finite"]] * 4 + [[]] * 4
    assert batch.column("latent").null_count == 4


def test_an_edit_with_one_change_is_a_traversal_and_a_mask_is_looked_through():
    z = latents(10)
    change = Change(direction="first", strength=2.0)
    step = EditStep(name="e", changes=(change,), unit="effect", calibrate="row", parts=(-0.25, 0, 0.25))
    made = codes(Edit(step, [FIRST], BENDING.latent)(rows(z), BENDING), 3)
    np.testing.assert_array_equal(made, codes(walk(BENDING, strengths=(-0.5, 0, 0.5))(rows(z), BENDING), 3))
    layered = LatentSpec(shape=(2, 2), space="z", axes=("layer", "feature"))
    both = Direction("both", np.array([0.6, 0, 0.8, 0]), 1.0, np.zeros(D), EFFECT)
    half = EditStep(
        name="e",
        changes=(Change(direction="both", strength=0.4, layers=(0, 1)),),
        unit="effect",
        calibrate="row",
        parts=(1.0,),
    )
    masked = codes(Edit(half, [both], layered)(rows(z, spec=layered), BENDING), 1)
    np.testing.assert_array_equal(masked[:, 0, 1:], z[:, 1:])
    change_shown = shown(BENDING, masked, both)[:, 0] - shown(BENDING, z, both)
    np.testing.assert_allclose(change_shown, 0.4, atol=0.4 * TOLERANCE + 1e-6)


def test_decodes_are_counted_and_few_enough_whatever_the_curve():
    calls = []

    def counted(curve):
        def change(steps):
            calls.append(len(steps))
            return curve(steps)

        return change

    asked, wide = np.array([0.7, -0.7, 0.01, 0.0]), np.full(4, 50.0)
    for curve in (
        np.tanh,
        lambda a: a**3 / 40,
        lambda a: np.sign(a) * np.expm1(np.abs(a)),
        lambda a: 0.01 * a + 0.5 * np.tanh(40 * a),
    ):
        calls.clear()
        found = solve(counted(curve), asked, linear=np.array([2.0, -2.0, 0.5, 0.0]), bound=wide)
        assert found.reached.all() and not found.stopped.any()
        np.testing.assert_allclose(curve(found.lengths), asked, rtol=TOLERANCE)
        assert 1 <= len(calls) <= TRIES and set(calls) == {4}
    first = solve(counted(lambda a: a), asked, linear=asked, bound=wide)
    np.testing.assert_array_equal(first.lengths, asked)
    # A jump over what is asked, a score that goes the wrong way, one that is lost on the way: none is passed off as reached.
    for curve, nearest in (
        (lambda a: np.where(np.abs(a) > 1, 2.0, 0.1) * np.sign(a), 0.1),
        (lambda a: -a, 0.0),
        (lambda a: np.where(np.abs(a) > 1, np.nan, a / 2), 0.5),
    ):
        found = solve(curve, np.array([0.7, -0.7]), linear=np.array([2.0, -2.0]), bound=np.full(2, 50.0))
        assert not found.reached.any()
        np.testing.assert_allclose(np.abs(curve(found.lengths)), nearest, atol=0.01)


def test_what_cannot_be_solved_by_row_is_refused():
    for fields in ({"unit": "sigma"}, {"mode": "set_projection"}):
        with pytest.raises(ValidationError, match="added can be solved"):
            walk(BENDING, **fields)
    two = (Change(direction="first", strength=1), Change(direction="slanted", strength=1))
    with pytest.raises(ValidationError, match="no one length"):
        EditStep(changes=two, unit="effect", calibrate="row")
    still = Direction("still", np.eye(D)[0], 0.0, np.zeros(D), EFFECT)
    with pytest.raises(JobError, match="trust region"):
        walk(BENDING, still)(rows(latents(1)), BENDING)
    with pytest.raises(JobError, match="cannot decode"):
        walk(BENDING)(
            rows(latents(1)), NoiseCodec(CustomCodec(entry="a:B", preprocess=Preprocess(size=(8, 8))), device="cpu")
        )
