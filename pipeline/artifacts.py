"""A small file API over any URL fsspec opens: weights, renders, reports, work files.

Whole files only, and never half of one: local writes go to a temporary name and move, object stores get one PUT. Faults that may
pass (5xx, resets, timeouts) are tried again with growing pauses and a filesystem made anew, for a retry over a broken
connection pool or a half-read body repeats the fault; faults that will not pass are raised at once.
"""

import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar, cast

import fsspec
from fsspec.core import url_to_fs

from pipeline.faults import explained, faults, persist
from schemas.errors import JobError

Options = Mapping[str, Any] | None
T = TypeVar("T")

READ_BLOCK = 8 * 2**20

_FROM_STORE = {  # object_store's names, as the store takes them → fsspec's
    "access_key_id": "key",
    "secret_access_key": "secret",
    "session_token": "token",
    "endpoint": "endpoint_url",
    "endpoint_url": "endpoint_url",
    "region": "region_name",
    "default_region": "region_name",
    "service_account": "token",
    "application_credentials": "token",
    "storage_account_name": "account_name",
    "storage_account_key": "account_key",
    "account_name": "account_name",
    "account_key": "account_key",
    "skip_signature": "anon",
}


def read_bytes(url: str, options: Options = None) -> bytes:
    """A whole file. Raises FileNotFoundError, PermissionError, SourceError (no driver, no credentials)."""
    if is_local(url):
        return local_path(url).read_bytes()
    return cast(bytes, retrying(url, options, lambda fs, path: fs.cat_file(path)))


def write_bytes(url: str, data: bytes, options: Options = None) -> None:
    """Writes a whole file, replacing what is there; readers see the old one or the new one."""
    with _no_bucket(url):
        if is_local(url):
            with open_write(url) as out:
                out.write(data)
        else:
            retrying(url, options, lambda fs, path: fs.pipe_file(path, data))


def exists(url: str, options: Options = None) -> bool:
    """Whether there is a file or a folder at `url`."""
    if is_local(url):
        return local_path(url).exists()
    return bool(retrying(url, options, lambda fs, path: fs.exists(path)))


def remove_tree(url: str, options: Options = None) -> None:
    """Removes a folder and all below it; does nothing when there is none. Refuses the root of a disk, bucket or scheme."""
    path = str(local_path(url).absolute()) if is_local(url) else url.split("://", 1)[1]
    if not [part for part in path.split("/") if part][1:]:
        raise JobError.one("url", url, "this is the root of a place, not a folder in it.", "name a folder below it")
    if is_local(url):
        if local_path(url).exists():
            shutil.rmtree(local_path(url))
    elif exists(url, options):
        retrying(url, options, lambda fs, found: fs.rm(found, recursive=True))


def join(base: str, *parts: str) -> str:
    """`base` and parts below it. Raises JobError on a part that is empty, absolute or climbs: nothing is written outside `base`."""
    names = []
    for part in parts:
        pieces = str(part).replace("\\", "/").split("/")
        if any(piece in ("", ".", "..") or "\0" in piece for piece in pieces):
            raise JobError.one(
                "path", part, f"not a path below {base}.", "use names without `..`, empty parts or a leading `/`"
            )
        names.append(str(part))
    root = base if base.endswith("://") else base.rstrip("/")
    return root + ("" if base.endswith("://") else "/") + "/".join(names) if names else base


def open_read(url: str, options: Options = None) -> BinaryIO:
    """A seekable file for reading. Remote ones read ahead and, when a read fails in passing, go on with a fresh handle."""
    if is_local(url):
        return local_path(url).open("rb")
    return cast(BinaryIO, io.BufferedReader(_Reopening(url, options), 2**16))


@contextmanager
def open_write(url: str, options: Options = None) -> Iterator[IO[bytes]]:
    """A file for writing that appears under its name when the block ends without an error, and not at all otherwise."""
    if not is_local(url):
        with tempfile.NamedTemporaryFile(prefix="latentmill-") as spool:
            yield spool
            spool.flush()
            with _no_bucket(url):
                retrying(url, options, lambda fs, path: fs.put_file(spool.name, path))
        return
    target = local_path(url)
    part = target.with_name(f".latentmill-{uuid.uuid4().hex}.part")
    moved = False
    try:
        with _new_file(part) as out:
            yield out
        part.replace(target)
        moved = True
    finally:
        if not moved:
            part.unlink(missing_ok=True)


def from_store_options(options: Mapping[str, str]) -> dict[str, str]:
    """A store's object-store options (`aws_endpoint`, …) as fsspec's, flat, so that they can be compared and hashed."""
    found = {}
    for name, value in options.items():
        short = name.lower().removeprefix("aws_").removeprefix("google_").removeprefix("azure_")
        if short in _FROM_STORE:
            found[_FROM_STORE[short]] = value
    return found


def is_local(url: str) -> bool:
    """Whether `url` is a path on this machine."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str) -> Path:
    """The path of a local URL, with `~` expanded."""
    return Path(url.removeprefix("file://")).expanduser()


def options_for(url: str, owner: str, options: Options) -> Options:
    """`options` where `url` is of the same scheme as `owner`, for which they were given; else none."""
    scheme, other = (u.split("://", 1)[0] if "://" in u else "" for u in (url, owner))
    return options if scheme == other else None


def place_of(url: str) -> str:
    """The bucket or host of a URL with its scheme (`s3://faces`), or "" for a path on this machine."""
    if is_local(url):
        return ""
    scheme, rest = url.split("://", 1)
    return f"{scheme}://{rest.split('/', 1)[0]}"


def open_filesystem(url: str, options: Options = None) -> tuple[fsspec.AbstractFileSystem, str]:
    """The (cached) filesystem of a URL and the path in it. Raises SourceError when its driver is missing or unknown."""
    given = dict(options or {})
    if url.startswith(("s3://", "s3a://")) and "region_name" in given:
        given["client_kwargs"] = {**given.get("client_kwargs", {}), "region_name": given.pop("region_name")}
    if isinstance(given.get("anon"), str):
        given["anon"] = given["anon"].lower() == "true"
    if not is_local(url):
        given.setdefault("use_listings_cache", False)  # others write while we read
    try:
        return cast(tuple[fsspec.AbstractFileSystem, str], url_to_fs(url, **given))
    except (ImportError, ValueError) as error:
        raise explained(url, error) from error


class Remote:
    """One filesystem, shared by threads, made anew after a fault. Opened where it is made: SourceError when it cannot be."""

    def __init__(self, url: str, options: Options = None) -> None:
        self._url, self._options = url, options
        self.fs, self.path = open_filesystem(url, options)

    def __call__(self, action: Callable[[fsspec.AbstractFileSystem], T]) -> T:
        """`action(filesystem)`, again after faults that may pass (`faults.persist`)."""
        return persist(self._url, lambda: action(self.fs), self._renew)

    def _renew(self) -> None:
        type(self.fs).clear_instance_cache()
        self.fs, _ = open_filesystem(self._url, self._options)


def retrying(url: str, options: Options, action: Callable[[fsspec.AbstractFileSystem, str], T]) -> T:
    """`action(filesystem, path)` for one URL, again after faults that may pass, each time with a filesystem made anew."""
    remote = Remote(url, options)
    return remote(lambda fs: action(fs, remote.path))


def _new_file(path: Path) -> IO[bytes]:
    """A new file, its folder made only when it is missing: renders write millions of small files into few folders."""
    try:
        return path.open("xb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")


@contextmanager
def _no_bucket(url: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise explained(url, error) from error


class _Reopening(io.RawIOBase):
    """A remote file that survives its connection: a failed read is repeated from the same place on a new handle."""

    def __init__(self, url: str, options: Options) -> None:
        super().__init__()
        self._url, self._options, self._at = url, options, 0
        self._file: Any = None
        self._size = int(self._with(lambda file: file.size))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._with(lambda file: (file.seek(self._at), file.read(len(view)))[1])
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()

    def _with(self, action: Callable[[Any], T]) -> T:
        def attempt(fs: fsspec.AbstractFileSystem, path: str) -> T:
            if self._file is None:
                self._file = fs.open(path, "rb", block_size=READ_BLOCK, cache_type="readahead")
            try:
                return action(self._file)
            except faults():
                self._file = None
                raise

        return retrying(self._url, self._options, attempt)
