"""Code sets of discrete codecs: codes are made of tokens, decode to exactly those, and say how many changed."""

import json
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from schemas.batches import codes_schema
from schemas.codec import CustomCodec, LatentSpec, LinearCodec, PatchesCodec, Preprocess
from schemas.errors import JobError
from schemas.steps import EditStep, InterpolateStep, SampleStep, TokenChange
from stages.code_sets.axes import Direction
from stages.code_sets.discrete_edits import histogram_transfer, nearest_codes
from stages.code_sets.edit import Edit
from stages.code_sets.parents import parents_batch, parents_schema
from stages.code_sets.token_draws import TokenDraw
from stages.code_sets.token_edits import TokenReplacement, TokenStep
from stages.code_sets.token_paths import TokenPath
from stages.code_sets.token_priors import CountTokens
from stages.code_sets.tokens import Makes, TokenStage, embedded, token_vectors
from stages.codecs.linear import Linear
from stages.codecs.patches import Patches
from stages.columns import column_of, matrix_of
from tests.codec_cases import DigitCodec

CODEC = Patches(PatchesCodec(codes=32, patch=4, preprocess=Preprocess(size=(16, 24))))
SPEC = CODEC.latent
GRID = SPEC.token_shape
BOOK = CODEC.codebook.astype(np.float64)


def tokens(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 32, (n, *GRID))


def batch(*parents: np.ndarray, start: int = 0, valid: np.ndarray | None = None) -> pa.RecordBatch:
    n = len(parents[0])
    field = parents_schema(SPEC, 1, columns=("codes",)).field("codes_0")
    arrays = [column_of(p.reshape(n, -1).astype(np.int32), field, valid=valid) for p in parents]
    ids = [[f"{name}{i}" for name in "abc"[: len(parents)]] for i in range(start, start + n)]
    return parents_batch(range(start, start + n), ids, arrays, columns=("codes",))


def expanded(step: Any, makes: Makes, given: pa.RecordBatch) -> tuple[np.ndarray, pa.RecordBatch]:
    """Tokens that the pictures of the codes hold, (strips, frames, *grid), and the batch."""
    made = pickle.loads(pickle.dumps(TokenStage(step, SPEC, makes)))(given, CODEC)
    assert made.schema.equals(codes_schema(SPEC), check_metadata=True)
    latents = torch.from_numpy(matrix_of(made.column("latent")).copy()).reshape(-1, *SPEC.shape)
    codes = CODEC.encode(CODEC.decode(latents)).codes
    assert codes is not None
    np.testing.assert_array_equal(embedded(codes.numpy(), CODEC.codebook, SPEC).astype(np.float32), latents.flatten(1))
    return codes.numpy().reshape(-1, len(makes.strengths), *GRID), made


def changed_of(made: pa.RecordBatch, frames: int) -> np.ndarray:
    return np.array([json.loads(o)["found"]["changed"] for o in made.column("operation").to_pylist()[::frames]])


def test_embedding_and_vectors_are_inverse_and_follow_the_axes() -> None:
    for spec, book in ((SPEC, BOOK), (DigitCodec.latent, DigitCodec.codebook.astype(np.float64))):
        some = np.random.default_rng(2).integers(0, 8, (5, 3, *spec.token_shape))
        latents = embedded(some, book, spec)
        assert latents.shape == (5, 3, spec.dim)
        np.testing.assert_array_equal(token_vectors(latents, spec), book[some])
    np.testing.assert_array_equal(
        embedded(tokens(2), BOOK, SPEC).reshape(2, *SPEC.shape)[1, :, 2, 3], BOOK[tokens(2)[1, 2, 3]]
    )


def test_a_token_swap_holds_tokens_of_its_two_images_only_and_is_nested() -> None:
    a, b = tokens(3), tokens(3, 1)
    step = InterpolateStep(name="between", frames=6, seed=4)
    made, codes = expanded(step, TokenPath(step, SPEC), batch(a, b))
    np.testing.assert_array_equal(made[:, 0], a)
    np.testing.assert_array_equal(made[:, -1], b)
    assert ((made == a[:, None]) | (made == b[:, None])).all()
    was = np.zeros((3, *GRID), bool)
    for frame in range(6):
        now = (made[:, frame] == b) & (a != b)
        assert (now | ~was).all(), "what was replaced stays replaced"
        differing = (a != b).reshape(3, -1).sum(1)
        np.testing.assert_array_equal(now.reshape(3, -1).sum(1), np.rint(frame / 5 * differing))
        was = now
    np.testing.assert_allclose(changed_of(codes, 6), (made != a[:, None]).reshape(3, 6, -1).mean(2), atol=1e-6)
    assert set(codes.column("title").to_pylist()) == {"token swap"} and codes.column("strength")[1].as_py() == 0.2
    alone, _ = expanded(step, TokenPath(step, SPEC), batch(a[2:], b[2:], start=2))
    np.testing.assert_array_equal(alone, made[2:], err_msg="a row does not depend on its batch")
    other = InterpolateStep(name="between", frames=6, seed=5)
    assert not np.array_equal(expanded(other, TokenPath(other, SPEC), batch(a, b))[0], made)


def test_outside_its_mask_a_path_stays_with_the_first_image() -> None:
    a, b = tokens(2), (tokens(2) + 1) % 32
    mask = ((0, 0, 1), (1, 0, 0))  # stretched over 4 × 6 tokens
    step = InterpolateStep(frames=3, mask=mask)
    made, codes = expanded(step, TokenPath(step, SPEC), batch(a, b))
    inside = np.kron(np.array(mask), np.ones((2, 2))).astype(bool)
    np.testing.assert_array_equal(made[:, :, ~inside], np.repeat(a[:, None, ~inside], 3, axis=1))
    np.testing.assert_array_equal(made[:, -1, inside], b[:, inside])
    assert changed_of(codes, 3)[:, -1].tolist() == [pytest.approx(1 / 3)] * 2


def test_a_codebook_lerp_takes_the_codes_nearest_to_the_line() -> None:
    a, b = tokens(2), tokens(2, 1)
    step = InterpolateStep(method="codebook_lerp", frames=5)
    made, _ = expanded(step, TokenPath(step, SPEC), batch(a, b))
    for frame, t in enumerate(np.linspace(0, 1, 5)):
        line = (1 - t) * BOOK[a] + t * BOOK[b]
        np.testing.assert_array_equal(made[:, frame].ravel(), nearest_codes(line.reshape(-1, 3), BOOK))
    assert (~((made == a[:, None]) | (made == b[:, None]))).any(), "by way of codes of neither image"


def edited(change: dict[str, Any], a: np.ndarray, *, parts: tuple[float, ...] = (0.0, 0.5, 1.0), **given: Any):
    step = EditStep(name="e", tokens=TokenChange(**change), parts=parts)
    assert step.tokens is not None
    return expanded(step, TokenReplacement(step, step.tokens, SPEC, **given), batch(a))


def test_replaced_tokens_are_the_donors_inside_the_region_alone() -> None:
    a, donor = tokens(3), tokens(1, 9)[0]
    made, codes = edited({"of": "d", "region": (1, 2, 3, 6)}, a, donor=donor)
    inside = np.zeros(GRID, bool)
    inside[1:3, 2:6] = True
    np.testing.assert_array_equal(made[:, :, ~inside], np.repeat(a[:, None, ~inside], 3, axis=1))
    np.testing.assert_array_equal(made[:, 2, inside], np.tile(donor[inside], (3, 1)))
    np.testing.assert_array_equal(made[:, 0], a)
    half = (made[:, 1] != a).reshape(3, -1).sum(1)
    np.testing.assert_array_equal(half, np.rint((made[:, 2] != a).reshape(3, -1).sum(1) / 2))
    np.testing.assert_allclose(changed_of(codes, 3)[:, 1], half / 24, atol=1e-6)
    masked, _ = edited({"code": 7, "mask": ((1, 0, 0),)}, a, donor=np.full(GRID, 7))
    assert (masked[:, 2, :, :2] == 7).all()
    np.testing.assert_array_equal(masked[:, 2, :, 2:], a[:, :, 2:])


def test_codes_say_how_far_they_moved_and_the_seed_orders_the_tokens() -> None:
    a, donor = tokens(3), tokens(1, 9)[0]
    made, codes = edited({"of": "d"}, a, donor=donor)
    apart = np.linalg.norm((BOOK[made] - BOOK[a[:, None]]).reshape(3, 3, -1), axis=2)
    np.testing.assert_allclose(np.array(codes.column("moved").to_pylist()).reshape(3, 3), apart, rtol=1e-12)
    other, _ = edited({"of": "d", "seed": 1}, a, donor=donor)
    np.testing.assert_array_equal(other[:, [0, 2]], made[:, [0, 2]])
    assert (other[:, 1] != made[:, 1]).any()
    assert (made[0, 1] != a[0]).tolist() != (made[1, 1] != a[1]).tolist(), "every row has an order of its own"
    step = InterpolateStep(frames=2)
    _, path = expanded(step, TokenPath(step, SPEC), batch(a, a))
    assert path.column("moved").null_count == 6, "between two images there is no one latent to be moved from"


def test_a_transfer_reaches_the_histogram_of_its_reference() -> None:
    a, reference = tokens(4), tokens(1, 3)
    shares = np.bincount(reference.ravel(), minlength=32) / 24
    made, codes = edited({"histogram": ("r",)}, a, shares=shares)
    for row in made[:, -1]:
        np.testing.assert_array_equal(np.bincount(row.ravel(), minlength=32), shares * 24)
    fewest = [np.maximum(np.bincount(row.ravel(), minlength=32) - shares * 24, 0).sum() / 24 for row in a]
    np.testing.assert_allclose(changed_of(codes, 3)[:, -1], fewest, atol=1e-6)
    drawn = histogram_transfer(a, shares, seeds=range(4)).tokens
    far, near = (((BOOK[some] - BOOK[a]) ** 2).sum((1, 2, 3)) for some in (drawn, made[:, -1]))
    assert (near < far).all(), "tokens become what is nearest in all"


def test_a_direction_is_added_to_the_embeddings_and_quantised() -> None:
    a = tokens(5)
    vector = np.zeros(SPEC.shape)
    vector[0, :2] = 1.0  # redder, in the upper half
    vector /= np.linalg.norm(vector)
    direction = Direction("redder", vector.ravel(), sigma=1.0, mean=np.zeros(SPEC.dim))
    step = EditStep(name="e", changes=({"direction": "redder", "strength": 1.2},), parts=(0, 0.5, 1))  # type: ignore[arg-type]
    made, codes = expanded(step, TokenStep(step, SPEC, Edit(step, [direction], SPEC)), batch(a))
    np.testing.assert_array_equal(made[:, 0], a)
    np.testing.assert_array_equal(made[:, :, 2:], np.repeat(a[:, None, 2:], 3, axis=1))
    moved = BOOK[a] + 1.2 * token_vectors(vector.reshape(1, -1), SPEC)
    np.testing.assert_array_equal(made[:, 2].ravel(), nearest_codes(moved.reshape(-1, 3), BOOK))
    told = changed_of(codes, 3)
    assert (np.diff(told, axis=1) >= 0).all() and (told[:, 0] == 0).all() and 0 < told[:, 2].min() <= 0.5
    np.testing.assert_allclose(told, (made != a[:, None]).reshape(5, 3, -1).mean(2), atol=1e-6)
    assert json.loads(codes.column("operation")[0].as_py())["quantised"] is True


@pytest.mark.parametrize("method", ["categorical", "bigram"])
def test_drawn_sequences_follow_what_was_counted(method: str) -> None:
    striped = np.tile([3, 5, 3, 5, 3, 5], (40, 4, 1))
    stage = CountTokens(32, method == "bigram")
    counts = stage.add(stage.start(), pa.record_batch({"codes": batch(striped).column("codes_0")}))
    step = SampleStep(name="s", method=method, count=50, smoothing=0)  # type: ignore[arg-type]
    nobody = parents_batch(range(50), [[]] * 50, [], columns=("codes",))
    made, codes = expanded(step, TokenDraw(step, SPEC, counts), nobody)
    assert set(made.ravel()) == {3, 5} and codes.column("parents").to_pylist() == [[]] * 50
    flat = made.reshape(50, -1)
    follows = (np.diff(flat, axis=1) != 0).mean()
    assert follows == 1 if method == "bigram" else 0.4 < follows < 0.6
    again, _ = expanded(step, TokenDraw(step, SPEC, counts), nobody.slice(30))
    np.testing.assert_array_equal(again, made[30:])


def test_smoothing_temperature_and_seed_reach_the_draws() -> None:
    stage = CountTokens(32, False)
    some = np.random.default_rng(3).choice([1, 1, 1, 2], (40, *GRID))
    counts = stage.add(stage.start(), pa.record_batch({"codes": batch(some).column("codes_0")}))
    nobody = parents_batch(range(40), [[]] * 40, [], columns=("codes",))

    def drawn(**options: Any) -> np.ndarray:
        step = SampleStep(name="s", method="categorical", count=40, **options)
        return expanded(step, TokenDraw(step, SPEC, counts), nobody)[0]

    assert set(drawn().ravel()) == {1, 2} and 0.2 < (drawn() == 2).mean() < 0.3
    assert set(drawn(temperature=0.01).ravel()) == {1}
    assert len(set(drawn(smoothing=1000).ravel())) == 32
    assert not np.array_equal(drawn(seed=1), drawn())


def test_rows_without_codes_or_with_wrong_ones_keep_their_place_and_reason() -> None:
    a, b = tokens(4), tokens(4, 1)
    b[1, 0, 0] = 32
    step = InterpolateStep(frames=2)
    stage = TokenStage(step, SPEC, TokenPath(step, SPEC))
    made = stage(batch(a, b, valid=np.array([True, True, False, True])), CODEC)
    assert made.column("flags").to_pylist()[::2] == [[], ["bad_index"], ["missing"], []]
    assert made.column("latent").is_valid().to_pylist()[::2] == [True, False, False, True]
    assert made.column("seq").to_pylist() == list(range(8))


def test_a_codec_without_codes_is_refused() -> None:
    step = InterpolateStep(frames=2)
    with pytest.raises(JobError, match="no codes"):
        TokenStage(step, SPEC, TokenPath(step, SPEC))(
            batch(tokens(1), tokens(1)), Linear(LinearCodec(preprocess=Preprocess(size=(16, 16))))
        )


def test_tokens_of_any_codec_that_has_them() -> None:
    """A sequence of tokens with its embedding last, as transformers have it, and a codec that only encodes."""
    spec = DigitCodec.latent
    step = InterpolateStep(frames=3)
    field = parents_schema(spec, 1, columns=("codes",)).field("codes_0")
    ends = [
        column_of(np.array([[1, 2], [3, 3]], np.int32), field),
        column_of(np.array([[5, 6], [3, 4]], np.int32), field),
    ]
    codec = DigitCodec(CustomCodec(entry="a:B"), device="cpu")
    given = parents_batch([0, 1], [["a", "b"], ["c", "d"]], ends, columns=("codes",))
    made = matrix_of(TokenStage(step, spec, TokenPath(step, spec))(given, codec).column("latent"))  # type: ignore[arg-type]
    assert made.reshape(2, 3, 2)[:, [0, 2]].tolist() == [[[1, 2], [5, 6]], [[3, 3], [3, 4]]]
    assert made[1].tolist() in ([1, 6], [5, 2])
    assert isinstance(spec, LatentSpec)
