"""Walks: every file below a root, in the order of its path's bytes, streamed, with what a listing tells of its version.

A folder sorts as its name followed by `/`, which is S3's own order, so the same tree lists alike everywhere. Local folders are
scanned natively; S3 is read page by page (s3fs would hold every key), its folders side by side; other filesystems
folder by folder.
"""

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.artifacts import Options, Remote, is_local, local_path, retrying
from pipeline.faults import explained, faults
from pipeline.rebatch import equal_batches
from pipeline.sources.ahead import in_order
from pipeline.sources.base import BATCH_ROWS, local_version, versions_of
from pipeline.sources.glob import Glob
from schemas.errors import SourceError, TransientReadError

ENTRIES = pa.schema([("path", pa.string()), ("size", pa.int64()), ("version", pa.string())])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Entry = tuple[str, int | None, str | None, int | None]
"""Relative path, size, etag, mtime in nanoseconds."""


def walk(glob: Glob, options: Options) -> Iterator[pa.RecordBatch]:
    """Batches of ENTRIES that match `glob`. Raises SourceError when the root is missing or closed, or nothing matches."""
    found = False
    try:
        entries = (
            _local(glob) if is_local(glob.root) else _s3(glob, options) if _is_s3(glob.root) else _any(glob, options)
        )
        for batch in equal_batches(_matching(entries, glob), BATCH_ROWS):
            found = True
            yield batch
    except TransientReadError as error:
        raise SourceError(f"{error} Fix: check the network and the endpoint, then run again.") from error
    except faults() as error:
        raise explained(glob.root, error) from error
    if not found:
        raise _nothing(glob)


def absolute_uri(url: str) -> str:
    """A URL as every process on this machine understands it, whatever its working directory."""
    return os.path.abspath(local_path(url)) if is_local(url) else url  # noqa: PTH100 - keeps symlinks


def file_version(url: str, options: Options) -> str:
    """The version of one file, as `walk` tells it. Raises FileNotFoundError when it is gone."""
    if is_local(url):
        status = local_path(url).stat()
        return local_version(status.st_size, status.st_mtime_ns)
    info = retrying(url, options, lambda fs, path: fs.info(path))
    etag, changed = _version(info)
    return str(
        versions_of([etag], pa.array([info.get("size")], pa.int64()), pa.array([changed], pa.int64()))[0].as_py()
    )


def _nothing(glob: Glob) -> SourceError:
    wanted = "/".join(glob.parts) if glob.parts else " ".join(sorted(glob.suffixes))
    fix = (
        "check the pattern (`**/*.jpg` looks into folders, `*.jpg` does not)"
        if glob.parts
        else "name the images by a glob"
    )
    return SourceError(f"{glob.root}: no file below it matches {wanted}. Fix: {fix}.")


def _matching(entries: Iterator[Entry], glob: Glob) -> Iterator[pa.RecordBatch]:
    for chunk in _chunks(entries):
        paths, sizes, etags, mtimes = zip(*chunk, strict=True)
        path, size = pa.array(paths, pa.string()), pa.array(sizes, pa.int64())
        version = versions_of(etags, size, pa.array(mtimes, pa.int64()))
        yield pa.RecordBatch.from_arrays([path, size, version], schema=ENTRIES).filter(glob.matches(path))


def _chunks(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    chunk: list[Entry] = []
    for entry in entries:
        chunk.append(entry)
        if len(chunk) == BATCH_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


# --- local ---------------------------------------------------------------------------------------------------------


def _local(glob: Glob) -> Iterator[Entry]:
    yield from _local_folder(absolute_uri(glob.root) + "/", "", glob, ())


def _local_folder(root: str, folder: str, glob: Glob, links: tuple[str, ...]) -> Iterator[Entry]:
    """One folder in order. `links`: where the links that led here point, so that a ring of them is walked once."""
    for names in _sorted_names(root + folder):
        for name in names:
            path = folder + name
            if name[-1] != "/":
                try:
                    status = os.stat(root + path)  # noqa: PTH116 - the hot loop of a listing
                except OSError:  # went away, or a link to nothing, or closed: reading it will say so
                    yield path, None, None, None
                else:
                    yield path, status.st_size, None, status.st_mtime_ns
            elif not glob.enters(path):
                continue
            elif not os.path.islink(root + path[:-1]):  # noqa: PTH114
                yield from _local_folder(root, path, glob, links)
            elif target := _new_target(root + path, root + folder, links):
                yield from _local_folder(root, path, glob, (*links, target))


def _new_target(link: str, folder: str, links: tuple[str, ...]) -> str | None:
    """Where a link to a folder points, or None when that is above `folder` or has been entered on the way here."""
    target, here = os.path.realpath(link), os.path.realpath(folder)
    return None if target in links or f"{here}/".startswith(f"{target}/") else target


def _sorted_names(folder: str) -> Iterator[list[str]]:
    """Names in a folder, sorted, a few thousand at a time; as Arrow arrays a big folder takes half of what strings do."""
    chunks: list[pa.StringArray] = []
    with os.scandir(folder) as entries:
        names: list[str] = []
        for entry in entries:
            try:
                names.append(entry.name + "/" if entry.is_dir() else entry.name)
            except OSError:  # a link to itself
                names.append(entry.name)
            if len(names) == BATCH_ROWS:
                chunks.append(_strings(names))
                names = []
    if not chunks:
        yield sorted(_strings(names).to_pylist())
        return
    every = pa.concat_arrays([*chunks, _strings(names)])
    chunks.clear()
    order = pc.array_sort_indices(every)
    for start in range(0, len(every), BATCH_ROWS):
        yield every.take(order.slice(start, BATCH_ROWS)).to_pylist()


def _strings(names: list[str]) -> pa.StringArray:
    """Names as Arrow strings. A name that is not UTF-8 is shown with `\\x..` escapes: it is listed, and cannot be read."""
    try:
        return pa.array(names, pa.string())
    except UnicodeEncodeError:
        readable = (n.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") for n in names)
        return pa.array(list(readable), pa.string())


# --- S3 ------------------------------------------------------------------------------------------------------------


def _is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))


def _s3(glob: Glob, options: Options) -> Iterator[Entry]:
    """Pages of the root's own level, its folders listed ahead and side by side, everything in key order."""
    remote = Remote(glob.root, options)
    bucket, _, prefix = remote.path.partition("/")
    prefix = prefix.rstrip("/") + "/" if prefix else ""

    def pages(at: str, delimiter: str) -> Iterator[tuple[list[Entry], list[str]]]:
        query = {"Bucket": bucket, "Prefix": at, **({"Delimiter": delimiter} if delimiter else {})}
        more: dict[str, str] = {}
        while True:
            page = remote(partial(_list_objects, **query, **more))
            yield (
                [_s3_entry(found, len(prefix)) for found in page.get("Contents", []) if not found["Key"].endswith("/")],
                [found["Prefix"][len(prefix) :] for found in page.get("CommonPrefixes", [])],
            )
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def sections() -> Iterator[Iterable[list[Entry]]]:
        for entries, folders in pages(prefix, "/"):
            own = sorted([(e[0], e) for e in entries] + [(f, None) for f in folders if glob.enters(f)])
            run: list[Entry] = []
            for name, entry in own:
                if entry is not None:
                    run.append(entry)
                    continue
                yield [run]
                run = []
                yield (page for page, _ in pages(prefix + name, ""))
            yield [run]

    for page in in_order(sections()):
        yield from page


def _list_objects(fs: Any, **query: str) -> dict[str, Any]:
    return cast(dict[str, Any], fs.call_s3("list_objects_v2", **query))


def _s3_entry(found: dict[str, Any], skip: int) -> Entry:
    return (
        found["Key"][skip:],
        found["Size"],
        found.get("ETag", "").strip('"') or None,
        _nanoseconds(found.get("LastModified")),
    )


# --- any other filesystem ------------------------------------------------------------------------------------------


def _any(glob: Glob, options: Options) -> Iterator[Entry]:
    yield from _folder(glob, Remote(glob.root, options), "")


def _folder(glob: Glob, remote: Remote, folder: str) -> Iterator[Entry]:
    root = remote.path.rstrip("/")
    here = f"{root}/{folder}".rstrip("/")
    found = remote(lambda fs: fs.ls(here, detail=True))
    below = {
        info["name"].rstrip("/")[len(root) + 1 :] + ("/" if info["type"] == "directory" else ""): info for info in found
    }
    for path in sorted(below):
        info = below[path]
        if path.rstrip("/") == folder.rstrip("/"):
            continue  # some stores list a folder within itself
        if info["type"] != "directory":
            yield path, info.get("size"), *_version(info)
        elif glob.enters(path):
            yield from _folder(glob, remote, path)


def _version(info: dict[str, Any]) -> tuple[str | None, int | None]:
    etag = info.get("ETag") or info.get("etag")
    changed = next(
        (info[k] for k in ("mtime", "LastModified", "last_modified", "updated", "created") if info.get(k)), None
    )
    return str(etag).strip('"') if etag else None, _nanoseconds(changed)


def _nanoseconds(moment: Any) -> int | None:
    """A time in any form a listing gives it, as whole nanoseconds since 1970."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        return (moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1) * 1000
    return int(moment * 1e9) if isinstance(moment, int | float) else None
