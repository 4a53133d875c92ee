"""Listing files: the same rows in the same order from a disk, from memory and from S3; globs; what cannot be listed."""

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from s3 import S3, s3_server
from sourcing import ids, listed

from pipeline.sources.ahead import in_order
from pipeline.sources.files import FilesListing
from pipeline.sources.glob import Glob
from schemas.errors import SourceError
from schemas.source import FilesSource
from stages.images import IMAGE_SUFFIXES

TREE = [
    "b.jpg",
    "a/2.jpg",
    "a/10.JPG",
    "a-b/1.png",
    "a.jpg",
    "a/deep/er/x.webp",
    "ä/é.jpg",
    "notes.txt",
    "a/readme.md",
    "Z.tiff",
]
IMAGES = sorted((p for p in TREE if not p.endswith((".txt", ".md"))), key=str.encode)


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        server.put({f"bucket/faces/{path}": path.encode() for path in TREE})
        server.put({f"many/f/{i % 20:02d}/{i:04d}.jpg": b"x" for i in range(120)})
        server.put({"many/other/1.jpg": b"x"})
        yield server


@pytest.fixture(params=["local", "memory", "s3"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, object]]:
    """The same files in every kind of place."""
    if request.param == "local":
        for path in TREE:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_bytes(path.encode())
        return str(tmp_path), {}
    if request.param == "memory":
        fs = fsspec.filesystem("memory")
        for path in TREE:
            fs.pipe_file(f"/{tmp_path.name}/{path}", path.encode())
        return f"memory://{tmp_path.name}", {}
    return "s3://bucket/faces", request.getfixturevalue("s3").fsspec


def test_a_folder_lists_alike_everywhere(tree: tuple[str, dict[str, object]]) -> None:
    root, options = tree
    rows = listed(FilesSource(images=root, storage_options=options))
    assert [r["id"] for r in rows] == IMAGES
    assert [r["uri"] for r in rows] == [f"{root}/{p}" for p in IMAGES]
    assert [r["size"] for r in rows] == [len(p.encode()) for p in IMAGES]
    assert all(r["offset"] is None and r["row"] is None and len(r["source_version"]) > 4 for r in rows)
    assert rows == listed(FilesSource(images=root + "/", storage_options=options))


@pytest.mark.parametrize(
    "pattern,expected",
    [
        ("*.jpg", ["a.jpg", "b.jpg"]),
        ("**/*.jpg", ["a.jpg", "a/2.jpg", "b.jpg", "ä/é.jpg"]),
        ("**/*.{jpg,JPG}", ["a.jpg", "a/10.JPG", "a/2.jpg", "b.jpg", "ä/é.jpg"]),
        ("a*/*.*", ["a-b/1.png", "a/10.JPG", "a/2.jpg", "a/readme.md"]),
        ("a/**/*.webp", ["a/deep/er/x.webp"]),
        ("?.jpg", ["a.jpg", "b.jpg"]),
        ("[!a].jpg", ["b.jpg"]),
        ("a/deep/**", ["a/deep/er/x.webp"]),
        ("a.jpg", ["a.jpg"]),
    ],
)
def test_globs(tree: tuple[str, dict[str, object]], pattern: str, expected: list[str]) -> None:
    """Ids are relative to the part before the first wildcard."""
    root, options = tree
    found = listed(FilesSource(images=f"{root}/{pattern}", storage_options=options))
    assert sorted(r["uri"] for r in found) == sorted(f"{root}/{p}" for p in expected)
    fixed = pattern.split("*")[0].split("?")[0].split("[")[0].rpartition("/")[0]
    assert sorted(r["id"] for r in found) == sorted(p.removeprefix(f"{fixed}/" if fixed else "") for p in expected)


def test_versions_follow_content(tree: tuple[str, dict[str, object]]) -> None:
    root, options = tree
    spec = FilesSource(images=root, storage_options=options)
    before = {r["id"]: r["source_version"] for r in listed(spec)}
    with fsspec.open(f"{root}/b.jpg", "wb", **options) as file:
        file.write(b"other content")
    after = {r["id"]: r["source_version"] for r in listed(spec)}
    assert {i for i in before if before[i] != after[i]} == {"b.jpg"}
    with fsspec.open(f"{root}/b.jpg", "wb", **options) as file:
        file.write(b"b.jpg")


def test_local_versions_are_size_and_mtime(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"abc")
    os.utime(tmp_path / "1.jpg", ns=(5, 1_234_567_890_123_456_789))
    assert listed(FilesSource(images=str(tmp_path)))[0]["source_version"] == "3-1234567890123456789"


def test_s3_versions_are_etags(s3: S3) -> None:
    row = listed(FilesSource(images="s3://bucket/faces/a.jpg", storage_options=s3.fsspec))[0]
    assert f'"{row["source_version"]}"' == s3.client.head_object(Bucket="bucket", Key="faces/a.jpg")["ETag"]


def test_s3_pages_and_folders_keep_their_order(s3: S3) -> None:
    """Folders are listed side by side; all keys come in key order all the same."""
    spec = FilesSource(images="s3://many/f/**/*.jpg", storage_options=s3.fsspec)
    assert ids(spec) == sorted(f"{i % 20:02d}/{i:04d}.jpg" for i in range(120))


@pytest.mark.slow
def test_s3_listing_reads_every_page(s3: S3) -> None:
    s3.put({f"paged/x/{i:05d}.jpg": b"" for i in range(1203)})
    spec = FilesSource(images="s3://paged/x/*.jpg", storage_options=s3.fsspec)
    assert ids(spec) == [f"{i:05d}.jpg" for i in range(1203)]


def test_s3_listing_survives_refusals(s3: S3) -> None:
    refused = s3.refused
    s3.fail_every = 4
    try:
        assert len(ids(FilesSource(images="s3://many/f", storage_options=s3.fsspec))) == 120
    finally:
        s3.fail_every = 0
    assert s3.refused > refused


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    for images in ("in", "./in", "in/*.jpg", f"file://{tmp_path}/in"):
        row = listed(FilesSource(images=images))[0]
        assert (row["id"], row["uri"]) == ("1.jpg", str(tmp_path / "in" / "1.jpg"))
    assert listed(FilesSource(images="**/*.jpg"))[0]["id"] == "in/1.jpg"


def test_big_folders_and_many_folders_are_sorted(tmp_path: Path) -> None:
    """More names than one chunk holds, so the sort over chunks is what is tested."""
    for i in range(9000):
        (tmp_path / f"{(i * 7919) % 9000:05d}.jpg").touch()
    for i in range(50):
        (tmp_path / f"{i:05d}d").mkdir()
        (tmp_path / f"{i:05d}d" / "x.jpg").touch()
    found = ids(FilesSource(images=str(tmp_path)))
    assert found == sorted(found) and len(found) == len(set(found)) == 9050
    batches = list(FilesListing(FilesSource(images=str(tmp_path))).listing())
    assert [b.num_rows for b in batches] == [8192, 9050 - 8192]


def test_links_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.jpg").write_bytes(b"x")
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "real").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "in" / "a")
    (tmp_path / "in" / "dead.jpg").symlink_to(tmp_path / "nowhere.jpg")
    found = ids(FilesSource(images=str(tmp_path / "in")))
    assert found[:2] == ["dead.jpg", "real/1.jpg"] and len(found) < 10


def test_a_name_that_is_not_utf8_is_listed(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb") as file:  # noqa: PTH123
        file.write(b"x")
    assert ids(FilesSource(images=str(tmp_path))) == ["caf\\xe9.jpg"]


@pytest.mark.parametrize(
    "images", ["/no/such/folder", "/no/such/*.jpg", "memory://no/such", "s3://nobucket/x", "s3://bucket/none/**"]
)
def test_missing_places(images: str, s3: S3) -> None:
    options = s3.fsspec if images.startswith("s3") else {}
    with pytest.raises(SourceError, match="Fix: ") as error:
        listed(FilesSource(images=images, storage_options=options))
    assert images.split("*")[0].rstrip("/") in str(error.value)


def test_nothing_matches(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"no file below it matches \*\.jpg.*looks into folders"):
        listed(FilesSource(images=f"{tmp_path}/*.jpg"))
    with pytest.raises(SourceError, match="no file below it"):
        listed(FilesSource(images=f"{tmp_path}/a/*.png"))


@pytest.mark.slow
def test_a_closed_folder_is_not_passed_over(s3: S3) -> None:
    """Half a listing would make the rest of the images vanish without a word."""
    bad = {**s3.fsspec, "endpoint_url": "http://127.0.0.1:9"}
    with pytest.raises(SourceError, match=r"s3://bucket/faces.*Fix: check the network"):
        listed(FilesSource(images="s3://bucket/faces", storage_options=bad))


def test_a_bucket_cannot_be_a_pattern() -> None:
    with pytest.raises(SourceError, match="name one bucket"):
        listed(FilesSource(images="s3://buck*/x.jpg"))


@given(
    st.lists(st.text("ab[]{}!,^-\\.", min_size=1, max_size=4), min_size=1, max_size=3),
    st.text("ab.[]{}!,^-\\/", max_size=8),
)
def test_any_glob_reads_alike_for_arrow_and_python_or_is_refused(parts: list[str], path: str) -> None:
    try:
        glob = Glob.parse("root/" + "/".join([*parts, "*"]), suffixes=IMAGE_SUFFIXES)
    except SourceError as error:
        assert "mend its [ ] classes" in str(error)
    else:
        assert glob.matches(pa.array([path]))[0].as_py() == bool(re.match(glob.expression, path))


@given(st.text("ab*?.", min_size=1, max_size=6), st.text("ab.", max_size=6))
def test_simple_globs_agree_with_fnmatch(pattern: str, name: str) -> None:
    if "**" not in pattern:
        assert Glob("root", (pattern,), IMAGE_SUFFIXES).matches(pa.array([name]))[0].as_py() == fnmatch.fnmatchcase(
            name, pattern
        )


@given(st.lists(st.lists(st.integers(), max_size=5), max_size=20))
def test_running_ahead_changes_no_order(sections: list[list[int]]) -> None:
    assert list(in_order(iter(section) for section in sections)) == [x for section in sections for x in section]


def test_running_ahead_raises_where_the_error_was() -> None:
    def broken() -> Iterator[int]:
        yield 2
        raise ConnectionError("cut")

    seen = []
    with pytest.raises(ConnectionError):
        for item in in_order(iter([iter([1]), broken(), iter([3])])):
            seen.append(item)
    assert seen == [1]
