"""Encode: every row ends with a latent or a reason, in its place; values are the codec's own."""

import pickle
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.batches import encoded_schema, pixels_schema
from schemas.codec import CodecSpec, ConvVAECodec, CustomCodec, LatentSpec, LinearCodec, PatchesCodec, Preprocess
from schemas.errors import JobError, SpaceMismatch
from schemas.tables import labels_type, latents_schema
from stages.codecs.factory import describe, open_codec
from stages.codecs.weights import Weights
from stages.columns import column_of, matrix_of
from stages.encode import Encode
from stages.guarded import Guarded
from tests.codec_cases import HUGE, NAN, RAISES, StubbornCodec, pictures, weights_of

SIZE = Preprocess(size=(16, 16))
LINEAR = LinearCodec(dim=5, preprocess=SIZE)
STUBBORN = CustomCodec(entry="tests.codec_cases:StubbornCodec", preprocess=SIZE)
NOW = datetime(2026, 1, 2, tzinfo=UTC)
LABELS = labels_type({"smiling": "bool", "age": "float"})


def batch_of(images: torch.Tensor, errors: dict[int, tuple[str, str]] | None = None) -> pa.RecordBatch:
    """A batch as the reader makes it; rows in `errors` came in broken, with black pixels."""
    schema = pixels_schema(16, 16, LABELS)
    n, errors = len(images), errors or {}
    values = images.flatten(1).numpy().copy()
    values[list(errors)] = 0
    columns = {
        "seq": list(range(n)),
        "id": [f"{i}.png" for i in range(n)],
        "uri": [f"s3://b/{i}.png" for i in range(n)],
        "source_version": ["v"] * n,
        "content_hash": [None if i in errors else f"h{i}" for i in range(n)],
        "width": [None if i in errors else 20 for i in range(n)],
        "height": [None if i in errors else 30 for i in range(n)],
        "error": [errors.get(i, (None, None))[0] for i in range(n)],
        "message": [errors.get(i, (None, None))[1] for i in range(n)],
        "labels": [{"smiling": i % 2 == 0, "age": None} for i in range(n)],
    }
    arrays = [
        column_of(values, field) if field.name == "pixels" else pa.array(columns[field.name], field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def stage_of(spec: CodecSpec, weights: Weights | None = None, *, dtype: str = "float32", logvar: bool = True) -> Encode:
    known = describe(spec, weights, allow_code=True)
    schema = latents_schema(
        known.latent, dtype=dtype, labels=LABELS, logvar=logvar and known.logvar, metadata={"a": "b"}
    )
    stage = Encode(spec, weights=weights, latents=schema, run_id="run-1", encoded_at=NOW, allow_code=True)
    stage.open("cpu")
    return stage


def special(**rows: int) -> torch.Tensor:
    """Eight pictures, of which row r begins with the number given for `row<r>`."""
    images = pictures(8)
    for name, number in rows.items():
        images[int(name.removeprefix("row")), 0, 0, 0] = number
    return images


def test_good_rows_carry_the_codecs_own_numbers_and_everything_that_came_with_them() -> None:
    images = pictures(8)
    out = stage_of(LINEAR)(batch_of(images))
    out.validate(full=True)
    schema = latents_schema(
        LatentSpec(shape=(5,), space="z"), dtype="float32", labels=LABELS, logvar=False, metadata={}
    )
    assert out.schema.equals(encoded_schema(schema), check_metadata=False)
    assert out.schema.field("latent").metadata[b"space"] == b"z"
    assert np.array_equal(matrix_of(out.column("latent")), open_codec(LINEAR).encode(images).mean.numpy())
    assert out.column("error").null_count == out.column("message").null_count == 8
    assert out.column("run_id").to_pylist() == ["run-1"] * 8
    assert out.column("encoded_at").to_pylist() == [NOW] * 8
    for name in ("seq", "id", "uri", "source_version", "content_hash", "width", "height", "labels"):
        assert out.column(name).equals(batch_of(images).column(name)), name


def test_logvar_is_kept_where_the_table_has_it() -> None:
    images, weights = pictures(4), weights_of()
    spec = ConvVAECodec(weights="x", preprocess=SIZE)
    encoded = open_codec(spec, weights).encode(images)
    assert encoded.logvar is not None
    out = stage_of(spec, weights)(batch_of(images))
    assert np.array_equal(matrix_of(out.column("logvar")), encoded.logvar.numpy())
    assert "logvar" not in stage_of(spec, weights, logvar=False)(batch_of(images)).schema.names


def test_the_clock_stamps_batches_unless_a_time_is_given() -> None:
    schema = latents_schema(LatentSpec(shape=(5,), space="z"), dtype="float32", labels=None, logvar=False, metadata={})
    stage = Encode(LINEAR, weights=None, latents=schema, run_id="r")
    stage.open("cpu")
    before = datetime.now(UTC)
    stamped = stage(batch_of(pictures(2))).column("encoded_at").to_pylist()
    assert before <= stamped[0] == stamped[1] <= datetime.now(UTC)


def test_rows_that_came_in_broken_keep_their_reason_and_place() -> None:
    images = pictures(8)
    out = stage_of(LINEAR)(batch_of(images, {0: ("truncated", "0.png ends early"), 5: ("vanished", "5.png is gone")}))
    out.validate(full=True)
    assert out.column("error").to_pylist() == ["truncated", *[None] * 4, "vanished", None, None]
    assert out.column("message")[5].as_py() == "5.png is gone"
    assert [v is None for v in out.column("latent").to_pylist()] == [True, *[False] * 4, True, False, False]
    good = [1, 2, 3, 4, 6, 7]
    assert np.array_equal(matrix_of(out.column("latent"))[good], open_codec(LINEAR).encode(images[good]).mean.numpy())


@pytest.mark.parametrize("count", [0, 3])
def test_batches_without_a_good_row(count: int) -> None:
    out = stage_of(LINEAR)(batch_of(pictures(count), {i: ("corrupt", f"{i}") for i in range(count)}))
    out.validate(full=True)
    assert len(out) == out.column("latent").null_count == count


def test_latents_that_are_not_finite_become_failures_that_name_the_file() -> None:
    images = special(row2=NAN, row6=NAN)
    out = stage_of(STUBBORN)(batch_of(images, {4: ("corrupt", "4")}))
    assert out.column("error").to_pylist() == [None, None, "non_finite", None, "corrupt", None, "non_finite", None]
    assert out.column("message")[6].as_py() == "s3://b/6.png: the codec's latent is NaN or infinite in float"
    assert [i for i, v in enumerate(out.column("latent").to_pylist()) if v is None] == [2, 4, 6]
    kept = matrix_of(out.column("latent"))[[0, 1, 3, 5, 7]]
    assert np.array_equal(kept, images.flatten(1)[[0, 1, 3, 5, 7], :2].float().numpy())


def test_half_precision_overflow_is_a_failure_in_float16_only() -> None:
    images = special(row1=HUGE)
    half, full = stage_of(STUBBORN, dtype="float16")(batch_of(images)), stage_of(STUBBORN)(batch_of(images))
    assert half.schema.field("latent").type.value_type == pa.float16()
    assert half.column("error").to_pylist()[1] == "non_finite"
    assert "latent_dtype: float32" in half.column("message")[1].as_py()
    assert full.column("error").null_count == 8
    assert np.array_equal(matrix_of(half.column("latent"))[0], images.flatten(1)[0, :2].numpy().astype(np.float16))


def test_the_row_the_codec_raises_on_fails_alone() -> None:
    out = stage_of(STUBBORN)(batch_of(special(row0=RAISES, row5=RAISES, row6=NAN)))
    assert out.column("error").to_pylist() == ["codec_error", *[None] * 4, "codec_error", "non_finite", None]
    message = out.column("message")[5].as_py()
    assert message.startswith("s3://b/5.png: ") and message.endswith("ValueError: this picture is not to my taste")


def test_a_bug_in_a_codec_is_not_taken_for_a_bad_picture() -> None:
    with pytest.raises(TypeError):
        Guarded(lambda rows: (rows + None,))(torch.zeros(3))


def test_a_full_device_halves_the_batch_and_remembers() -> None:
    codec = StubbornCodec(STUBBORN.model_copy(update={"options": {"fits": 3}}), device="cpu")
    guarded = Guarded(lambda pixels: (codec.encode(pixels).mean,))
    images = special(row4=RAISES)
    outcome = guarded(images)
    assert outcome.rows.tolist() == [0, 1, 2, 3, 5, 6, 7] and list(outcome.errors) == [4]
    assert torch.equal(outcome.outputs[0], images.flatten(1)[outcome.rows, :2].float())
    assert codec.calls[:2] == [8, 4]
    codec.calls.clear()
    guarded(pictures(8))
    assert codec.calls == [2, 2, 2, 2]  # no failed attempt any more
    tiny = StubbornCodec(STUBBORN.model_copy(update={"options": {"fits": 0}}), device="cpu")
    with pytest.raises(torch.OutOfMemoryError):
        Guarded(lambda pixels: (tiny.encode(pixels).mean,))(images)


@given(st.lists(st.sampled_from([0, RAISES, NAN, HUGE]), max_size=12), st.integers(1, 12), st.data())
def test_any_mix_of_rows_and_any_cut_gives_the_same_table(numbers: list[int], fits: int, data: Any) -> None:
    images = pictures(len(numbers))
    for row, number in enumerate(numbers):
        images[row, 0, 0, 0] = number or 100
    broken = data.draw(st.sets(st.integers(0, max(0, len(numbers) - 1)))) if numbers else set()
    whole = batch_of(images, dict.fromkeys(broken, ("corrupt", "was so")))
    spec = STUBBORN.model_copy(update={"options": {"fits": fits}})
    out = stage_of(spec)(whole)
    cut = data.draw(st.integers(0, len(numbers)))
    stage = stage_of(STUBBORN)
    parts = pa.Table.from_batches([stage(whole.slice(0, cut)), stage(whole.slice(cut))]).combine_chunks()
    assert pa.Table.from_batches([out]).equals(parts)
    expected = {0: None, RAISES: "codec_error", NAN: "non_finite", HUGE: None}
    assert out.column("error").to_pylist() == [
        "corrupt" if row in broken else expected[number] for row, number in enumerate(numbers)
    ]
    assert out.column("latent").is_null().to_pylist() == [e is not None for e in out.column("error").to_pylist()]


def test_the_stage_pickles_before_it_is_opened() -> None:
    known = describe(LINEAR)
    schema = latents_schema(known.latent, dtype="float32", labels=LABELS, logvar=False, metadata={})
    stage = pickle.loads(pickle.dumps(Encode(LINEAR, weights=None, latents=schema, run_id="r", encoded_at=NOW)))
    stage.open("cpu")
    assert stage(batch_of(pictures(3))).equals(
        pa.RecordBatch.from_arrays(stage(batch_of(pictures(3))).columns, schema=encoded_schema(schema))
    )


def test_a_table_of_another_codec_is_refused_with_both_names() -> None:
    schema = latents_schema(
        LatentSpec(shape=(6,), space="z"), dtype="float32", labels=LABELS, logvar=False, metadata={}
    )
    with pytest.raises(SpaceMismatch, match=r"linear shape=\(5,\).*shape=\(6,\)"):
        Encode(LINEAR, weights=None, latents=schema, run_id="r").open("cpu")
    with pytest.raises(JobError, match="allow_code"):
        Encode(STUBBORN, weights=None, latents=schema, run_id="r").open("cpu")


def test_codes_are_stored_beside_the_latent_and_one_outside_the_codebook_fails() -> None:
    spec = CustomCodec(entry="tests.codec_cases:DigitCodec", preprocess=SIZE)
    images = pictures(4)
    images[:, 0, 0, :2] = torch.tensor([[0, 7], [3, 3], [8, 1], [5, 255]], dtype=torch.uint8)
    made = stage_of(spec)(batch_of(images, {1: ("corrupt", "no picture")}))
    field = made.schema.field("codes")
    assert field.type == pa.list_(pa.int32(), 2) and field.metadata[b"codebook"] == b"8"
    assert made.column("codes").to_pylist() == [[0, 7], None, None, None]
    assert made.column("latent").to_pylist() == [[0.0, 7.0], None, None, None]
    assert made.column("error").to_pylist() == [None, "corrupt", "codec_error", "codec_error"]
    assert "code 8 is not in the codebook of 8" in made.column("message")[2].as_py()
    assert "code 255" in made.column("message")[3].as_py()


def test_a_codec_that_declares_codes_and_gives_none_is_told() -> None:
    spec = CustomCodec(entry="tests.codec_cases:DigitCodec", preprocess=SIZE, options={"silent": True})
    made = stage_of(spec)(batch_of(pictures(2)))
    assert made.column("error").to_pylist() == ["codec_error"] * 2
    assert "declares codes and gave none" in made.column("message")[0].as_py()


def test_codes_of_the_patches_codec_are_its_own_in_both_dtypes() -> None:
    spec = PatchesCodec(codes=30, preprocess=SIZE)
    expected = open_codec(spec).encode(pictures(6)).codes
    assert expected is not None
    for dtype in ("float16", "float32"):
        made = stage_of(spec, dtype=dtype)(batch_of(pictures(6)))
        np.testing.assert_array_equal(matrix_of(made.column("codes")), expected.flatten(1).numpy())
