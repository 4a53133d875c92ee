"""Decode: every code keeps its row; those without a picture say why."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from schemas.batches import codes_schema
from schemas.codec import CustomCodec, LatentSpec, LinearCodec, Preprocess
from schemas.errors import SpaceMismatch
from schemas.tables import with_shape
from stages.codecs.factory import open_codec
from stages.columns import column_of, matrix_of
from stages.decode import Decode
from tests.codec_cases import RAISES

SIZE = Preprocess(size=(8, 12))
LINEAR = LinearCodec(dim=5, preprocess=SIZE)
STUBBORN = CustomCodec(entry="tests.codec_cases:StubbornCodec", preprocess=SIZE)


def codes(latents: np.ndarray, *, null: tuple[int, ...] = (), space: str = "z") -> pa.RecordBatch:
    n, dim = latents.shape
    schema = codes_schema(LatentSpec(shape=(dim,), space=space))
    valid = ~np.isin(np.arange(n), null)
    columns = {
        "seq": list(range(n)),
        "id": [f"set/{i}/0" for i in range(n)],
        "parents": [["a.png"]] * n,
        "operation": ["{}"] * n,
        "strip": [str(i) for i in range(n)],
        "frame": [0] * n,
        "frames": [1] * n,
        "title": ["smiling"] * n,
        "strength": [1.0] * n,
        "unit": ["sigma"] * n,
        "moved": [None] * n,
        "flags": [["clipped"] if i == 1 else [] for i in range(n)],
    }
    arrays = [
        column_of(latents.astype(np.float32), field, valid=valid)
        if field.name == "latent"
        else pa.array(columns[field.name], field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def opened(spec: LinearCodec | CustomCodec) -> Decode:
    stage = Decode(spec, weights=None, allow_code=True)
    stage.open("cpu")
    return stage


def test_pictures_are_the_codecs_own_and_the_codes_are_untouched() -> None:
    latents = np.random.default_rng(0).standard_normal((6, 5)).astype(np.float32)
    batch = codes(latents)
    out = opened(LINEAR)(batch)
    out.validate(full=True)
    assert out.select(batch.schema.names).equals(batch)
    assert with_shape(out.schema.field("pixels")) == (8, 12, 3)
    expected = open_codec(LINEAR).decode(torch.from_numpy(latents)).flatten(1).numpy()
    assert np.array_equal(matrix_of(out.column("pixels")), expected)


def test_a_code_without_a_latent_passes_with_no_picture() -> None:
    latents = np.random.default_rng(0).standard_normal((4, 5))
    out = opened(LINEAR)(codes(latents, null=(2,)))
    out.validate(full=True)
    assert out.column("pixels").is_null().to_pylist() == [False, False, True, False]
    assert out.column("flags").to_pylist() == [[], ["clipped"], [], []]
    whole = opened(LINEAR)(codes(latents))
    assert np.array_equal(matrix_of(out.column("pixels"))[3], matrix_of(whole.column("pixels"))[3])


def test_a_code_that_is_not_finite_is_flagged_beside_its_other_flags() -> None:
    latents = np.zeros((4, 5))
    latents[1, 2], latents[3, 0] = np.nan, np.inf
    out = opened(LINEAR)(codes(latents))
    assert out.column("pixels").is_null().to_pylist() == [False, True, False, True]
    assert out.column("flags").to_pylist() == [[], ["clipped", "non_finite"], [], ["non_finite"]]


def test_the_code_the_codec_raises_on_is_flagged_alone() -> None:
    latents = np.full((5, 2), 9.0)
    latents[3, 0] = RAISES
    out = opened(STUBBORN)(codes(latents))
    assert out.column("pixels").is_null().to_pylist() == [False, False, False, True, False]
    assert out.column("flags").to_pylist()[3] == ["codec_error"]
    assert matrix_of(out.column("pixels"))[4, :2].tolist() == [9, 9]


@pytest.mark.parametrize("count", [0, 3])
def test_batches_without_any_picture(count: int) -> None:
    out = opened(LINEAR)(codes(np.full((count, 5), np.nan)))
    out.validate(full=True)
    assert len(out) == out.column("pixels").null_count == count


def test_a_slice_of_a_batch_decodes_its_own_rows() -> None:
    latents = np.random.default_rng(0).standard_normal((9, 5))
    batch = codes(latents, null=(0, 5))
    assert opened(LINEAR)(batch.slice(4, 3)).equals(opened(LINEAR)(batch).slice(4, 3))


@pytest.mark.parametrize(("dim", "space"), [(4, "z"), (5, "w")])
def test_codes_of_another_space_are_refused(dim: int, space: str) -> None:
    with pytest.raises(SpaceMismatch, match="the codec has shape"):
        opened(LINEAR)(codes(np.zeros((2, dim)), space=space))
