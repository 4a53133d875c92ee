"""Manifests: a file of uri, size and etag in place of a listing."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3 import s3_server
from sourcing import listed, picture, read, shade_of, work_of

from pipeline.sources.open import open_source
from schemas.errors import JobError, SourceError
from schemas.source import ManifestSource


def manifest(path: Path, text: str) -> ManifestSource:
    path.write_text(text)
    return ManifestSource(images=str(path))


def test_csv_with_everything(tmp_path: Path) -> None:
    spec = manifest(
        tmp_path / "m.csv", 'id,uri,size,etag\none,s3://b/1.jpg,10,"abc"\ntwo,sub/2.jpg,,\n,/data/3.jpg,7,\n'
    )
    assert listed(spec) == [
        {"id": "one", "uri": "s3://b/1.jpg", "source_version": "abc", "size": 10, "offset": None, "row": None},
        {
            "id": "two",
            "uri": f"{tmp_path}/sub/2.jpg",
            "source_version": "unknown",
            "size": None,
            "offset": None,
            "row": None,
        },
        {"id": "/data/3.jpg", "uri": "/data/3.jpg", "source_version": "7", "size": 7, "offset": None, "row": None},
    ]


def test_parquet_and_csv_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,size,smiling,age\n1.jpg,5,true,3\n2.jpg,6,no,\n")
    pq.write_table(
        pa.table(
            {
                "uri": ["1.jpg", "2.jpg"],
                "size": [5, 6],
                "smiling": [True, False],
                "age": pa.array([3, None], pa.int32()),
            }
        ),
        tmp_path / "m.parquet",
    )
    specs = [
        ManifestSource(images=f"{tmp_path}/m.{kind}", label_columns=("smiling", "age")) for kind in ("csv", "parquet")
    ]
    assert listed(specs[0]) == listed(specs[1])
    assert listed(specs[0])[0]["labels"] == {"age": 3, "smiling": True}
    assert (
        open_source(specs[0]).label_types() == open_source(specs[1]).label_types() == {"smiling": "bool", "age": "int"}
    )
    assert open_source(ManifestSource(images=f"{tmp_path}/m.csv")).label_types() == {}


def test_many_rows_come_in_batches(tmp_path: Path) -> None:
    spec = manifest(tmp_path / "m.csv", "uri\n" + "".join(f"{i}.jpg\n" for i in range(20_000)))
    rows = listed(spec)
    assert [r["id"] for r in rows] == [f"{i}.jpg" for i in range(20_000)]


def test_reading_checks_the_listed_size(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(picture(i))
    size = len(picture(1))
    spec = manifest(
        tmp_path / "m.csv", f"uri,size,etag\n0.png,,\n1.png,{len(picture(1))},x\n2.png,{size + 1},\n9.png,,\n"
    )
    assert [shade_of(r) for r in read(spec)] == [0, 1, "changed", "vanished"]


def test_reading_checks_the_listed_etag_on_s3(tmp_path: Path) -> None:
    with s3_server() as s3:
        s3.put({"bucket/1.png": picture(1), "bucket/2.png": picture(2), "bucket/m.csv": b"uri,etag\n1.png,wrong\n"})
        etag = s3.client.head_object(Bucket="bucket", Key="2.png")["ETag"].strip('"')
        spec = manifest(
            tmp_path / "m.csv", f"uri,etag\ns3://bucket/1.png,wrong\ns3://bucket/2.png,{etag}\n{tmp_path}/here.png,\n"
        )
        spec = spec.model_copy(update={"storage_options": s3.fsspec})
        (tmp_path / "here.png").write_bytes(picture(3))
        assert [shade_of(r) for r in read(spec)] == ["changed", 2, 3]
        remote = ManifestSource(images="s3://bucket/m.csv", storage_options=s3.fsspec)
        assert [r["uri"] for r in listed(remote)] == ["s3://bucket/1.png"]
        assert work_of(remote).num_rows == 1


@pytest.mark.parametrize(
    "text,error,said",
    [
        ("url,size\nx,1\n", JobError, r"source.images = 'uri'.*no such column.*did you mean `url`"),
        ("uri,size\n,1\n", SourceError, r"m\.csv: row 1 has no uri"),
        ("uri,size\nx,big\n", SourceError, r"row 1: size = 'big' is not a number"),
        ("uri,size\n", SourceError, "the manifest has no rows"),
        ("", SourceError, r"m\.csv: the file is empty"),
        ("uri,size\nx\n", SourceError, r"m\.csv: .*Expected 2 columns, got 1"),
    ],
)
def test_bad_manifests(tmp_path: Path, text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        listed(manifest(tmp_path / "m.csv", text))


def test_missing_manifests_and_columns(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.csv.*Fix"):
        listed(ManifestSource(images=f"{tmp_path}/none.csv"))
    spec = manifest(tmp_path / "m.csv", "uri,age\nx,1\n").model_copy(update={"label_columns": ("aeg",)})
    with pytest.raises(JobError, match=r"source.label_columns = 'aeg'.*did you mean `age`"):
        listed(spec)
