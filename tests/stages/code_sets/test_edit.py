"""Edits: every mode's formula holds exactly, masks keep what lies outside them, and what cannot be done is refused."""

import json

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from schemas.batches import codes_schema
from schemas.codec import LatentSpec
from schemas.errors import JobError, SpaceMismatch
from schemas.steps import Change, EditStep, TraverseStep, TrustRegion
from stages.code_sets.axes import CoordinateMoments, Direction
from stages.code_sets.edit import Edit
from stages.code_sets.gaussian import Gaussian
from stages.code_sets.parents import parents_batch, parents_schema
from stages.code_sets.traverse import Traverse
from stages.code_sets.trust import Trust, ellipsoid
from stages.columns import column_of, matrix_of

D = 6
SPEC = LatentSpec(shape=(D,), space="z")
LAYERED = LatentSpec(shape=(4, 3), space="w+", axes=("layer", "feature"))
SPATIAL = LatentSpec(shape=(2, 3, 4), space="z")
MEAN = np.arange(1.0, D + 1)


def direction(
    name: str, seed: int, *, spec: LatentSpec = SPEC, sigma: float = 2.0, effect: float | None = 0.5
) -> Direction:
    vector = np.random.default_rng(seed).standard_normal(spec.dim)
    mean = MEAN if spec is SPEC else np.zeros(spec.dim)
    return Direction(name, vector / np.linalg.norm(vector), sigma, mean, effect)


SMILE, GLASSES = direction("smile", 0), direction("glasses", 1, sigma=0.5)


def edit(*changes: Change, spec: LatentSpec = SPEC, directions=(SMILE, GLASSES), trust=None, **step) -> Edit:
    coordinates = CoordinateMoments(MEAN, np.full(D, 3.0)) if spec is SPEC else None
    return Edit(EditStep(changes=changes, **step), directions, spec, coordinates=coordinates, trust=trust)


def latents(n: int = 5, spec: LatentSpec = SPEC, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, spec.dim)).astype(np.float32)


def rows(z: np.ndarray, spec: LatentSpec = SPEC, *, start: int = 0) -> pa.RecordBatch:
    field = parents_schema(spec, 1).field("latent_0")
    return parents_batch(
        range(start, start + len(z)), [[f"i{k}"] for k in range(start, start + len(z))], [column_of(z, field)]
    )


def edited(stage: Edit, z: np.ndarray, spec: LatentSpec = SPEC) -> np.ndarray:
    """(rows, frames, d) float64"""
    return matrix_of(stage(rows(z, spec)).column("latent")).reshape(len(z), stage.frames, spec.dim).astype(np.float64)


def to(name: str, strength: float, **within) -> Change:
    return Change(direction=name, strength=strength, **within)


def test_the_batch_is_the_contracts_and_says_what_was_done():
    stage = edit(to("smile", 2), to("glasses", -1), name="nicer", parts=(0, 0.5, 1), mode="set_projection")
    batch = stage(rows(latents()))
    assert batch.schema.equals(codes_schema(SPEC), check_metadata=True)
    assert batch.column("seq").to_pylist() == list(range(15)) and batch.column("frame").to_pylist() == [0, 1, 2] * 5
    assert set(batch.column("title").to_pylist()) == {"smile, glasses"} and set(batch.column("unit").to_pylist()) == {
        "part"
    }
    (said,) = {*batch.column("operation").to_pylist()}
    operation = json.loads(said)
    assert (operation["stage"], operation["mode"], operation["unit"]) == ("edit", "set_projection", "sigma")
    assert [(c["direction"], c["strength"]) for c in operation["changes"]] == [("smile", 2), ("glasses", -1)]
    assert batch.column("flags").to_pylist() == [[]] * 15


@pytest.mark.parametrize(("unit", "lengths"), [("latent", (1, 1)), ("sigma", (2, 0.5)), ("effect", (0.5, 0.5))])
def test_add_moves_by_the_sum_of_its_strengths_in_their_unit(unit, lengths):
    z = latents()
    codes = edited(edit(to("smile", 2), to("glasses", -3), unit=unit, parts=(0, 0.5, 1)), z)
    whole = 2 * lengths[0] * SMILE.vector - 3 * lengths[1] * GLASSES.vector
    np.testing.assert_array_equal(codes[:, 0], z)
    np.testing.assert_allclose(codes[:, 1] - z, np.tile(whole / 2, (5, 1)), atol=1e-6)
    np.testing.assert_allclose(codes[:, 2] - z, np.tile(whole, (5, 1)), atol=1e-6)


def test_set_projection_reaches_all_set_points_at_once_where_one_after_the_other_misses():
    z = latents()
    assert abs(SMILE.vector @ GLASSES.vector) > 0.1, "correlated directions, or the test proves nothing"
    (codes,) = edited(edit(to("smile", 1), to("glasses", 2), mode="set_projection", parts=(1,)), z).swapaxes(0, 1)
    for d, target in ((SMILE, 1 * 2.0), (GLASSES, 2 * 0.5)):
        np.testing.assert_allclose((codes - MEAN) @ d.vector, target, atol=1e-5)
    # It is the nearest such code: what it moved lies in the directions' plane.
    plane = np.linalg.qr(np.stack([SMILE.vector, GLASSES.vector]).T)[0]
    np.testing.assert_allclose((codes - z) - (codes - z) @ plane @ plane.T, 0, atol=1e-6)
    (alone,) = edited(edit(to("smile", 1), to("glasses", 2), mode="set_coordinate", parts=(1,)), z).swapaxes(0, 1)
    assert np.abs((alone - MEAN) @ SMILE.vector - 2.0).max() > 0.05


def test_set_coordinate_is_ganspaces():
    """As e4e computes it: coordinate = (w − mean)·comp / std, delta = (α − coordinate)·comp·std, added in a range of layers."""
    component = np.random.default_rng(5).standard_normal(3)
    component /= np.linalg.norm(component)
    mean, std, strength = np.array([0.5, -1, 2]), 1.7, 2.5
    w = np.repeat(latents(4, LatentSpec(shape=(3,), space="w"))[:, None], 4, axis=1)  # one w in all layers
    coordinate = (w[:, 0] - mean) @ component / std
    expected = w.astype(np.float64)
    expected[:, 1:3] += ((strength - coordinate)[:, None] * component * std)[:, None]
    # The same component over all four layers: a unit vector of the whole latent, along which the data spread √4 as far.
    whole = Direction("age", np.tile(component, 4) / 2, std * 2, np.tile(mean, 4))
    stage = edit(
        to("age", strength, layers=(1, 3)), directions=[whole], spec=LAYERED, mode="set_coordinate", parts=(1,)
    )
    np.testing.assert_allclose(edited(stage, w.reshape(4, 12), LAYERED).reshape(4, 4, 3), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["add", "set_projection", "set_coordinate"])
@pytest.mark.parametrize(
    ("spec", "within", "inside"),
    [
        (LAYERED, {"layers": (1, 3)}, np.s_[1:3]),
        (SPATIAL, {"channels": (1,)}, np.s_[1]),
        (SPATIAL, {"region": (0, 1, 2, 4)}, np.s_[:, 0:2, 1:4]),
        (SPATIAL, {"region": (0, 1, 2, 4), "channels": (0,)}, np.s_[0, 0:2, 1:4]),
    ],
)
def test_a_mask_keeps_what_lies_outside_and_set_points_are_reached_inside_it(mode, spec, within, inside):
    z = latents(5, spec)
    named = [direction("a", 7, spec=spec), direction("b", 8, spec=spec)]
    changes = (to("a", 1, **within), to("b", -1, **within))
    (codes,) = edited(edit(*changes, spec=spec, directions=named, mode=mode, parts=(1,)), z, spec).swapaxes(0, 1)
    kept = np.ones(spec.shape, bool)
    kept[inside] = False
    np.testing.assert_array_equal(codes[:, kept.reshape(-1)], z[:, kept.reshape(-1)])
    assert (codes[:, ~kept.reshape(-1)] != z[:, ~kept.reshape(-1)]).all()
    if mode == "set_projection":
        np.testing.assert_allclose(codes @ named[0].vector, 2.0, atol=1e-5)
        np.testing.assert_allclose(codes @ named[1].vector, -2.0, atol=1e-5)


def test_set_points_are_reached_where_every_change_has_a_mask_of_its_own():
    z = latents(5, LAYERED)
    named = [direction(name, 7 + i, spec=LAYERED) for i, name in enumerate("abc")]
    changes = (to("a", 1, layers=(0, 2)), to("b", -1, layers=(1, 4)), to("c", 0.5))
    (codes,) = edited(
        edit(*changes, spec=LAYERED, directions=named, mode="set_projection", parts=(1,)), z, LAYERED
    ).swapaxes(0, 1)
    reached = codes @ np.stack([d.vector for d in named]).T
    np.testing.assert_allclose(reached, np.tile([2.0, -2.0, 1.0], (5, 1)), atol=1e-5)


def test_one_direction_is_a_traversal():
    z = latents()
    for mode in ("add", "set_projection"):
        walk = Traverse(TraverseStep(directions=("smile",), strengths=(1.5,), mode=mode), [SMILE], SPEC)(rows(z))
        np.testing.assert_array_equal(
            edited(edit(to("smile", 1.5), mode=mode, parts=(1,)), z)[:, 0], matrix_of(walk.column("latent"))
        )
    for mode in ("add", "set_projection", "set_coordinate"):
        step = TraverseStep(coordinates=(2,), strengths=(1.5,), mode=mode)
        walk = Traverse(step, [], SPEC, coordinates=CoordinateMoments(MEAN, np.full(D, 3.0)))(rows(z))
        stage = edit(Change(coordinate=2, strength=1.5), mode=mode, parts=(1,))
        np.testing.assert_allclose(edited(stage, z)[:, 0], matrix_of(walk.column("latent")), atol=1e-6)


def test_any_batch_size_gives_the_same_codes():
    z = latents(23)
    trust = Trust(ellipsoid(Gaussian(MEAN, np.diag(np.linspace(1, 2, D)), 0.25), TrustRegion(), at="edit"), clip=True)
    stage = edit(to("smile", 2), to("glasses", 9), mode="set_projection", trust=trust)
    whole = stage(rows(z))
    parts = [stage(rows(z[i:j], start=i)) for i, j in ((0, 1), (1, 8), (8, 23))]
    assert whole.equals(pa.Table.from_batches(parts).combine_chunks().to_batches()[0])
    assert any("clipped" in f for f in whole.column("flags").to_pylist())


def test_a_row_that_is_not_finite_and_one_that_overflows_are_flagged_and_keep_their_place():
    z = latents(3)
    z[1, 2] = np.nan
    batch = edit(to("smile", 1e39), unit="latent")(rows(z))
    assert batch.column("flags").to_pylist() == [[], ["non_finite"], ["nan_input"], ["nan_input"], [], ["non_finite"]]
    assert batch.column("latent").is_valid().to_pylist() == [True, False, False, False, True, False]


@pytest.mark.parametrize(
    ("changes", "step", "word"),
    [
        ((to("smile", 1), to("twin", 2)), {"mode": "set_projection"}, "smile, twin"),
        ((to("smile", 1), to("noscore", 2)), {"unit": "effect"}, "no score"),
        ((to("still", 1),), {}, "standard deviation is 0"),
        ((Change(coordinate=6, strength=1),), {}, "use 0 to 5"),
        ((to("smile", 1, layers=(0, 1)),), {}, "have no layer"),
        ((to("smile", 1, channels=(0,)),), {}, "have no channel"),
    ],
)
def test_what_cannot_be_done_is_refused(changes, step, word):
    twin = Direction("twin", SMILE.vector, 1.0, MEAN, 1.0)
    others = [direction("noscore", 3, effect=None), direction("still", 4, sigma=0.0)]
    with pytest.raises(JobError, match=word):
        edit(*changes, directions=[SMILE, GLASSES, twin, *others], **step)


def test_a_mask_that_leaves_nothing_to_tell_directions_apart_is_refused():
    one = Direction("one", np.array([1.0, 0, 0, 0, 0, 0] * 2) / np.sqrt(2), 1.0, np.zeros(12))
    two = Direction("two", np.array([1.0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]) / np.sqrt(2), 1.0, np.zeros(12))
    make = {"directions": [one, two], "spec": LAYERED, "mode": "set_projection"}
    edit(to("one", 1), to("two", 1), **make)
    with pytest.raises(JobError, match="collinear inside their layers"):
        edit(to("one", 1, layers=(0, 2)), to("two", 1, layers=(0, 2)), **make)
    # A mask that leaves next to nothing of a direction: its set-point is 10⁸ away.
    faint = np.zeros(12)
    faint[[0, 6]] = 1e-4, np.sqrt(1 - 1e-8)
    other = Direction("other", np.eye(12)[1], 1.0, np.zeros(12))
    make["directions"] = [Direction("faint", faint, 1.0, np.zeros(12)), other, one]
    with pytest.raises(JobError, match="collinear inside their layers"):
        edit(to("faint", 1, layers=(0, 2)), to("other", 1, layers=(0, 2)), **make)
    with pytest.raises(JobError, match="stay within 0 to 4"):
        edit(to("one", 1, layers=(2, 5)), **make)
    with pytest.raises(JobError, match=r"it holds no layers\. Fix: write \[first, last\], with last beyond first"):
        edit(to("one", 1, layers=(2, 2)), **make)


def test_a_direction_of_another_space_is_refused():
    with pytest.raises(SpaceMismatch):
        edit(to("wide", 1), directions=[direction("wide", 0, spec=SPATIAL)])


@pytest.mark.parametrize(
    "fields",
    [
        {"changes": []},
        {"changes": [{"strength": 1}]},
        {"changes": [{"direction": "a", "coordinate": 1, "strength": 1}]},
        {"changes": [{"direction": "a", "strength": 1}, {"direction": "a", "strength": 2}]},
        {"changes": [{"coordinate": 1, "strength": 1}], "unit": "effect"},
        {"changes": [{"direction": "a", "strength": 1, "layers": [0, 1], "channels": [0]}]},
    ],
)
def test_specs_that_make_no_sense_are_refused(fields):
    with pytest.raises(ValidationError):
        EditStep.model_validate(fields)
