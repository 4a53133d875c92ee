"""The fidelity pass: pictures of codes against reconstructions, by an injected extractor, in any split."""

import json
import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from schemas.codec import CustomCodec, LatentSpec, LinearCodec, Preprocess
from schemas.errors import JobError
from schemas.measurements import Measurement
from schemas.steps import InterpolateStep, TraverseStep
from stages.code_sets.interpolate import Interpolate
from stages.code_sets.parents import parents_batch
from stages.code_sets.traverse import Direction, Traverse
from stages.evaluation.models import CodecSource
from stages.grouping import group_hashes
from stages.moments import Moments
from stages.row_hash import fractions, hash_ids
from stages.scores.extractors import PixelMoments, open_extractor
from stages.scores.fidelity import measure_fidelity, measure_path_length
from stages.scores.frechet import frechet_distance
from stages.scores.path_length import squared_l2
from stages.scores.path_pass import PathLengths
from stages.scores.picture_features import HALVES, LIKE, PARENT_GROUPS, REFERENCE, Features, PictureFeatures, SetName
from tests.labelled import reduced

DIM = 6
CODEC = LinearCodec(family="linear", dim=DIM, preprocess=Preprocess(size=8))
SPEC = LatentSpec(shape=(DIM,), space="z")


def weights() -> None:
    return None


def stage(**options: Any) -> PictureFeatures:
    made = PictureFeatures(
        CodecSource(CODEC, weights, True), **({"entry": "pixel_moments", "options": {}, "sample": 5000} | options)
    )
    made.open("cpu")
    return made


def rows(n: int, seed: int = 0) -> tuple[pa.RecordBatch, np.ndarray]:
    latents = np.random.default_rng(seed).standard_normal((n, DIM)).astype(np.float32) * 40
    column = pa.FixedSizeListArray.from_arrays(pa.array(latents.reshape(-1)), DIM)
    return pa.record_batch({"id": pa.array([f"{seed}/{i}.png" for i in range(n)]), "latent": column}), latents


def edited(batch: pa.RecordBatch, steps: tuple[float, ...], *, size: float = 40) -> pa.RecordBatch:
    """Every row moved along the first coordinate."""
    step = TraverseStep(name="edit", directions=("first",), strengths=steps)
    first = Direction("first", np.eye(1, DIM)[0], size, np.zeros(DIM))
    ids = [[i] for i in batch.column("id").to_pylist()]
    return Traverse(step, [first], SPEC)(parents_batch(range(len(ids)), ids, [batch.column("latent")]))


def hash_like(name: str) -> bool:
    return bool(fractions(hash_ids(pa.array([name])), HALVES)[0] < 0.5)


def measured(state: Features) -> dict[tuple[str, str], Measurement]:
    found = measure_fidelity(state.sets, neighbours=5, extractor="pixel_moments")
    return {(m.metric, m.subject): m for m in found}


def test_edits_leave_the_data_and_an_edit_of_nothing_stays_at_the_floor() -> None:
    batch, _ = rows(1600)
    state = reduced(stage(), [[batch], [edited(batch, (0.0, 1.0, 5.0))]])
    found = measured(state)
    values = {m: [found[m, f"edit/first {s} sigma"] for s in ("+0", "+1", "+5")] for m in {m for m, _ in found}}
    nothing, some, far = values["frechet_distance"]
    assert nothing.value == pytest.approx(nothing.threshold, rel=1e-9)  # the same images, decoded the same way
    assert far.value > 3 * some.value > 3 * some.threshold
    assert values["kernel_distance"][2].low > values["kernel_distance"][0].high
    assert (
        values["recall"][0].value > 0.9 and values["recall"][2].value < 0.3
    )  # the edit drives pictures to few colours
    assert values["coverage"][0].value == pytest.approx(1 - 2**-5, abs=0.04) and values["coverage"][2].value < 0.3
    assert nothing.n == state.sets[LIKE].moments.n
    assert state.sets[REFERENCE].moments.n + state.sets[LIKE].moments.n == 1600


def test_every_measure_has_an_interval_or_the_reason_why_not() -> None:
    batch, _ = rows(1000)
    state = reduced(stage(), [[batch], [edited(batch, (1.0,)), edited(batch.slice(0, 60), (4.0,))]])
    found = measured(state)
    assert len(found) == 12
    of = {metric: found[metric, "edit/first +1 sigma"] for metric, _ in found}
    assert all(m.low < m.value < m.high and m.message == "" for m in of.values())
    few = {metric: found[metric, "edit/first +4 sigma"] for metric, _ in found}
    reasons = {metric: json.loads(m.detail).get("no_interval") for metric, m in few.items() if m.low is None}
    assert reasons == {"frechet_distance": "fewer_images_than_features", "kernel_distance": "one_block"}
    assert "covariance asks for more pictures than features" in few["frechet_distance"].message


def test_pictures_leave_with_the_first_image_they_are_made_of() -> None:
    batch, _ = rows(200)
    state = reduced(stage(), [[batch], [edited(batch, (0.0, 2.0))]])
    like, still, moved = (state.sets[n].sample.rows() for n in (LIKE, *sorted(n for n in state.sets if n.code_set)))
    count = np.unique(like.classes, return_counts=True)
    assert len(count[0]) == 20
    for codes in (still, moved):
        np.testing.assert_array_equal(np.unique(codes.classes, return_counts=True), count)
    # The unmoved pictures are those of the images themselves: each has the group of its image.
    group = {one.tobytes(): g for one, g in zip(like.latents, like.classes[:, 0], strict=True)}
    assert [group[one.tobytes()] for one in still.latents] == still.classes[:, 0].tolist()


def test_no_picture_is_held_against_an_edit_of_itself() -> None:
    batch, _ = rows(300)
    state = reduced(stage(), [[edited(batch, (1.0,))]])
    like = fractions(hash_ids(batch.column("id")), HALVES) < 0.5
    assert state.sets[SetName("edit", "first", 1.0, "sigma")].moments.n == like.sum()
    both = reduced(stage(), [[batch]])
    assert both.sets[LIKE].moments.n == like.sum()


def test_a_code_of_several_pictures_needs_all_of_them_outside_the_reference() -> None:
    batch, _ = rows(120)
    ids = batch.column("id").to_pylist()
    like = [i for i in ids if hash_like(i)]
    other = [i for i in ids if i not in like]
    step = InterpolateStep(name="between", pairs=((like[0], like[1]), (like[0], other[0])), frames=3)
    latents = [
        batch.column("latent").take(pa.array([ids.index(i) for i in side])) for side in zip(*step.pairs, strict=True)
    ]
    codes = Interpolate(step, SPEC)(parents_batch(range(2), [list(p) for p in step.pairs], latents))
    state = reduced(stage(), [[batch], [codes]])
    made = [features.moments.n for name, features in state.sets.items() if name.code_set == "between"]
    assert sum(made) == 3  # the frames of one pair, not of both


def test_the_floor_has_as_many_pictures_as_the_set() -> None:
    """The distance of few pictures is high by chance: a floor of many would blame the edit for it."""
    batch, _ = rows(1600)
    state = reduced(stage(), [[batch], [edited(batch.slice(0, 60), (0.0,))]])
    (of,) = {n for n in state.sets if n not in (LIKE, REFERENCE)}
    found = measured(state)["frechet_distance", "edit/first +0 sigma"]
    n = state.sets[of].moments.n
    few = state.sets[LIKE].sample.rows().latents[:n].astype(np.float64)
    assert n < 50
    assert found.threshold == pytest.approx(
        frechet_distance(state.sets[REFERENCE].moments, Moments.of(few, full=True)), rel=1e-9
    )
    assert found.threshold > 2 * frechet_distance(state.sets[REFERENCE].moments, state.sets[LIKE].moments)


def test_a_large_set_is_cut_to_as_many_as_the_floor_has() -> None:
    """Draws of the same Gaussian beside few images: at their own n they would seem better than untouched pictures."""
    batch, _ = rows(120)
    many, _ = rows(1500, seed=3)
    drawn = many.column("latent")
    ids = many.column("id").to_pylist()
    codes = edited(
        pa.record_batch(
            {
                "id": pa.array([i for i in ids if hash_like(i)]),
                "latent": drawn.take(pa.array([k for k, i in enumerate(ids) if hash_like(i)])),
            }
        ),
        (0.0,),
    )
    state = reduced(stage(), [[batch], [codes]])
    found = measured(state)["frechet_distance", "edit/first +0 sigma"]
    assert found.n == json.loads(found.detail)["n_floor"] == state.sets[LIKE].moments.n < 80
    assert found.value == pytest.approx(found.threshold, rel=0.6)


def test_any_split_gives_the_same_numbers() -> None:
    batch, _ = rows(500)
    codes = edited(batch, (0.5, 2.0))
    whole = measured(reduced(stage(sample=60), [[batch, codes]]))
    pieces = [[batch.slice(s, 37)] for s in range(0, 500, 37)] + [[codes.slice(s, 91)] for s in range(0, 1000, 91)]
    parted = measured(reduced(stage(sample=60), pieces[::-1]))
    assert whole.keys() == parted.keys() and len(whole) == 12
    for key, one in whole.items():
        assert parted[key].value == pytest.approx(one.value, rel=1e-9, abs=1e-12)
        assert parted[key].n == one.n
    assert whole["recall", "edit/first +2 sigma"].n == 60  # of the sample; the Fréchet distance is of all
    assert whole["frechet_distance", "edit/first +2 sigma"].n > 200


def test_bad_rows_leave_and_are_counted() -> None:
    batch, latents = rows(40)  # the batch holds these very numbers
    latents[3] = np.nan
    like = fractions(hash_ids(batch.column("id")), HALVES) < 0.5
    bad = np.flatnonzero(like)[:2]
    latents[bad[0]], latents[bad[1]] = np.inf, np.nan
    state = reduced(stage(), [[edited(batch, (1.0,))]])
    assert state.left == (3 if like[3] and 3 not in bad else 2)
    assert next(iter(state.sets.values())).moments.n == like.sum() - state.left


def test_too_few_pictures_are_a_status() -> None:
    batch, _ = rows(60)
    state = reduced(stage(), [[batch], [edited(batch.slice(0, 6), (1.0,))]])
    (only,) = measured(state).values()
    assert (only.status, only.value) == ("too_few", None) and "more than 6 are needed" in only.message


class Brightness:
    """An extractor of one's own: one number a picture."""

    def __init__(self, *, device: str, scale: float = 1.0) -> None:
        self._scale = scale

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        return self._scale * images.double().mean((1, 2, 3)).numpy()[:, None]


def test_an_extractor_of_ones_own_is_used_and_needs_the_users_word() -> None:
    batch, latents = rows(80)
    entry = f"{Brightness.__module__}:Brightness"
    state = reduced(stage(entry=entry, options={"scale": 2.0}), [[batch]])
    codec_pictures = stage()._model[0].decode(torch.from_numpy(latents))
    expected = Moments.of(2 * codec_pictures.double().mean((1, 2, 3)).numpy()[:, None], full=True)
    both = state.sets[REFERENCE].moments.merged(state.sets[LIKE].moments)
    assert both.z_mean == pytest.approx(expected.z_mean) and both.z_variance == pytest.approx(expected.z_variance)
    with pytest.raises(JobError, match="importing your own code needs your word"):
        open_extractor(entry, {}, device="cpu", allow_code=False)


def test_pixel_moments_are_means_and_deviations_of_cells() -> None:
    images = torch.randint(0, 256, (3, 16, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = PixelMoments(device="cpu")(images).numpy()
    cells = images.double().numpy().reshape(3, 4, 4, 4, 3, 3) / 255  # rows, in them, columns, in them, colours
    mean = cells.mean((2, 4)).transpose(0, 3, 1, 2).reshape(3, -1)
    deviation = cells.std((2, 4)).transpose(0, 3, 1, 2).reshape(3, -1)
    assert found == pytest.approx(np.concatenate([mean, deviation], 1))


def test_more_sets_than_memory_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.scores.picture_features.MAX_STATE", 2 * (96 * 96 + 5000 * 96))
    batch, _ = rows(60)
    with pytest.raises(JobError, match="3 sets of 96 features would hold"):
        reduced(stage(), [[edited(batch, (1.0, 2.0, 3.0))]])


def test_path_lengths_of_a_linear_codec_are_the_distances_of_its_pictures() -> None:
    _, latents = rows(120)
    latents[7, 2] = np.nan
    start, end = (
        pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), DIM) for part in (latents[:60], latents[60:])
    )
    batch = pa.record_batch({"start": start, "end": end, "place": pa.array(np.linspace(0, 0.99, 60))})
    made = PathLengths(CodecSource(CODEC, weights), "squared_l2", {})
    made.open("cpu")
    found = reduced(made, [[batch.slice(0, 17)], [batch.slice(17)]])
    pictures = made._model[0].decode_float(torch.from_numpy(latents)).numpy()
    expected = squared_l2(pictures[:60], pictures[60:])
    assert np.sort(found) == pytest.approx(np.sort(expected[np.isfinite(expected)]), rel=1e-6)
    assert len(found) == 59
    score = measure_path_length(found, "squared_l2", space="w")
    assert (score.status, score.n) == ("ok", 59)
    assert measure_path_length(found[:1], "squared_l2", space="w").status == "too_few"


def test_paths_of_a_centred_shell_run_on_great_circles() -> None:
    """A linear decoder A of unit vectors that move by ω along the tangent: ‖A dz/dt‖² of each."""
    _, latents = rows(120)
    a, b = (part.astype(np.float64) for part in (latents[:60], latents[60:]))
    columns = [
        pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), DIM) for part in (latents[:60], latents[60:])
    ]
    places = np.linspace(0, 0.99, 60)
    batch = pa.record_batch({"start": columns[0], "end": columns[1], "place": pa.array(places)})
    shell = CustomCodec(family="custom", entry="tests.codec_cases:ShellCodec", preprocess=CODEC.preprocess)
    made = PathLengths(CodecSource(shell, weights, True), "squared_l2", {})
    made.open("cpu")
    found = reduced(made, [[batch.slice(0, 17)], [batch.slice(17)]])
    first, last = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    omega = np.arccos((first * last).sum(1, keepdims=True))
    t = places[:, None]
    moved = (
        omega / np.sin(omega) * (np.cos(t * omega) * last - np.cos((1 - t) * omega) * first)
    )  # the slerp's derivative
    decode = made._model[0].decode_float
    expected = squared_l2(decode(torch.from_numpy(moved)).numpy(), decode(torch.zeros(60, DIM)).numpy())
    assert np.sort(found) == pytest.approx(np.sort(expected), rel=1e-3)


class Corners:
    """An extractor of two numbers: the mean of the upper and of the lower half."""

    def __init__(self, *, device: str) -> None:
        pass

    def __call__(self, images: torch.Tensor) -> np.ndarray:
        return images.double().unflatten(1, (2, -1)).mean((2, 3, 4)).numpy()


def of_people(seed: int, people: int = 120, each: int = 5) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """Pictures of people, each there several times, and the codes that move them; both know who they are of.

    Ids are such that a person is in one half, by the person and by each picture alone.
    """
    number = np.arange(people * each * 20)
    like = (
        fractions(hash_ids(pa.array([f"{seed}-{p // each // 20}/{i}.png" for i, p in enumerate(number)])), HALVES) < 0.5
    )
    owner = fractions(hash_ids(pa.array([f"{seed}-{p}" for p in range(people)])), HALVES) < 0.5
    fit = [np.flatnonzero((number // each // 20 == p) & (like == owner[p]))[:each] for p in range(people)]
    latents = np.random.default_rng(seed).standard_normal((people, DIM)).astype(np.float32) * 40
    column = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(latents, each, axis=0).reshape(-1)), DIM)
    batch = pa.record_batch(
        {"id": pa.array([f"{seed}-{p}/{i}.png" for p, found in enumerate(fit) for i in found]), "latent": column}
    )
    codes = edited(batch, (1.0,))
    ids = pa.record_batch({"id": codes.column("parents").flatten()})
    groups = pa.ListArray.from_arrays(pa.array(range(len(codes) + 1), pa.int32()), pa.array(group_hashes(ids, "id:/")))
    return batch, codes.append_column(PARENT_GROUPS, groups)


@pytest.mark.slow
def test_intervals_of_people_leave_out_people() -> None:
    """Of 120 people five times: without `group` intervals are those of 600 pictures, √5 too narrow by construction.

    With it they hold what those of 120 pictures of 120 people do: .88 of 120 for the Fréchet distance, 60 pictures a half being few.
    """
    held: dict[tuple[bool, str], float] = {}
    for group in (None, "id:/"):
        found: dict[str, list[Measurement]] = {"frechet_distance": [], "kernel_distance": []}
        for seed in range(60):
            made = stage(entry=f"{Corners.__module__}:Corners", group=group)
            state = reduced(made, [[one] for one in of_people(seed)])
            for m in measure_fidelity(state.sets, neighbours=5, extractor="corners", grouped=group is not None):
                if m.metric in found:
                    found[m.metric].append(m)
        for metric, all_of in found.items():
            mean = np.mean([m.value for m in all_of])
            held[group is not None, metric] = np.mean([m.low <= mean <= m.high for m in all_of])
    assert held[False, "frechet_distance"] < 0.72 and held[False, "kernel_distance"] < 0.72, held
    assert held[True, "frechet_distance"] >= 0.82 and held[True, "kernel_distance"] >= 0.85, held


def test_people_are_in_one_half_with_all_their_codes() -> None:
    batch, codes = of_people(0)
    state = reduced(stage(group="id:/"), [[batch], [codes]])
    halves = [{row.tobytes() for row in state.sets[name].sample.rows().latents} for name in (REFERENCE, LIKE)]
    assert len(halves[0]) + len(halves[1]) == 120 and not halves[0] & halves[1]
    (moved,) = (state.sets[name] for name in state.sets if name.code_set)
    assert moved.moments.n == state.sets[LIKE].moments.n and moved.moments.n % 5 == 0
    by_person: dict[bytes, set[int]] = {}
    for row, group in zip(moved.sample.rows().latents, moved.sample.rows().classes[:, 0], strict=True):
        by_person.setdefault(row.tobytes(), set()).add(int(group))
    assert all(len(groups) == 1 for groups in by_person.values())
    one = pa.record_batch({"id": pa.array([f"me/{i}.png" for i in range(40)]), "latent": batch.column("latent")[:40]})
    few = reduced(stage(group="id:/"), [[batch], [one], [codes]])
    assert {m.status for m in measure_fidelity(few.sets, neighbours=5, extractor="x", grouped=True)} == {"ok"}


def test_stages_travel_to_workers() -> None:
    for made in (stage(), PathLengths(CodecSource(CODEC, weights), "squared_l2", {})):
        made._model = None
        assert type(pickle.loads(pickle.dumps(made))) is type(made)
