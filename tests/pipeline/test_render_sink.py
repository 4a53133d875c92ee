"""The render sink: files, rows and receipts agree; nothing is ever written outside the target."""

import io
import pickle
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch
import xxhash
from PIL import Image

from pipeline.render import RenderSink
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.codec import LatentSpec, LinearCodec, Preprocess
from schemas.errors import JobError
from schemas.steps import InterpolateStep, RenderStep, TraverseStep
from schemas.tables import RENDERS
from stages.code_sets.codes import CodeSetShape, numbered
from stages.code_sets.interpolate import Interpolate
from stages.code_sets.parents import parents_batch, parents_schema
from stages.code_sets.traverse import CoordinateMoments, Traverse
from stages.codecs.factory import describe, open_codec
from stages.columns import column_of, matrix_of
from stages.decode import Decode
from stages.render_plan import RenderPlan, pending
from tests.s3 import KEY, REGION, SECRET, s3_server

SIZE = (8, 8)
SPEC = LatentSpec(shape=(3,), space="z")
MOMENTS = CoordinateMoments(np.zeros(3), np.ones(3))
IDS = ["a/b.jpg", "../../escape.jpg", "/abs/olute.jpg", "<script>.jpg", "图像/一.png"]


def step(**given: object) -> TraverseStep:
    return TraverseStep(**{"name": "walk", "coordinates": (0,), "strengths": (-1, 0, 1), "unit": "latent"} | given)


def codes(walk: TraverseStep | None = None, ids: list[str] = IDS, *, first_seq: int = 0) -> pa.RecordBatch:
    z = np.random.default_rng(0).standard_normal((len(ids), 3)).astype(np.float32)
    latents = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), 3)
    rows = parents_batch(range(len(ids)), [[i] for i in ids], [latents])
    return numbered(Traverse(walk or step(), [], SPEC, coordinates=MOMENTS)(rows), first_seq)


def decoded(batch: pa.RecordBatch) -> pa.RecordBatch:
    colour = (np.clip(matrix_of(batch.column("latent")), -3, 3) * 40 + 128).astype(np.uint8)
    pixels = np.broadcast_to(colour[:, None, None], (len(colour), *SIZE, 3)).reshape(-1)
    return batch.append_column("pixels", pa.FixedSizeListArray.from_arrays(pa.array(pixels), 192))


@pytest.fixture
def renders(tmp_path: Path) -> Table:
    table = Store.open(str(tmp_path / "store")).renders("faces")
    table.create(RENDERS)
    table.fence(1)
    return table


def sink(renders: Table, to: str, *, replacing: bool = False, **given: object) -> RenderSink:
    spec = RenderStep(**{"name": "draw", "to": to} | given)
    plan = RenderPlan(spec, (CodeSetShape("walk", len(IDS), 1, 3),), "f" * 64, SIZE)
    return RenderSink(plan, "faces", "run-1", renders, replacing)


def committed(renders: Table, fragments: tuple[str, ...], replaces: tuple[str, ...] = ()) -> list[dict]:
    renders.commit(fragments, token=1, properties={}, replaces=list(replaces))
    return sorted((r for b in renders.scan() for r in b.to_pylist()), key=lambda r: r["id"])


@pytest.mark.parametrize("layout", ["image", "strip", "grid", "animation", "shards"])
def test_files_rows_and_receipt_agree(tmp_path, renders, layout):
    to = tmp_path / "out"
    kind = "webp" if layout == "animation" else "png"
    writer = sink(renders, str(to), layout=layout, format=kind)
    receipt = pickle.loads(pickle.dumps(writer)).write([decoded(codes())])
    assert (receipt.rows, receipt.failed, receipt.ranges, receipt.keys) == (15, 0, ((0, 15),), ())
    files = {str(p): p.read_bytes() for p in to.rglob("*") if p.is_file()}
    assert receipt.bytes == sum(map(len, files.values()))
    rows = committed(renders, receipt.fragments[renders.name])
    assert {row["uri"].split("#")[0] for row in rows} == set(files)
    assert {row["status"] for row in rows} == {"done"}
    assert {i for row in rows for i in row["parents"]} == set(IDS)
    assert len({row["id"] for row in rows}) == len(rows) == {"image": 15, "shards": 15, "grid": 1}.get(layout, 5)
    if layout != "shards":
        assert all(row["content_hash"] == xxhash.xxh3_128_hexdigest(files[row["uri"]]) for row in rows)
        assert all(row["uri"].removeprefix(f"{to}/").rsplit(".", 1)[0] == row["id"] for row in rows)


def test_writing_again_writes_the_same_bytes_and_names_the_rows_it_replaces(tmp_path, renders):
    first = sink(renders, str(tmp_path / "out")).write([decoded(codes())])
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.png")}
    rows = committed(renders, first.fragments[renders.name])
    again = sink(renders, str(tmp_path / "out"), replacing=True).write([decoded(codes())])
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*.png")} == before
    assert sorted(again.keys) == [row["id"] for row in rows]
    after = committed(renders, again.fragments[renders.name], again.keys)
    assert [(r["id"], r["content_hash"], r["recipe"]) for r in after] == [
        (r["id"], r["content_hash"], r["recipe"]) for r in rows
    ]


def test_the_table_tells_what_is_done(tmp_path, renders):
    writer = sink(renders, str(tmp_path / "out"))
    rows = committed(renders, writer.write([decoded(codes())]).fragments[renders.name])
    done = {row["id"]: row["recipe"] for row in rows}
    assert not pending(writer.plan, codes(), done).any()
    assert pending(sink(renders, str(tmp_path / "elsewhere")).plan, codes(), done).all()


@pytest.mark.parametrize("layout", ["image", "strip", "grid", "shards"])
def test_ids_of_any_kind_stay_below_the_target(tmp_path, renders, layout):
    to = tmp_path / "deep" / "out"
    sink(renders, str(to), layout=layout).write([decoded(codes())])
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and to not in p.parents and "store" not in p.parts]
    assert outside == []
    for path in to.rglob("*"):
        assert all(c.isascii() and (c.isalnum() or c in "-_.") for c in path.name), path.name


EVIL = ["..", "../../evil", "/tmp/evil", "a/../../evil", "", "a\\..\\evil", "."]


@pytest.mark.parametrize("layout", ["image", "strip", "grid", "shards"])
@pytest.mark.parametrize("name", EVIL)
def test_a_climbing_step_name_is_refused_by_the_spec_and_again_by_the_sink(tmp_path, renders, name, layout):
    with pytest.raises(ValueError, match="letters, digits"):
        RenderStep(name=name, to="out")
    to = tmp_path / "deep" / "out"
    spec = RenderStep(name="draw", to=str(to), layout=layout).model_copy(update={"name": name or "a//b"})
    plan = RenderPlan(spec, (CodeSetShape("walk", len(IDS), 1, 3),), "f" * 64, SIZE)
    with pytest.raises(JobError, match="not a path below"):
        RenderSink(plan, "faces", "run-1", renders).write([decoded(codes())])
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".png", ".tar")]


@pytest.mark.parametrize("layout", ["image", "strip", "grid", "shards"])
def test_a_climbing_code_set_name_is_refused_by_the_spec_and_again_by_the_sink(tmp_path, renders, layout):
    with pytest.raises(ValueError, match="letters, digits"):
        step(name="../evil")
    walk = step().model_copy(update={"name": "../evil"})
    spec = RenderStep(name="draw", to=str(tmp_path / "deep" / "out"), layout=layout)
    plan = RenderPlan(spec, (CodeSetShape("../evil", len(IDS), 1, 3),), "f" * 64, SIZE)
    with pytest.raises(JobError, match="not a path below"):
        RenderSink(plan, "faces", "run-1", renders).write([decoded(codes(walk))])
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".png", ".tar")]


def test_a_code_that_could_not_be_made_is_a_row_without_a_file(tmp_path, renders):
    batch = codes()
    latents, at = batch.column("latent"), batch.schema.get_field_index("flags")
    mask = pa.array([i < 3 for i in range(15)])
    null = pa.FixedSizeListArray.from_arrays(latents.values, type=latents.type, mask=mask)
    flags = pa.array([["antipodal"] if i < 3 else [] for i in range(15)], batch.schema.field("flags").type)
    bad = batch.set_column(at, batch.schema.field("flags"), flags).set_column(
        batch.schema.get_field_index("latent"), batch.schema.field("latent"), null
    )
    receipt = sink(renders, str(tmp_path / "out")).write([decoded(bad)])
    assert (receipt.rows, receipt.failed) == (15, 3)
    rows = committed(renders, receipt.fragments[renders.name])
    (row,) = [r for r in rows if r["status"] == "antipodal"]
    assert row["uri"] is None
    assert row["content_hash"] is None
    assert row["parents"] == [IDS[0]]
    assert len(list((tmp_path / "out").rglob("*.png"))) == 4


def test_a_split_cut_through_a_picture_is_an_error_and_leaves_no_rows(tmp_path, renders):
    with pytest.raises(ValueError, match="group_rows"):
        sink(renders, str(tmp_path / "out")).write([decoded(codes()).slice(0, 4)])
    assert renders.count_rows() == 0


def test_nothing_left_to_draw_is_an_empty_receipt(tmp_path, renders):
    receipt = sink(renders, str(tmp_path / "out")).write([])
    assert (receipt.rows, receipt.ranges, receipt.fragments) == (0, (), {})


def test_memory_urls_are_targets_too(renders):
    sink(renders, "memory://renders/sink", layout="grid").write([decoded(codes())])
    (path,) = fsspec.filesystem("memory").find("/renders/sink")
    assert path.startswith("/renders/sink/draw/walk/")


@pytest.mark.slow
def test_s3_gets_every_file_though_it_refuses_some_requests(renders):
    with s3_server() as s3:
        s3.client.create_bucket(Bucket="pictures")
        options = {"key": KEY, "secret": SECRET, "endpoint_url": s3.endpoint, "region_name": REGION}
        s3.fail_every = 5
        writer = sink(renders, "s3://pictures/out", layout="image", storage_options=options)
        rows = committed(renders, writer.write([decoded(codes())]).fragments[renders.name])
        s3.fail_every = 0
        assert s3.refused
        for row in rows:
            bucket, key = row["uri"].removeprefix("s3://").split("/", 1)
            data = s3.client.get_object(Bucket=bucket, Key=key)["Body"].read()
            assert xxhash.xxh3_128_hexdigest(data) == row["content_hash"]
            assert Image.open(io.BytesIO(data)).size == SIZE
        assert len(rows) == 15


def test_from_pairs_to_rows_with_a_real_codec(tmp_path, renders):
    """Expand, decode and draw: the ends of a path are the decoded latents, and a pair without a path has its row."""
    codec = LinearCodec(dim=3, preprocess=Preprocess(size=SIZE))
    spec = describe(codec).latent
    z = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    other = z[::-1].copy()
    other[2] = -z[2]
    schema = parents_schema(spec, 2)
    ends = [column_of(z, schema.field("latent_0")), column_of(other, schema.field("latent_1"))]
    pairs = parents_batch(range(4), [[f"a{i}", f"b{i}"] for i in range(4)], ends)
    batch = Interpolate(InterpolateStep(name="paths", method="slerp", frames=4), spec)(pairs)
    decode = Decode(codec, weights=None)
    decode.open("cpu")
    plan = RenderPlan(
        RenderStep(name="draw", to=str(tmp_path / "out")), (CodeSetShape("paths", 4, 1, 4),), "f" * 64, SIZE
    )
    batches = [decode(batch.slice(at, 6)) for at in (0, 6, 12)]
    receipt = RenderSink(plan, "faces", "run-1", renders).write(batches)
    rows = {row["parents"][0]: row for row in committed(renders, receipt.fragments[renders.name])}
    assert [rows[f"a{i}"]["status"] for i in range(4)] == ["done", "done", "antipodal", "done"]
    assert rows["a0"]["strengths"] == [0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1]
    picture = np.asarray(Image.open(rows["a0"]["uri"]))
    ends = open_codec(codec).decode(torch.from_numpy(np.stack([z[0], other[0]]))).numpy()
    np.testing.assert_array_equal(picture[:, :8], ends[0])
    np.testing.assert_array_equal(picture[:, -8:], ends[1])
