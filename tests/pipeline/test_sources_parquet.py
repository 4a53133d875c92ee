"""Parquet sources: bytes and {bytes, path}, ids, labels, and reading them back row by row."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from imagefiles import encoded
from s3 import S3
from sourcing import SMALL, ids, listed, picture, read, shade_of, work_of

from pipeline.sources.open import open_source
from pipeline.sources.read import ImageReader
from schemas.errors import JobError, SourceError
from schemas.job import parse_job
from schemas.source import ParquetSource


def write(
    path: Path, shades: list[int | None], *, struct: bool = False, row_group_size: int = 4, **columns: list[Any]
) -> None:
    data = [None if s is None else picture(s) for s in shades]
    image = (
        pa.array([{"bytes": d, "path": f"{i}.png"} for i, d in enumerate(data)])
        if struct
        else pa.array(data, pa.binary())
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": image, **columns}), path, row_group_size=row_group_size)


@pytest.mark.parametrize("struct", [False, True])
def test_ids_rows_and_pixels(tmp_path: Path, struct: bool) -> None:
    write(tmp_path / "a.parquet", [1, 2, 3, 4, 5, 6, 7, 8, 9], struct=struct)
    write(tmp_path / "sub" / "b.parquet", [10, 11], struct=struct)
    spec = ParquetSource(images=f"{tmp_path}/**/*.parquet")
    rows = listed(spec)
    assert [r["id"] for r in rows] == [f"a.parquet#{i}" for i in range(9)] + ["sub/b.parquet#0", "sub/b.parquet#1"]
    assert [r["row"] for r in rows] == [*range(9), 0, 1]
    assert {r["uri"] for r in rows} == {str(tmp_path / "a.parquet"), str(tmp_path / "sub" / "b.parquet")}
    assert [shade_of(r) for r in read(spec)] == list(range(1, 12))


def test_one_file_is_a_source(tmp_path: Path) -> None:
    write(tmp_path / "train-00000-of-00001.parquet", [5])
    assert ids(ParquetSource(images=f"{tmp_path}/train-00000-of-00001.parquet")) == ["train-00000-of-00001.parquet#0"]
    assert ids(ParquetSource(images=str(tmp_path))) == ["train-00000-of-00001.parquet#0"]


def test_any_subset_in_any_order_reads_the_same(tmp_path: Path) -> None:
    """The cursor runs forwards; work that jumps about must come out right all the same."""
    write(tmp_path / "a.parquet", list(range(60)), row_group_size=7)
    write(tmp_path / "b.parquet", list(range(100, 130)), row_group_size=50)
    spec = ParquetSource(images=f"{tmp_path}/*.parquet")
    work = work_of(spec)
    reader = ImageReader(spec, SMALL)
    expected = [*range(60), *range(100, 130)]
    rng = np.random.default_rng(0)
    for _ in range(10):
        chosen = rng.permutation(90)[: rng.integers(1, 40)]
        got = [shade_of(r) for r in _rows(reader.read(work.take(pa.array(chosen))))]
        assert got == [expected[i] for i in chosen]


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    return [{**r, "pixels": np.asarray(r["pixels"], np.uint8)} for r in batch.to_pylist()]


def test_an_id_column(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [1, 2], key=pa.array([70, 80]))
    assert ids(ParquetSource(images=str(tmp_path), id_column="key")) == ["70", "80"]
    write(tmp_path / "b.parquet", [1, 2], key=pa.array([70, None]))
    with pytest.raises(SourceError, match=r"b\.parquet: row 1 has no key"):
        ids(ParquetSource(images=str(tmp_path), id_column="key"))


def test_labels_keep_their_types(tmp_path: Path) -> None:
    columns = {
        "smiling": pa.array([True, None]),
        "age": pa.array([31, 32], pa.int16()),
        "score": pa.array([0.5, float("nan")], pa.float32()),
        "kind": pa.array(["cat", "dog"]).dictionary_encode(),
    }
    write(tmp_path / "a.parquet", [1, 2], **columns)
    spec = ParquetSource(images=str(tmp_path), label_columns=tuple(columns))
    assert open_source(spec).label_types() == {"smiling": "bool", "age": "int", "score": "float", "kind": "category"}
    assert [r["labels"] for r in listed(spec)] == [
        {"age": 31, "kind": "cat", "score": 0.5, "smiling": True},
        {"age": 32, "kind": "dog", "score": None, "smiling": None},
    ]
    assert read(spec)[0]["labels"]["kind"] == "cat"


def test_files_must_agree_about_label_types(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [1], age=[3])
    write(tmp_path / "b.parquet", [1], age=["three"])
    with pytest.raises(SourceError, match=r"b\.parquet: its label columns are \{'age': 'category'\}"):
        listed(ParquetSource(images=str(tmp_path), label_columns=("age",)))


@pytest.mark.parametrize(
    "options,said",
    [
        ({"image_column": "imgae"}, "source.image_column = 'imgae'.*did you mean `image`"),
        ({"image_column": "age"}, "source.image_column = 'age'.*int64 there, not image bytes.*Known: image"),
        ({"id_column": "id"}, "source.id_column = 'id'.*Known: age, image"),
        ({"label_columns": ("aeg",)}, "source.label_columns = 'aeg'.*did you mean `age`"),
        ({"label_columns": ("image",)}, "source.label_columns = 'image'.*cannot be a label"),
    ],
)
def test_wrong_columns_name_the_field_and_the_nearest(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    write(tmp_path / "a.parquet", [1], age=[3])
    with pytest.raises(JobError, match=said):
        listed(ParquetSource(images=str(tmp_path), **options))


def test_null_bytes_are_read_from_the_path(tmp_path: Path) -> None:
    """As Hugging Face writes it when images are not embedded."""
    (tmp_path / "img").mkdir()
    (tmp_path / "img" / "x.png").write_bytes(picture(77))
    image = [{"bytes": None, "path": p} for p in ("img/x.png", str(tmp_path / "img" / "x.png"), "img/none.png", None)]
    pq.write_table(pa.table({"image": pa.array(image)}), tmp_path / "a.parquet")
    assert [shade_of(r) for r in read(ParquetSource(images=str(tmp_path)))] == [77, 77, "vanished", "zero_bytes"]


def test_bad_rows_are_rows(tmp_path: Path) -> None:
    data = [picture(1), None, b"", b"nonsense", picture(2)[:60], picture(3)]
    pq.write_table(pa.table({"image": pa.array(data, pa.binary())}), tmp_path / "a.parquet")
    rows = read(ParquetSource(images=str(tmp_path)))
    assert [shade_of(r) for r in rows] == [1, "zero_bytes", "zero_bytes", "not_an_image", "truncated", 3]
    assert all(
        "a.parquet" in r["message"] and ("#" in r["message"] or "row" in r["message"]) for r in rows if r["error"]
    )
    assert all(not r["pixels"].any() for r in rows if r["error"])


def test_a_file_that_changed_vanished_or_broke(tmp_path: Path) -> None:
    spec = ParquetSource(images=str(tmp_path))
    write(tmp_path / "a.parquet", [1, 2, 3])
    write(tmp_path / "b.parquet", [4])
    work = work_of(spec)
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole + b" ")
    assert [shade_of(r) for r in read(spec, work)] == [1, 2, 3, "changed"]
    (tmp_path / "b.parquet").unlink()
    assert [shade_of(r) for r in read(spec, work)] == [1, 2, 3, "vanished"]


def test_damaged_pages_fail_their_rows_only(tmp_path: Path) -> None:
    spec = ParquetSource(images=str(tmp_path))
    rng = np.random.default_rng(0)
    data = [encoded(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), "PNG") for _ in range(12)]
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"image": pa.array(data, pa.binary())}),
        path,
        row_group_size=4,
        compression="zstd",
        use_dictionary=False,
    )
    start = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    broken = bytearray(path.read_bytes())
    broken[start : start + 20] = b"\xaa" * 20  # the header of the page
    path.write_bytes(broken)
    errors = [r["error"] for r in read(spec)]
    assert errors == [None] * 4 + ["corrupt"] * 4 + [None] * 4


def test_not_parquet_stops_the_listing(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"not at all")
    with pytest.raises(SourceError, match=r"a\.parquet: .*Fix"):
        listed(ParquetSource(images=str(tmp_path)))


def test_from_s3_with_refusals(tmp_path: Path, s3: S3) -> None:
    write(tmp_path / "a.parquet", list(range(40)), row_group_size=10)
    s3.put({"bucket/p/a.parquet": (tmp_path / "a.parquet").read_bytes()})
    spec = ParquetSource(images="s3://bucket/p/*.parquet", storage_options=s3.fsspec)
    work = work_of(spec)
    s3.fail_every = 3
    try:
        assert [shade_of(r) for r in read(spec, work)] == list(range(40))
    finally:
        s3.fail_every = 0


def test_kind_follows_the_name() -> None:
    job = {"dataset": "d", "store": "out", "codec": {"family": "linear"}, "steps": [{"stage": "encode"}]}
    assert parse_job({**job, "source": {"images": "s3://b/x/*.parquet"}}).source.kind == "parquet"
