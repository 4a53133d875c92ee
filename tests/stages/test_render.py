"""Render without a bucket: the right codes in each picture, whatever the batches; names; recipes; encoded bytes."""

import io
import json
import pickle
import tarfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from schemas.codec import LatentSpec
from schemas.steps import InterpolateStep, RenderStep, TraverseStep
from stages.code_sets.codes import CodeSetShape, numbered
from stages.code_sets.interpolate import Interpolate
from stages.code_sets.parents import parents_batch
from stages.code_sets.traverse import CoordinateMoments, Traverse
from stages.columns import matrix_of
from stages.layout import gap_of, grid, grid_size, strength_labels, strip
from stages.pictures import MAX_SIDE, animate, encode
from stages.render import render
from stages.render_plan import RenderPlan, check_render, group_rows, pending

SIZE = (8, 10)
SPEC = LatentSpec(shape=(4,), space="z")
ROWS = 7
STEP = TraverseStep(name="walk", coordinates=(0, 2), strengths=(-1, 0, 1), unit="latent")
MOMENTS = CoordinateMoments(np.zeros(4), np.ones(4))
SHAPE = CodeSetShape("walk", rows=ROWS, strips=2, frames=3)


def codes(rows: int = ROWS, step: TraverseStep = STEP, first_seq: int = 0) -> pa.RecordBatch:
    z = np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)
    values = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), 4)
    batch = parents_batch(range(rows), [[f"../faces/{i}.jpg"] for i in range(rows)], [values])
    return numbered(Traverse(step, [], SPEC, coordinates=MOMENTS)(batch), first_seq)


def decoded(batch: pa.RecordBatch, size: tuple[int, int] = SIZE) -> pa.RecordBatch:
    """A stand-in codec whose picture of a latent is one flat colour, so that a misplaced tile shows."""
    latents = matrix_of(batch.column("latent"))
    colour = (np.clip(latents[:, :3], -3, 3) * 40 + 128).astype(np.uint8)
    pixels = np.broadcast_to(colour[:, None, None], (len(latents), *size, 3)).reshape(-1)
    mask = pa.array(~np.asarray(batch.column("latent").is_valid()))
    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels), size[0] * size[1] * 3, mask=mask)
    return batch.append_column("pixels", column)


def plan(
    layout: str, *, shapes: tuple[CodeSetShape, ...] = (SHAPE,), size: tuple[int, int] = SIZE, **step
) -> RenderPlan:
    given = {"to": "out", "format": "webp" if layout == "animation" else "png"} | step
    spec = RenderStep(name="draw", layout=layout, **given)
    return RenderPlan(spec, shapes, "f" * 64, size)


def files(plan: RenderPlan, batches: list[pa.RecordBatch]) -> dict[str, bytes]:
    return {"/".join(o.path): o.data for o in render(plan, batches) if o.path}


def cut(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


LAYOUTS = ["image", "strip", "grid", "animation", "shards"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rows", [1, 5, 42])
def test_batches_change_nothing(layout, rows):
    batch, how = decoded(codes()), plan(layout, shard_rows=14)
    whole = files(how, [batch])
    assert files(how, list(cut(batch, rows))[::-1]) == whole
    assert len(whole) == {"image": 42, "strip": 14, "grid": 2, "animation": 14, "shards": 4}[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_splits_cut_at_groups_change_nothing(layout):
    batch, how = decoded(codes()), plan(layout, shard_rows=14)
    step = group_rows(how.step, SHAPE, SIZE) * SHAPE.codes_per_row
    apart = {}
    for part in cut(batch, step):
        apart |= files(how, [part])
    assert apart == files(how, [batch])


@pytest.mark.parametrize("layout", ["strip", "grid", "animation", "shards"])
def test_half_a_picture_is_an_error_not_a_picture(layout):
    with pytest.raises(ValueError, match=r"group_rows"):
        list(render(plan(layout), [decoded(codes()).slice(0, 40)]))


def test_a_strip_shows_its_frames_in_order():
    batch, how = decoded(codes()), plan("strip")
    rendered = list(render(how, [batch]))
    picture = np.asarray(Image.open(io.BytesIO(rendered[3].data)))
    gap = gap_of(*SIZE)
    pixels = matrix_of(batch.column("pixels")).reshape(-1, *SIZE, 3)
    assert picture.shape == (8, 3 * 10 + 2 * gap, 3)
    for frame in range(3):
        left = frame * (10 + gap)
        np.testing.assert_array_equal(picture[:, left : left + 10], pixels[9 + frame])
    (row,) = rendered[3].rows
    assert (row.parents, row.title, row.strengths, row.unit) == (
        ("../faces/1.jpg",),
        "coordinate 2",
        (-1, 0, 1),
        "latent",
    )
    assert row.status == "done"


def test_a_grid_is_one_title_with_a_strip_a_line():
    batch, how = decoded(codes()), plan("grid")
    outputs = list(render(how, [batch]))
    assert [o.rows[0].title for o in outputs] == ["coordinate 0", "coordinate 2"]
    assert outputs[0].rows[0].parents == tuple(f"../faces/{i}.jpg" for i in range(ROWS))
    assert outputs[0].rows[0].strengths == (-1, 0, 1)
    picture = np.asarray(Image.open(io.BytesIO(outputs[1].data)))
    assert picture.shape[:2] == grid_size(ROWS, 3, SIZE, labelled=False)
    pixels = matrix_of(batch.column("pixels")).reshape(ROWS, 2, 3, *SIZE, 3)
    gap = gap_of(*SIZE)
    for r in range(ROWS):
        for f in range(3):
            top, left = r * (8 + gap), f * (10 + gap)
            np.testing.assert_array_equal(picture[top : top + 8, left : left + 10], pixels[r, 1, f])


def test_grids_are_numbered_and_bounded():
    shape = CodeSetShape("walk", rows=130, strips=2, frames=3)
    names = sorted(files(plan("grid", shapes=(shape,)), [decoded(codes(130))]))
    assert len(names) == 2 * 3
    assert names[0].endswith("-0000.png")
    assert names[2].endswith("-0002.png")


def test_grid_columns_fold_frames_in_reading_order():
    (output, _) = render(plan("grid", grid_columns=4), [decoded(codes())])
    assert Image.open(io.BytesIO(output.data)).size == grid_size(6, 4, SIZE, labelled=False)[::-1]


def test_pairs_of_one_code_set_share_a_grid():
    step = InterpolateStep(name="paths", frames=3, method="slerp")
    z = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    values = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), 4)
    other = pa.FixedSizeListArray.from_arrays(pa.array(z[::-1].reshape(-1)), 4)
    pairs = parents_batch(range(5), [[f"a{i}", f"b{i}"] for i in range(5)], [values, other])
    shape = CodeSetShape("paths", rows=5, strips=1, frames=3)
    (output,) = render(plan("grid", shapes=(shape,)), [decoded(Interpolate(step, SPEC)(pairs))])
    assert output.rows[0].title == "slerp"
    assert len(output.rows[0].parents) == 10


def with_bad(batch: pa.RecordBatch, at: list[int], flag: str = "antipodal") -> pa.RecordBatch:
    valid = np.ones(batch.num_rows, bool)
    valid[at] = False
    latents = batch.column("latent")
    null = pa.FixedSizeListArray.from_arrays(latents.values, type=latents.type, mask=pa.array(~valid))
    flags = pa.array([[] if ok else [flag] for ok in valid], pa.list_(pa.string()))
    schema = batch.schema
    at_latent, at_flags = schema.get_field_index("latent"), schema.get_field_index("flags")
    return batch.set_column(at_flags, schema.field("flags"), flags).set_column(at_latent, schema.field("latent"), null)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_code_without_a_picture_is_a_row_with_its_reason(layout):
    batch = decoded(with_bad(codes(), [0, 1, 2]))
    outputs = list(render(plan(layout), [batch]))
    rows = [row for o in outputs for row in o.rows]
    bad = [row for row in rows if row.status != "done"]
    assert {row.status for row in bad} <= {"antipodal"}
    assert len(bad) == {"image": 3, "strip": 1, "grid": 0, "animation": 1, "shards": 3}[layout]
    assert all(row.content_hash is None for row in bad)
    assert sum(o.failed for o in outputs) == 3
    assert sum(o.codes for o in outputs) == 42
    assert any("antipodal" in row.flags for row in rows)


def test_a_missing_frame_leaves_the_others_in_their_columns():
    whole, holed = (next(render(plan("strip"), [decoded(b)])) for b in (codes(), with_bad(codes(), [1])))
    one, two = (np.asarray(Image.open(io.BytesIO(o.data))).astype(int) for o in (whole, holed))
    different = np.abs(one - two).max(axis=(0, 2)) > 0
    gap = gap_of(*SIZE)
    assert different[10 + gap : 20 + gap].all()
    assert not different[: 10 + gap].any()
    assert not different[20 + gap :].any()
    assert holed.rows[0].status == "done"
    assert holed.rows[0].flags == ("antipodal",)


def test_a_code_the_codec_left_out_is_not_called_done():
    batch = decoded(codes(1))
    column = batch.column("pixels")
    null = pa.FixedSizeListArray.from_arrays(column.values, type=column.type, mask=pa.array([True] * batch.num_rows))
    gone = batch.set_column(batch.num_columns - 1, "pixels", null)
    shape = CodeSetShape("walk", 1, 2, 3)
    assert {o.rows[0].status for o in render(plan("strip", shapes=(shape,)), [gone])} == {"not_decoded"}


class TestShards:
    def test_open_as_tar_with_a_picture_and_its_facts(self):
        how = plan("shards", shard_rows=13, format="webp", quality=100)
        shards = files(how, [decoded(codes())])
        assert list(shards) == [f"draw/walk/{n:06d}.tar" for n in range(4)]
        seen = []
        for data in shards.values():
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                members = tar.getmembers()
                assert all(m.mtime == 0 and m.uid == m.gid == 0 and m.isfile() for m in members)
                assert all(m.name.count(".") == 1 and "/" not in m.name for m in members)
                for picture, facts in zip(members[::2], members[1::2], strict=True):
                    assert picture.name.removesuffix(".webp") == facts.name.removesuffix(".json")
                    assert Image.open(io.BytesIO(tar.extractfile(picture).read())).size == SIZE[::-1]
                    seen.append(json.loads(tar.extractfile(facts).read()))
        assert [s["id"] for s in seen] == codes().column("id").to_pylist()
        assert seen[4]["strength"] == 0
        assert seen[4]["parents"] == ["../faces/0.jpg"]

    def test_rows_name_their_member_and_share_a_recipe(self):
        output = next(iter(render(plan("shards", shard_rows=13), [decoded(codes())])))
        assert len(output.rows) == 12, "whole rows of the code set: 2 × 6 of at most 13"
        assert len({row.recipe for row in output.rows}) == 1
        with tarfile.open(fileobj=io.BytesIO(output.data)) as tar:
            assert {row.member for row in output.rows} <= set(tar.getnames())

    def test_large_pictures_make_smaller_shards(self):
        shape = CodeSetShape("walk", rows=10**6, strips=2, frames=3)
        step = RenderStep(to="out", layout="shards", shard_rows=1000)
        assert group_rows(step, shape, (64, 64)) == 166
        assert group_rows(step, shape, (512, 512)) == 21
        assert group_rows(step, shape, (8192, 8192)) == 1


class TestRecipes:
    @staticmethod
    def done(how: RenderPlan, batch: pa.RecordBatch) -> dict[str, str]:
        return {row.id: row.recipe for o in render(how, [decoded(batch)]) for row in o.rows}

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_what_is_done_is_not_done_again(self, layout):
        how, batch = plan(layout), codes()
        done = self.done(how, batch)
        assert not pending(how, batch, done).any()
        assert pending(how, batch, {}).all()

    def test_only_what_is_missing_is_done(self):
        how, batch = plan("strip"), codes()
        done = self.done(how, batch)
        del done[sorted(done)[5]]
        assert pending(how, batch, done).sum() == 3

    @pytest.mark.parametrize("layout", ["image", "strip"])
    def test_a_filtered_batch_still_renders(self, layout):
        how, batch = plan(layout), codes()
        done = self.done(how, batch)
        del done[sorted(done)[5]]
        left = batch.filter(pa.array(pending(how, batch, done)))
        assert self.done(how, left).keys() == self.done(how, batch).keys() - done.keys()

    @pytest.mark.parametrize(
        "change",
        [{"to": "elsewhere"}, {"format": "jpeg"}, {"quality": 50}, {"labels": True}, {"layout": "grid"}],
    )
    def test_a_change_of_the_render_is_another_recipe(self, change):
        before = self.done(plan("strip"), codes())
        after = self.done(plan(**{"layout": "strip"} | change), codes())
        assert not set(before.items()) & set(after.items())

    def test_a_changed_parent_changes_its_own_pictures_only(self):
        before = codes()
        how = plan("strip")
        done = self.done(how, before)
        latents = matrix_of(before.column("latent")).copy()
        latents[6:12] += 1e-3  # the strips of the second image
        changed = pa.FixedSizeListArray.from_arrays(pa.array(latents.reshape(-1)), type=before.column("latent").type)
        after = before.set_column(before.schema.get_field_index("latent"), before.schema.field("latent"), changed)
        assert np.flatnonzero(pending(how, after, done)).tolist() == list(range(6, 12))

    def test_another_codec_or_direction_is_another_recipe(self):
        how = plan("strip")
        other = RenderPlan(how.step, how.code_sets, "e" * 64, SIZE)
        assert not set(self.done(how, codes()).values()) & set(self.done(other, codes()).values())

    def test_storage_options_and_step_selection_are_no_part_of_it(self):
        assert plan("strip", storage_options={"key": "x"}).base == plan("strip").base


def test_two_code_sets_share_one_numbering():
    second = STEP.model_copy(update={"name": "stroll", "coordinates": (1,)})
    shapes = (SHAPE, CodeSetShape("stroll", rows=2, strips=1, frames=3, first_seq=SHAPE.end_seq))
    batches = [decoded(codes(2, second, first_seq=42)), decoded(codes())]
    names = files(plan("strip", shapes=shapes), batches)
    assert sum(n.startswith("draw/stroll/") for n in names) == 2
    assert sum(n.startswith("draw/walk/") for n in names) == 14


def test_pictures_too_long_for_their_format_are_found_before_decoding():
    shape = CodeSetShape("walk", rows=1, strips=1, frames=40)
    how = plan("strip", shapes=(shape,), size=(512, 512), format="webp")
    (problem,) = check_render(how)
    assert "16383" in str(problem)
    assert not list(check_render(plan("strip", shapes=(shape,), size=(512, 512))))
    assert not list(check_render(plan("shards", shapes=(shape,), size=(512, 512), format="webp")))


def test_a_grid_never_outgrows_its_format():
    shape = CodeSetShape("walk", rows=64, strips=1, frames=3)
    step = RenderStep(to="out", layout="grid", format="webp")
    rows = group_rows(step, shape, (512, 512))
    assert max(grid_size(rows, 3, (512, 512), labelled=False)) <= MAX_SIDE["webp"]
    assert max(grid_size(rows + 1, 3, (512, 512), labelled=False)) > MAX_SIDE["webp"]


def test_plans_pickle():
    how = plan("grid")
    assert pickle.loads(pickle.dumps(how)) == how


def face(height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[:height, :width] / height
    noise = np.random.default_rng(seed).normal(0, 3, (height, width, 3))
    return np.clip(np.stack([200 * np.exp(-x * y), 180 * x, 120 + 90 * y], -1) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif"])
class TestEncoding:
    def test_bytes_are_the_same_every_time(self, kind):
        assert encode(face(), kind) == encode(face().copy(), kind)

    def test_the_picture_comes_back(self, kind):
        decoded = Image.open(io.BytesIO(encode(face(), kind, quality=95)))
        assert decoded.format.lower() == kind
        error = np.abs(np.asarray(decoded.convert("RGB")).astype(int) - face())
        assert error.mean() <= {"png": 0, "jpeg": 3, "webp": 4, "gif": 20}[kind]
        assert decoded.size == (64, 48)

    def test_colours_are_not_swapped(self, kind):
        red = np.zeros((16, 16, 3), np.uint8)
        red[..., 0] = 255
        decoded = np.asarray(Image.open(io.BytesIO(encode(red, kind))).convert("RGB"))
        assert decoded[..., 0].min() > 240
        assert decoded[..., 1:].max() < 30

    def test_a_view_with_strides_is_fine(self, kind):
        assert encode(face()[:, ::2], kind) == encode(np.ascontiguousarray(face()[:, ::2]), kind)

    def test_a_side_too_long_is_refused(self, kind):
        with pytest.raises(ValueError, match="does not fit"):
            encode(np.zeros((1, MAX_SIDE[kind] + 1, 3), np.uint8), kind)


@pytest.mark.parametrize("kind", ["webp", "gif"])
def test_animations_have_every_frame_and_loop(kind):
    frames = [face(seed=s) for s in range(5)]
    data = animate(frames, kind, frame_ms=80)
    assert data == animate(frames, kind, frame_ms=80)
    movie = Image.open(io.BytesIO(data))
    assert movie.n_frames == 5
    assert movie.info["loop"] == 0
    movie.seek(3)
    movie.load()
    assert movie.info["duration"] == 80


def test_labels_stand_under_their_columns():
    frames = [np.zeros((64, 64, 3), np.uint8)] * 3
    plain, labelled = strip(frames, (64, 64)), strip(frames, (64, 64), labels=["-1.5", "0", "+1.5"])
    np.testing.assert_array_equal(labelled[:64], plain)
    foot = labelled[64:]
    gap = gap_of(64, 64)
    for column in range(3):
        left = column * (64 + gap)
        assert (foot[:, left : left + 64] < 200).any()
        assert (foot[:, left + 64 : left + 64 + gap] == 255).all()


def test_strength_labels_are_signed_about_a_middle_and_plain_along_a_path():
    assert strength_labels([-1.5, 0, 3], "sigma") == ["-1.5", "0", "+3"]
    assert strength_labels([0, 0.125, 1], "t") == ["0", "0.125", "1"]


def test_rows_of_a_grid_may_differ_in_length():
    tile = np.zeros((8, 8, 3), np.uint8)
    assert grid([[tile, tile], [tile]], (8, 8)).shape == (*grid_size(2, 2, (8, 8), labelled=False), 3)
