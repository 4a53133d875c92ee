"""Traversals: each formula holds exactly, every code is numbered and named by its row alone."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.batches import codes_schema
from schemas.codec import LatentSpec
from schemas.errors import JobError, SpaceMismatch
from schemas.steps import TraverseStep
from schemas.tables import latent_field
from stages.code_sets.codes import numbered, strip_name
from stages.code_sets.parents import parents_batch
from stages.code_sets.traverse import CoordinateMoments, Direction, Traverse
from stages.columns import matrix_of

SPEC = LatentSpec(shape=(6,), space="z")
STRENGTHS = (-3.0, -1.5, 0.0, 1.5, 3.0)
MOMENTS = CoordinateMoments(mean=np.arange(6.0), std=np.linspace(0.5, 2, 6))


def direction(name: str = "smiling", seed: int = 0, sigma: float = 2.5) -> Direction:
    vector = np.random.default_rng(seed).standard_normal(6)
    return Direction(name, vector / np.linalg.norm(vector), sigma, np.arange(6.0))


def rows(latents: np.ndarray, ids: list[str] | None = None, start: int = 0, dtype: str = "float32") -> pa.RecordBatch:
    n, d = latents.shape
    kind = np.float16 if dtype == "float16" else np.float32
    field = latent_field("latent", LatentSpec(shape=(d,), space="z"), dtype)
    flat = pa.array(latents.astype(kind).reshape(-1))
    names = ids or [f"img{i}.jpg" for i in range(start, start + n)]
    return parents_batch(
        range(start, start + n), [[i] for i in names], [pa.FixedSizeListArray.from_arrays(flat, type=field.type)]
    )


def latents(n: int = 4, d: int = 6, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def walked(stage: Traverse, z: np.ndarray, **kwargs) -> np.ndarray:
    """(rows, strips, frames, d)"""
    batch = stage(rows(z, **kwargs))
    return matrix_of(batch.column("latent")).reshape(len(z), stage.strips, stage.frames, -1)


def test_the_batch_is_the_contracts():
    batch = Traverse(TraverseStep(directions=("smiling",), name="walk"), [direction()], SPEC)(rows(latents()))
    assert batch.schema.equals(codes_schema(SPEC), check_metadata=True)
    assert batch.num_rows == 4 * 5
    assert batch.column("seq").to_pylist() == list(range(20))
    assert batch.column("frame").to_pylist() == [0, 1, 2, 3, 4] * 4
    assert batch.column("strength").to_pylist() == list(STRENGTHS) * 4
    assert set(batch.column("unit").to_pylist()) == {"sigma"}
    assert batch.column("parents").to_pylist()[5] == ["img1.jpg"]
    assert batch.column("flags").to_pylist() == [[]] * 20
    assert batch.column("id")[7].as_py() == f"walk/{strip_name('img1.jpg', about='smiling')}/002"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_strength_zero_is_the_latent_exactly(dtype):
    z = latents()
    stage = Traverse(TraverseStep(directions=("smiling",)), [direction()], SPEC)
    stored = z.astype(np.float16).astype(np.float32) if dtype == "float16" else z
    np.testing.assert_array_equal(walked(stage, z, dtype=dtype)[:, 0, 2], stored)


@pytest.mark.parametrize(("unit", "scale"), [("latent", 1.0), ("sigma", 2.5)])
def test_add_moves_by_the_strength_in_its_unit(unit, scale):
    z, d = latents(), direction()
    codes = walked(Traverse(TraverseStep(directions=("smiling",), unit=unit), [d], SPEC), z)
    moved = (codes.astype(float) - z[:, None, None]) @ d.vector
    np.testing.assert_allclose(moved[:, 0], np.tile(np.array(STRENGTHS) * scale, (4, 1)), atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(-5, 5), st.sampled_from(["latent", "sigma"]))
def test_set_projection_hits_its_target_and_moves_nothing_else(seed, strength, unit):
    z, d = latents(seed=seed), direction(seed=seed)
    step = TraverseStep(directions=("smiling",), mode="set_projection", unit=unit, strengths=(strength,))
    codes = walked(Traverse(step, [d], SPEC), z)[:, 0, 0].astype(float)
    target = strength * (2.5 if unit == "sigma" else 1)
    np.testing.assert_allclose((codes - d.mean) @ d.vector, target, atol=2e-5)
    across = np.eye(6) - np.outer(d.vector, d.vector)
    np.testing.assert_allclose(codes @ across, z @ across, atol=2e-5)


@pytest.mark.parametrize(
    ("mode", "unit", "expected"),
    [
        ("add", "latent", lambda z, a: z + a),
        ("add", "sigma", lambda z, a: z + a * MOMENTS.std[3]),
        ("set_coordinate", "latent", lambda z, a: 0 * z + a),
        ("set_coordinate", "sigma", lambda z, a: 0 * z + MOMENTS.mean[3] + a * MOMENTS.std[3]),
        ("set_projection", "sigma", lambda z, a: 0 * z + MOMENTS.mean[3] + a * MOMENTS.std[3]),
        ("set_projection", "latent", lambda z, a: 0 * z + MOMENTS.mean[3] + a),
    ],
)
def test_coordinates_in_every_mode_and_unit(mode, unit, expected):
    z = latents()
    codes = walked(Traverse(TraverseStep(coordinates=(3,), mode=mode, unit=unit), [], SPEC, coordinates=MOMENTS), z)
    np.testing.assert_allclose(codes[:, 0, :, 3], expected(z[:, 3:4], np.array([STRENGTHS])), atol=1e-5)
    others = [0, 1, 2, 4, 5]
    np.testing.assert_array_equal(codes[:, 0][..., others], np.repeat(z[:, None, others], 5, axis=1))


def test_codes_do_not_depend_on_how_rows_are_batched():
    z = latents(7)
    step = TraverseStep(directions=("a", "b"), coordinates=(2,), mode="set_projection")
    stage = Traverse(step, [direction("a", 1), direction("b", 2)], SPEC, coordinates=MOMENTS)
    whole = pa.Table.from_batches([stage(rows(z))])
    parts = [stage(rows(z[i : i + 2], start=i)) for i in (4, 0, 6, 2)]
    assert pa.Table.from_batches(parts).sort_by("seq").equals(whole)
    assert whole["seq"].to_pylist() == list(range(7 * 3 * 5))


def test_rows_of_a_slice_are_read_from_their_own_place():
    z = latents(6)
    stage = Traverse(TraverseStep(directions=("smiling",)), [direction()], SPEC)
    part = stage(rows(z).slice(3, 2))
    np.testing.assert_array_equal(matrix_of(part.column("latent")).reshape(2, 5, 6)[:, 2], z[3:5])


def test_a_bad_latent_keeps_its_strip_and_says_why():
    z = latents()
    z[1, 2] = np.nan
    batch = Traverse(TraverseStep(directions=("smiling",)), [direction()], SPEC)(rows(z))
    assert batch.column("flags").to_pylist()[5:10] == [["nan_input"]] * 5
    assert batch.column("latent").is_valid().to_pylist() == [True] * 5 + [False] * 5 + [True] * 10


def test_a_strength_beyond_float32_is_flagged_on_its_frame_alone():
    step = TraverseStep(directions=("smiling",), unit="latent", strengths=(0, 1e39))
    batch = Traverse(step, [direction()], SPEC)(rows(latents(1)))
    assert batch.column("flags").to_pylist() == [[], ["non_finite"]]
    assert batch.column("latent").is_valid().to_pylist() == [True, False]


def test_the_operation_names_the_very_direction_and_leaves_strengths_out():
    def operation(seed: int, **step) -> dict:
        stage = Traverse(TraverseStep(directions=("smiling",), **step), [direction(seed=seed)], SPEC)
        return json.loads(stage(rows(latents(1))).column("operation")[0].as_py())

    assert operation(0) == operation(0, strengths=(1,))
    assert operation(0)["direction"] == "smiling"
    assert operation(0)["sigma"] == 2.5
    assert operation(0)["vector"] != operation(1)["vector"]


@pytest.mark.parametrize(
    ("step", "directions", "moments", "error", "said"),
    [
        (TraverseStep(coordinates=(6,)), [], MOMENTS, JobError, "0 to 5"),
        (TraverseStep(coordinates=(1,)), [], None, JobError, "not known"),
        (TraverseStep(directions=("s",)), [direction("s"), direction("s")], None, JobError, "more than once"),
        (TraverseStep(directions=("s",)), [direction("s", sigma=0.0)], None, JobError, "standard deviation is 0"),
        (TraverseStep(directions=("s",)), [Direction("s", np.ones(6), 1, np.zeros(6))], None, JobError, "not 1"),
        (
            TraverseStep(directions=("s",)),
            [Direction("s", np.ones(4) / 2, 1, np.zeros(4))],
            None,
            SpaceMismatch,
            "4 numb",
        ),
        (TraverseStep(directions=("s",)), [], None, JobError, "nothing to walk"),
    ],
)
def test_what_cannot_be_walked_is_refused_by_name(step, directions, moments, error, said):
    with pytest.raises(error, match=said):
        Traverse(step, directions, SPEC, coordinates=moments)


AWKWARD = [
    "../../etc/passwd",
    "/abs/olute.png",
    "..",
    ".",
    "",
    "a\\..\\b",
    "C:\\x",
    "naïve é.jpg",
    "图像/一.png",
    "a\0b",
    "~/x",
]


@pytest.mark.parametrize("image_id", AWKWARD)
def test_strip_names_are_plain_path_parts_whatever_the_id(image_id):
    name = strip_name(image_id, about="../" + image_id)
    assert name
    assert all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
    assert len(name) <= 84


@settings(deadline=None)
@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=30))
def test_strip_names_tell_ids_apart_even_where_case_does_not(a, b, about):
    assert (strip_name(a, about=about).lower() == strip_name(b, about=about).lower()) == (a == b)


def test_strip_names_frame_their_parts():
    assert strip_name("ab", "c") != strip_name("a", "bc")
    assert strip_name("ab", about="c") != strip_name("a", about="bc")
    assert strip_name("faces/000123.jpg", about="smiling").startswith("faces-000123-jpg_smiling_")


def test_no_rows_make_no_codes():
    batch = Traverse(TraverseStep(directions=("smiling",)), [direction()], SPEC)(rows(latents(0)))
    assert batch.num_rows == 0
    assert batch.schema.equals(codes_schema(SPEC))


def test_codes_are_renumbered_and_nothing_else_of_them_changes():
    codes = Traverse(TraverseStep(directions=("smiling",)), [direction()], SPEC)(rows(latents(1)))
    moved = numbered(codes, 7)
    assert moved.column("seq").to_pylist() == [7, 8, 9, 10, 11]
    assert moved.schema.equals(codes.schema, check_metadata=True) and moved.drop_columns("seq").equals(
        codes.drop_columns("seq")
    )
