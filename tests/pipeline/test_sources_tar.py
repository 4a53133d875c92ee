"""Tar shards: samples in WebDataset's sense, label members, and images read as byte ranges."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from s3 import S3
from sourcing import ids, listed, picture, read, shade_of, work_of

from pipeline.sources.open import open_source
from schemas.errors import SourceError
from schemas.source import TarSource


def tar(members: dict[str, bytes], *, kind: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def shards(folder: Path, *contents: dict[str, bytes]) -> TarSource:
    for i, members in enumerate(contents):
        (folder / f"{i:05d}.tar").write_bytes(tar(members))
    return TarSource(images=f"{folder}/*.tar")


def test_samples_are_members_of_one_name(tmp_path: Path) -> None:
    spec = shards(
        tmp_path,
        {"a/1.png": picture(1), "a/1.txt": b"words", "a/2.json": b"{}", "a/2.PNG": picture(2), "readme": b"-"},
        {"./b/3.jpg": picture(3), "b/4.txt": b"no image", "b/5.png": picture(5), "b/5.seg.png": picture(99)},
    )
    rows = listed(spec)
    assert [r["id"] for r in rows] == ["a/1", "a/2", "b/3", "b/5"]
    assert [r["size"] for r in rows] == [len(picture(s)) for s in (1, 2, 3, 5)]
    assert [shade_of(r) for r in read(spec)] == [1, 2, 3, 5]


def test_long_names_and_folders(tmp_path: Path) -> None:
    name = "x" * 180 + "/" + "y" * 120
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        (tmp_path / "0.tar").write_bytes(tar({"ä.png": picture(7), f"{name}.png": picture(8)}, kind=kind))
        assert ids(TarSource(images=str(tmp_path))) == ["ä", name]
        assert [shade_of(r) for r in read(TarSource(images=str(tmp_path)))] == [7, 8]


def test_one_compound_image_is_the_image(tmp_path: Path) -> None:
    assert ids(shards(tmp_path, {"1.input.png": picture(1), "2.input.png": picture(2)})) == ["1", "2"]


@pytest.mark.parametrize(
    "members", [["1.input.png", "1.target.png"], ["photo.1.jpg", "photo.2.jpg"], ["1.jpg", "1.png"]]
)
def test_two_images_in_a_sample_are_refused_not_lost(tmp_path: Path, members: list[str]) -> None:
    spec = shards(tmp_path, dict.fromkeys(members, picture(1)))
    with pytest.raises(SourceError, match=r"00000\.tar: sample .* holds several images.*source\.image_member"):
        listed(spec)


def test_the_image_member_can_be_named(tmp_path: Path) -> None:
    spec = shards(tmp_path, {"1.input.png": picture(1), "1.target.png": picture(2)}).model_copy(
        update={"image_member": "target.png"}
    )
    assert [shade_of(r) for r in read(spec)] == [2]


def test_json_labels_are_typed_over_all_shards(tmp_path: Path) -> None:
    label = [{"smiling": True, "age": 3, "kind": "a"}, {"smiling": False, "age": 4.5}, {"kind": None, "note": {"x": 1}}]
    first, second, third = (json.dumps(row).encode() for row in label)
    spec = shards(
        tmp_path,
        {"1.json": first, "1.png": picture(1), "2.png": picture(2), "2.json": second},
        {"3.png": picture(3), "3.json": third, "4.png": picture(4), "5.png": picture(5), "5.json": b"{broken"},
    ).model_copy(update={"label_member": "json"})
    assert open_source(spec).label_types() == {
        "age": "float",
        "kind": "category",
        "note": "category",
        "smiling": "bool",
    }
    rows = listed(spec)
    assert [r["labels"]["age"] for r in rows] == [3.0, 4.5, None, None, None]
    assert [r["labels"]["smiling"] for r in rows] == [True, False, None, None, None]
    assert rows[2]["labels"]["note"] == '{"x": 1}'
    assert [bool(r["label_error"]) for r in rows] == [False] * 4 + [True]
    done = read(spec)
    assert [shade_of(r) for r in done] == [1, 2, 3, 4, "unreadable_label"]
    assert "00001.tar" in done[4]["message"] and "5.json" in done[4]["message"]


def test_class_labels(tmp_path: Path) -> None:
    spec = shards(tmp_path, {"1.cls": b"7\n", "1.png": picture(1), "2.cls": b"3", "2.png": picture(2)})
    spec = spec.model_copy(update={"label_member": "cls"})
    assert open_source(spec).label_types() == {"cls": "int"}
    assert [r["labels"] for r in listed(spec)] == [{"cls": 7}, {"cls": 3}]


@pytest.mark.parametrize("cut", [0.01, 0.3, 0.6])
def test_a_cut_shard_stops_the_listing(tmp_path: Path, cut: float) -> None:
    """What it lost cannot be counted, so passing it over would lose images without a word."""
    whole = tar({f"{i}.png": picture(i) + bytes(3000) for i in range(5)})
    (tmp_path / "0.tar").write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(SourceError, match=r"0\.tar: not a readable tar shard"):
        listed(TarSource(images=str(tmp_path)))


def test_compressed_and_empty_shards(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "0.tar").write_bytes(gzip.compress(tar({"1.png": picture(1)})))
    with pytest.raises(SourceError, match="uncompressed"):
        listed(TarSource(images=str(tmp_path)))
    (tmp_path / "0.tar").write_bytes(tar({"1.txt": b"x"}))
    with pytest.raises(SourceError, match="no shard holds an image"):
        listed(TarSource(images=str(tmp_path)))


def test_bad_members_are_rows(tmp_path: Path) -> None:
    spec = shards(tmp_path, {"1.png": b"", "2.png": b"nonsense", "3.png": picture(3)[:50], "4.png": picture(4)})
    rows = read(spec)
    assert [shade_of(r) for r in rows] == ["zero_bytes", "not_an_image", "truncated", 4]
    assert "00000.tar, image 2" in rows[1]["message"]
    small = spec.model_copy(update={"max_bytes": len(picture(4)) - 1})
    assert [shade_of(r) for r in read(small)] == ["zero_bytes", "not_an_image", "truncated", "too_large"]


def test_a_shard_that_changed_or_vanished(tmp_path: Path) -> None:
    spec = shards(tmp_path, {"1.png": picture(1)}, {"2.png": picture(2)})
    work = work_of(spec)
    (tmp_path / "00000.tar").write_bytes(tar({"1.png": picture(1), "3.png": picture(3)}))
    (tmp_path / "00001.tar").unlink()
    assert [shade_of(r) for r in read(spec, work)] == ["changed", "vanished"]


def test_dense_ranges_are_read_in_few_requests(s3: S3) -> None:
    members = {f"{i:03d}.png": picture(i) for i in range(200)}
    s3.put({"bucket/t/0.tar": tar(members), "bucket/t/1.tar": tar({"x.png": picture(9)})})
    spec = TarSource(images="s3://bucket/t/*.tar", storage_options=s3.fsspec)
    work = work_of(spec)
    before = s3.requests
    assert [shade_of(r) for r in read(spec, work)] == [*range(200), 9]
    assert s3.requests - before <= 4
    sparse = work.take(pa.array([5, 100, 199]))
    assert [shade_of(r) for r in read(spec, sparse)] == [5, 100, 199]


def test_s3_shards_that_change_between_listing_and_reading(s3: S3) -> None:
    s3.put({"bucket/c/0.tar": tar({"1.png": picture(1)})})
    spec = TarSource(images="s3://bucket/c/*.tar", storage_options=s3.fsspec)
    work = work_of(spec)
    s3.put({"bucket/c/0.tar": tar({"1.png": picture(2)})})
    assert [shade_of(r) for r in read(spec, work)] == ["changed"]
    s3.client.delete_object(Bucket="bucket", Key="c/0.tar")
    assert [shade_of(r) for r in read(spec, work)] == ["vanished"]
