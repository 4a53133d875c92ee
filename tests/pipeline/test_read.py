"""Reading work: every row answered, in order, whatever is wrong with the others; nothing changed is taken for what was listed."""

import os
import pickle
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import xxhash
from imagefiles import encoded, photo
from s3 import S3
from sourcing import SMALL, read, work_of

from pipeline.sources.labels import LabelIndex
from pipeline.sources.read import ImageReader
from schemas.batches import pixels_schema, work_schema
from schemas.codec import Preprocess
from schemas.source import FilesSource, LabelsSpec, SourceSpec


def picture(shade: int) -> bytes:
    return encoded(np.full((12, 8, 3), shade, np.uint8), "PNG")


BROKEN = {
    "zero_bytes": b"",
    "not_an_image": b"<html>404</html>",
    "unsupported": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "truncated": picture(5)[:60],
    "corrupt": picture(5)[:-30] + b"\0" + picture(5)[-29:],
    "too_large": encoded(np.zeros((60, 60, 3), np.uint8), "PNG"),
}


def one_in_three_broken(count: int) -> tuple[dict[str, bytes], list[str | None]]:
    """Files by name, and the code each must come out with."""
    kinds = list(BROKEN)
    codes = [kinds[(i // 3) % len(kinds)] if i % 3 == 1 else None for i in range(count)]
    return {f"{i:03d}.png": BROKEN[code] if code else picture(i % 200) for i, code in enumerate(codes)}, codes


@pytest.fixture(params=["local", "memory", "s3"])
def messy(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[SourceSpec, list[str | None]]:
    """A folder in which one file in three is broken."""
    files, codes = one_in_three_broken(60)
    options: dict[str, object] = {}
    if request.param == "local":
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
        root = str(tmp_path)
    elif request.param == "memory":
        root = f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").pipe({f"/{tmp_path.name}/{name}": data for name, data in files.items()})
    else:
        server = request.getfixturevalue("s3")
        server.put({f"bucket/messy/{name}": data for name, data in files.items()})
        root, options = "s3://bucket/messy", server.fsspec
    return FilesSource(images=root, storage_options=options, max_pixels=3000), codes


def test_one_file_in_three_is_broken(messy: tuple[SourceSpec, list[str | None]]) -> None:
    spec, codes = messy
    rows = read(spec)
    assert [r["error"] for r in rows] == codes
    assert set(codes) == {None, *BROKEN}
    for i, row in enumerate(rows):
        name = f"{spec.images}/{i:03d}.png"
        assert (row["seq"], row["id"], row["uri"]) == (i, f"{i:03d}.png", name)
        if row["error"]:
            assert name in row["message"] and not row["pixels"].any() and row["width"] is None
        else:
            assert (
                row["message"] is None and (row["pixels"] == i % 200).all() and (row["width"], row["height"]) == (8, 12)
            )


def test_batches_keep_to_the_schema_and_hash_what_was_read(tmp_path: Path) -> None:
    for name, data in {"1.jpg": encoded(photo(), "JPEG"), "2.jpg": b"x"}.items():
        (tmp_path / name).write_bytes(data)
    spec = FilesSource(images=str(tmp_path))
    batch = ImageReader(spec, Preprocess(size=(16, 20))).read(work_of(spec))
    batch.validate(full=True)
    assert batch.schema.equals(pixels_schema(16, 20, None), check_metadata=True)
    assert batch.column("content_hash").to_pylist() == [
        xxhash.xxh3_128_hexdigest((tmp_path / name).read_bytes()) for name in ("1.jpg", "2.jpg")
    ]


def test_slices_and_batch_sizes_change_nothing(messy: tuple[SourceSpec, list[str | None]]) -> None:
    spec, _ = messy
    work = work_of(spec)
    whole = ImageReader(spec, SMALL).read(work)
    reader = pickle.loads(pickle.dumps(ImageReader(spec, SMALL)))
    for rows in (1, 7, 60):
        parts = [reader.read(work.slice(start, rows)) for start in range(0, work.num_rows, rows)]
        assert pa.concat_batches(parts).equals(whole)
    assert pickle.loads(pickle.dumps(reader)).read(work.slice(0, 3)).equals(whole.slice(0, 3))
    assert reader.read(work.slice(0, 0)).num_rows == 0


def test_labels_travel_with_their_rows(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(picture(i))
    (tmp_path / "labels.csv").write_text("id,age\n0.png,7\n1.png,old\n")
    spec = FilesSource(images=str(tmp_path), labels=LabelsSpec(uri=f"{tmp_path}/labels.csv", types={"age": "int"}))
    assert spec.labels is not None
    work = work_of(spec)
    labels, errors = LabelIndex.open(spec.labels).join(work)
    schema = work_schema(labels.type)
    columns = {**{n: work.column(n) for n in work.schema.names}, "labels": labels, "label_error": errors}
    (tmp_path / "1.png").unlink()  # a row whose label is unreadable needs no bytes
    rows = read(spec, pa.RecordBatch.from_arrays([columns[f.name] for f in schema], schema=schema))
    assert [r["labels"] for r in rows] == [{"age": 7}, {"age": None}, {"age": None}]
    assert [r["error"] for r in rows] == [None, "unreadable_label", None]
    assert rows[1]["message"] == f"{tmp_path}/labels.csv: image 1.png: age = 'old' is not of type int"


# --- between listing and reading -----------------------------------------------------------------------------------


def test_local_files_that_change_or_vanish(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(picture(i))
    spec = FilesSource(images=str(tmp_path))
    work = work_of(spec)
    (tmp_path / "0.png").write_bytes(picture(99) + b" longer")
    stamp = (tmp_path / "1.png").stat().st_mtime_ns
    (tmp_path / "1.png").write_bytes(picture(98))
    os.utime(tmp_path / "1.png", ns=(stamp + 1, stamp + 1))  # same size, one nanosecond later
    (tmp_path / "2.png").unlink()
    (tmp_path / "3.png").unlink()
    (tmp_path / "3.png").mkdir()
    rows = read(spec, work)
    assert [r["error"] for r in rows] == ["changed", "changed", "vanished", "unreadable", None]
    assert "run again" in rows[0]["message"] and "not a regular file" in rows[3]["message"]


def test_files_nobody_can_read(tmp_path: Path) -> None:
    """A pipe must not hold the run up, a loop of links and a dead link are rows like any other."""
    os.mkfifo(tmp_path / "0.jpg")
    (tmp_path / "1.jpg").symlink_to(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "3.png").write_bytes(picture(3))
    with open(os.fsencode(tmp_path) + b"/4\xe9.png", "wb") as file:  # noqa: PTH123
        file.write(picture(4))
    rows = read(FilesSource(images=str(tmp_path)))
    assert [r["error"] for r in rows] == ["unreadable", "unreadable", "vanished", None, "vanished"]
    assert "not UTF-8" in rows[4]["message"]


def test_big_files_are_not_read(tmp_path: Path) -> None:
    with (tmp_path / "1.png").open("wb") as file:
        file.truncate(2**40)  # a sparse terabyte
    rows = read(FilesSource(images=str(tmp_path), max_bytes=1000))
    assert rows[0]["error"] == "too_large" and "max_bytes = 1,000" in rows[0]["message"]


def test_s3_objects_that_change_vanish_or_grow(s3: S3) -> None:
    s3.put({f"bucket/c/{i}.png": picture(i) for i in range(4)})
    spec = FilesSource(images="s3://bucket/c", storage_options=s3.fsspec, max_bytes=len(picture(0)) + 50)
    work = work_of(spec)
    s3.put({"bucket/c/0.png": picture(50), "bucket/c/1.png": picture(1) + bytes(100)})
    s3.client.delete_object(Bucket="bucket", Key="c/2.png")
    assert [r["error"] for r in read(spec, work)] == ["changed", "too_large", "vanished", None]


def test_one_request_an_image(s3: S3) -> None:
    s3.put({f"bucket/r/{i}.png": picture(i) for i in range(30)})
    spec = FilesSource(images="s3://bucket/r", storage_options=s3.fsspec)
    work = work_of(spec)
    before = s3.requests
    assert all(r["error"] is None for r in read(spec, work))
    assert s3.requests - before == 30


@pytest.mark.parametrize("fault", ["fail_every", "cut_every"])
def test_refused_and_cut_requests_cost_no_row(s3: S3, fault: str) -> None:
    s3.put({f"bucket/f/{i}.png": picture(i) for i in range(24)})
    spec = FilesSource(images="s3://bucket/f", storage_options=s3.fsspec)
    work = work_of(spec)
    refused = s3.refused
    setattr(s3, fault, 5)
    try:
        rows = read(spec, work)
    finally:
        setattr(s3, fault, 0)
    assert [r["error"] for r in rows] == [None] * 24 and s3.refused > refused
    assert [int(r["pixels"].mean()) for r in sorted(rows, key=lambda r: r["seq"])] == sorted(range(24), key=str)


def test_a_lasting_fault_becomes_a_row(s3: S3) -> None:
    s3.put({"bucket/l/0.png": picture(0)})
    spec = FilesSource(images="s3://bucket/l", storage_options=s3.fsspec)
    work = work_of(spec)
    gone = spec.model_copy(update={"storage_options": {**s3.fsspec, "endpoint_url": "http://127.0.0.1:9"}})
    row = read(gone, work)[0]
    assert row["error"] == "unreadable" and "s3://bucket/l" in row["message"] and "failed 5 times" in row["message"]


def test_closed_objects_are_unreadable(s3: S3) -> None:
    s3.put({"bucket/p/0.png": picture(0)})
    spec = FilesSource(images="s3://bucket/p", storage_options=s3.fsspec)
    work = work_of(spec)
    away = work.set_column(work.schema.get_field_index("uri"), "uri", pa.array(["s3://otherbucket/p/0.png"]))
    assert Counter(r["error"] for r in read(spec, away)) == {"vanished": 1}
