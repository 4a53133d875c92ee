"""Files over any URL: whole or not at all, never outside their folder, and through passing faults."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from s3 import S3, s3_server

from pipeline import artifacts
from pipeline.faults import is_transient
from schemas.errors import JobError, SourceError, TransientReadError


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        server.put({"bucket/there": b"1"})
        yield server


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, object] | None]:
    """A folder that does not exist yet, and its options."""
    if request.param == "local":
        return str(tmp_path / "new"), None
    if request.param == "memory":
        return f"memory://tests/{tmp_path.name}", None
    return f"s3://bucket/{tmp_path.name}", request.getfixturevalue("s3").fsspec


def names(url: str, options: dict[str, object] | None) -> list[str]:
    """What lies directly below a folder, sorted."""
    found = artifacts.retrying(url, options, lambda fs, path: fs.ls(path, detail=False))
    return sorted(str(p).rstrip("/").rsplit("/", 1)[-1] for p in found)


def test_write_read_list_remove(place: tuple[str, dict[str, object] | None]) -> None:
    folder, options = place
    url = artifacts.join(folder, "a", "b.bin")
    assert not artifacts.exists(url, options)
    with pytest.raises(FileNotFoundError):
        artifacts.read_bytes(url, options)
    artifacts.write_bytes(url, b"one", options)
    artifacts.write_bytes(url, b"two", options)
    artifacts.write_bytes(artifacts.join(folder, "a", "c", "d"), b"", options)
    assert artifacts.read_bytes(url, options) == b"two"
    assert artifacts.exists(url, options) and artifacts.exists(artifacts.join(folder, "a"), options)
    assert names(artifacts.join(folder, "a"), options) == ["b.bin", "c"]
    artifacts.remove_tree(folder, options)
    assert not artifacts.exists(url, options)
    artifacts.remove_tree(folder, options)


def test_streams_seek_and_appear_whole(place: tuple[str, dict[str, object] | None]) -> None:
    folder, options = place
    url = artifacts.join(folder, "big.bin")
    data = bytes(range(256)) * 500
    with artifacts.open_write(url, options) as out:
        out.write(data[:1000])
        assert not artifacts.exists(url, options)
        out.write(data[1000:])
    with artifacts.open_read(url, options) as file:
        assert file.read(10) == data[:10]
        assert file.seek(70_000) == 70_000 and file.read(300) == data[70_000:70_300]
        file.seek(-5, 2)
        assert file.read() == data[-5:] and file.tell() == len(data)
    with pytest.raises(RuntimeError), artifacts.open_write(url, options) as out:
        out.write(b"half")
        raise RuntimeError("the writer failed")
    assert artifacts.read_bytes(url, options) == data
    assert names(folder, options) == ["big.bin"]


@pytest.mark.parametrize(
    "part", ["..", "../x", "a/../b", "/etc/passwd", "", "a//b", ".", "a\0b", "..\\x", "s3://bucket/x"]
)
def test_join_never_leaves_its_base(part: str) -> None:
    with pytest.raises(JobError):
        artifacts.join("s3://bucket/base", part)
    with pytest.raises(JobError):
        artifacts.join("out", "fine", part)


def test_join_keeps_names_as_they_are() -> None:
    assert artifacts.join("memory://", "a", "b c.png") == "memory://a/b c.png"
    assert artifacts.join("out/", "strips/1..2.png") == "out/strips/1..2.png"
    assert artifacts.join("s3://b") == "s3://b"


@pytest.mark.parametrize("url", ["/", "s3://bucket", "s3://bucket/", "memory://", "/tmp"])
def test_remove_tree_refuses_roots(url: str) -> None:
    with pytest.raises(JobError):
        artifacts.remove_tree(url)


def test_missing_places_and_drivers_are_explained(s3: S3) -> None:
    with pytest.raises(SourceError, match=r"s3://nobucket/x.*Fix: check the bucket"):
        artifacts.write_bytes("s3://nobucket/x", b"", s3.fsspec)
    with pytest.raises(SourceError, match=r"s3://bucket/there.*credentials.*Fix"):
        artifacts.read_bytes("s3://bucket/there", {"endpoint_url": s3.endpoint})
    with pytest.raises(SourceError, match=r"gs://b/x.*Fix: pip install 'gcsfs'"):
        artifacts.read_bytes("gs://b/x")
    with pytest.raises(JobError, match=r"storage_options.*'retry'"):
        artifacts.read_bytes("s3://bucket/there", {**s3.fsspec, "retry": 1})
    with pytest.raises(SourceError, match=r"nonsense://x.*Fix: use a path"):
        artifacts.read_bytes("nonsense://x")


def test_passing_faults_are_survived(s3: S3) -> None:
    """Every third request refused with 503, then every third connection cut: everything still arrives, and nothing twice."""
    for name in ("fail_every", "cut_every"):
        before = s3.refused
        setattr(s3, name, 3)
        try:
            for i in range(6):
                artifacts.write_bytes(f"s3://bucket/{name}/{i}", bytes([i]), s3.fsspec)
                assert artifacts.read_bytes(f"s3://bucket/{name}/{i}", s3.fsspec) == bytes([i])
            assert names(f"s3://bucket/{name}", s3.fsspec) == [str(i) for i in range(6)]
        finally:
            setattr(s3, name, 0)
        assert s3.refused > before


def test_a_stream_goes_on_after_its_connection_broke(s3: S3) -> None:
    data = bytes(range(256)) * 1000
    artifacts.write_bytes("s3://bucket/stream", data, s3.fsspec)
    with artifacts.open_read("s3://bucket/stream", s3.fsspec) as file:
        head = file.read(100)
        s3.cut_every = 2
        try:
            assert head + file.read() == data
        finally:
            s3.cut_every = 0


@pytest.mark.slow
def test_lasting_faults_end_in_a_transient_read_error(s3: S3) -> None:
    s3.fail_every = 1
    try:
        with pytest.raises(TransientReadError, match="s3://bucket/there: failed 5 times"):
            artifacts.read_bytes("s3://bucket/there", s3.fsspec)
    finally:
        s3.fail_every = 0


def test_permanent_faults_are_raised_at_once(s3: S3) -> None:
    before = s3.requests
    with pytest.raises(FileNotFoundError):
        artifacts.read_bytes("s3://bucket/not-there", s3.fsspec)
    assert s3.requests <= before + 2  # s3fs asks a second time in another way


@pytest.mark.parametrize(
    "error,passes",
    [
        (FileNotFoundError(2, "gone"), False),
        (PermissionError(13, "no"), False),
        (ConnectionResetError(104, "reset"), True),
        (TimeoutError("slow"), True),
        (OSError(5, "I/O error"), True),
        (OSError(116, "stale handle"), True),
        (OSError(28, "disk full"), False),
        (ValueError("wrong"), False),
    ],
)
def test_what_may_pass(error: Exception, passes: bool) -> None:
    assert is_transient(error) is passes


def test_store_options_become_fsspecs(s3: S3) -> None:
    options = artifacts.from_store_options(s3.store)
    assert hash(tuple(sorted(options.items())))
    assert artifacts.read_bytes("s3://bucket/there", options) == b"1"
    assert artifacts.options_for("out/labels.csv", "s3://bucket/x", options) is None
    assert artifacts.options_for("s3://other/labels.csv", "s3://bucket/x", options) is options


def test_others_writes_are_seen(s3: S3) -> None:
    """No listing is remembered: what another process wrote is there."""
    assert not artifacts.exists("s3://bucket/fresh/x", s3.fsspec)
    s3.client.put_object(Bucket="bucket", Key="fresh/x", Body=b"1")
    assert artifacts.exists("s3://bucket/fresh/x", s3.fsspec)
    assert names("s3://bucket/fresh", s3.fsspec) == ["x"]
    assert not fsspec.filesystem("memory").exists("/never")
