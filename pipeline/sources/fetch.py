"""Fetching: the encoded bytes of listed rows, or the reason there are none. Objects, and byte ranges of tar shards.

Local files are read one after another, which the page cache makes the fastest way. Remote ones are read by a few threads ahead
of the caller, in bounded memory, dense ranges of a shard in one request. What was listed is held against what is read,
where that costs no request: size and mtime of the open file, the etag of the very answer that brings the bytes.
"""

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from fsspec.asyn import sync

from pipeline.artifacts import Options, Remote, is_local, local_path
from pipeline.faults import is_transient, persist, read_faults
from pipeline.sources.base import UNKNOWN_VERSION, local_version
from schemas.errors import FailureCode, RowFailure, TransientReadError

Fetched = bytes | RowFailure

THREADS = 16
AHEAD_BYTES = 64 * 2**20  # what may be under way or waiting; one larger object goes alone
UNKNOWN_BYTES = 2**20  # what an object of untold size counts as
SPAN_BYTES = 16 * 2**20  # one request for neighbouring members of a shard
GAP_BYTES = 256 * 2**10  # unwanted bytes between them that are read along rather than asked around


class Wanted(NamedTuple):
    """One row to fetch, for place `at` of the batch. `offset` and `size` cut a member out of a shard; without `offset` the whole object is meant."""

    at: int
    uri: str
    version: str
    size: int | None
    offset: int | None


@dataclass(frozen=True, slots=True)
class Span:
    """Rows that one request answers, and the bytes it asks for; all of the object when `stop` is None."""

    rows: tuple[Wanted, ...]
    start: int
    stop: int | None

    @property
    def bytes(self) -> int:
        return self.stop - self.start if self.stop is not None else self.rows[0].size or UNKNOWN_BYTES


class Fetcher:
    """Reads whole objects and ranges. `stamped`: versions come from our own listing, so they can be held against the object."""

    def __init__(self, options: Options, *, max_bytes: int, stamped: bool) -> None:
        self._options, self._max_bytes, self._stamped = options, max_bytes, stamped
        self._remotes: dict[str, Remote] = {}
        self._pool: ThreadPoolExecutor | None = None

    def fetch(self, rows: Iterable[Wanted]) -> Iterator[tuple[int, Fetched]]:
        """Every row once, as (place, bytes or failure). Raises only what is wrong with the whole job: no driver, no credentials."""
        for local, run in groupby(rows, key=lambda row: is_local(row.uri)):
            read = self._local if local else self._remote
            yield from read(run)

    # --- local -----------------------------------------------------------------------------------------------------

    def _local(self, rows: Iterator[Wanted]) -> Iterator[tuple[int, Fetched]]:
        for row in rows:
            try:
                yield row.at, self._read_local(row)
            except (FileNotFoundError, NotADirectoryError):
                yield row.at, vanished(row.uri)
            except OSError as error:
                yield row.at, self._again(row, error)

    def _again(self, row: Wanted, error: OSError) -> Fetched:
        if not is_transient(error):
            return unreadable(row.uri, error)
        try:
            return persist(row.uri, lambda: self._read_local(row), renew=lambda: None)
        except (TransientReadError, OSError) as final:
            return unreadable(row.uri, final)

    def _read_local(self, row: Wanted) -> Fetched:
        path = local_path(row.uri) if row.uri[0] != "/" else row.uri
        # Not blocking: a pipe that is called x.jpg must not hold the run up for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                return RowFailure(FailureCode.UNREADABLE, f"{row.uri}: not a regular file")
            now = local_version(before.st_size, before.st_mtime_ns)
            if change := self._change(row, now=now, size=before.st_size):
                return change
            length = before.st_size if row.offset is None else row.size or 0
            if length > self._max_bytes:
                return too_large(row.uri, length, self._max_bytes)
            data = os.pread(handle, length, row.offset or 0)
            while len(data) < length and (more := os.pread(handle, length - len(data), (row.offset or 0) + len(data))):
                data += more
            after = os.fstat(handle)
        finally:
            os.close(handle)
        if len(data) < length or after.st_mtime_ns != before.st_mtime_ns or after.st_size != before.st_size:
            return RowFailure(FailureCode.CHANGED, f"{row.uri}: it was written to while it was read; run again")
        return data

    # --- remote ----------------------------------------------------------------------------------------------------

    def _remote(self, rows: Iterator[Wanted]) -> Iterator[tuple[int, Fetched]]:
        """Spans in order, while the next ones are under way."""
        self._pool = self._pool or ThreadPoolExecutor(THREADS, thread_name_prefix="fetch")
        waiting: deque[tuple[Span, Future[list[Fetched]]]] = deque()
        ahead = 0
        for span in self._spans(rows):
            while waiting and (len(waiting) >= 2 * THREADS or ahead + span.bytes > AHEAD_BYTES):
                done, future = waiting.popleft()
                ahead -= done.bytes
                yield from zip((row.at for row in done.rows), future.result(), strict=True)
            ahead += span.bytes
            waiting.append((span, self._pool.submit(self._read_remote, span, self._remote_of(span.rows[0].uri))))
        for done, future in waiting:
            yield from zip((row.at for row in done.rows), future.result(), strict=True)

    def _remote_of(self, uri: str) -> Remote:
        scheme = uri.split("://", 1)[0]
        if scheme not in self._remotes:
            self._remotes[scheme] = Remote(uri, self._options)
        return self._remotes[scheme]

    def _spans(self, rows: Iterator[Wanted]) -> Iterator[Span]:
        held: list[Wanted] = []
        for row in rows:
            if held and not _joins(held, row):
                yield _span(held)
                held = []
            held.append(row)
        if held:
            yield _span(held)

    def _read_remote(self, span: Span, remote: Remote) -> list[Fetched]:
        first = span.rows[0]
        if span.stop is None and (first.size or 0) > self._max_bytes:
            return [too_large(first.uri, first.size or 0, self._max_bytes)]
        try:
            data, etag = self._get_s3(span, remote) if first.uri.startswith(("s3://", "s3a://")) else _get(span, remote)
        except FileNotFoundError:
            return [vanished(row.uri) for row in span.rows]
        except read_faults() as error:
            return [unreadable(row.uri, error) for row in span.rows]
        if isinstance(data, RowFailure):
            return [data]
        return [self._cut(row, span, data, etag) for row in span.rows]

    def _get_s3(self, span: Span, remote: Remote) -> tuple[Fetched, str | None]:
        """One GET. Its answer tells the etag, so a change is seen without a further request; and the length, before the body."""

        def get(fs: Any) -> tuple[Fetched, str | None]:
            bucket, key, _ = fs.split_path(span.rows[0].uri)
            part = {"Range": f"bytes={span.start}-{span.stop - 1}"} if span.stop is not None else {}
            answer = fs.call_s3("get_object", Bucket=bucket, Key=key, **part)
            if span.stop is None and answer["ContentLength"] > self._max_bytes:
                answer["Body"].close()
                return too_large(span.rows[0].uri, answer["ContentLength"], self._max_bytes), None
            return sync(fs.loop, answer["Body"].read), str(answer.get("ETag", "")).strip('"') or None

        return remote(get)

    def _cut(self, row: Wanted, span: Span, data: bytes, etag: str | None) -> Fetched:
        whole = None if span.stop is not None else len(data)
        if change := self._change(row, now=etag, size=whole):
            return change
        if row.offset is None:
            return data if len(data) <= self._max_bytes else too_large(row.uri, len(data), self._max_bytes)
        start = row.offset - span.start
        piece = data[start : start + (row.size or 0)]
        if len(piece) < (row.size or 0):
            return RowFailure(FailureCode.CHANGED, f"{row.uri}: shorter than when it was listed; run again")
        return piece if len(piece) <= self._max_bytes else too_large(row.uri, len(piece), self._max_bytes)

    def _change(self, row: Wanted, *, now: str | None, size: int | None) -> RowFailure | None:
        """A failure when the object is not the listed one. `now`: its version as a listing would tell it, where that is known."""
        told = row.version not in (UNKNOWN_VERSION, str(row.size)) and (self._stamped or not is_local(row.uri))
        if told and now is not None:
            differs, is_now = now != row.version, now
        else:
            differs, is_now = row.offset is None and size is not None and row.size not in (None, size), f"{size} bytes"
        if not differs:
            return None
        was = row.version if told and now is not None else f"{row.size} bytes"
        return RowFailure(FailureCode.CHANGED, f"{row.uri}: listed as {was}, now {is_now}; run again to list it anew")


def _get(span: Span, remote: Remote) -> tuple[bytes, None]:
    end = {"start": span.start, "end": span.stop} if span.stop is not None else {}
    uri = span.rows[0].uri
    return remote(lambda fs: fs.cat_file(uri, **end)), None


def _joins(held: list[Wanted], row: Wanted) -> bool:
    first, last = held[0], held[-1]
    if row.offset is None or last.offset is None or row.uri != last.uri or row.version != last.version:
        return False
    end = last.offset + (last.size or 0)
    return 0 <= row.offset - end <= GAP_BYTES and row.offset + (row.size or 0) - (first.offset or 0) <= SPAN_BYTES


def _span(rows: list[Wanted]) -> Span:
    first, last = rows[0], rows[-1]
    if first.offset is None:
        return Span(tuple(rows), 0, None)
    return Span(tuple(rows), first.offset, (last.offset or 0) + (last.size or 0))


def vanished(uri: str) -> RowFailure:
    hint = ", or its name is not UTF-8" if "\\x" in uri else ""
    return RowFailure(FailureCode.VANISHED, f"{uri}: it was listed and is gone{hint}")


def unreadable(uri: str, error: BaseException) -> RowFailure:
    text = str(error) or type(error).__name__
    return RowFailure(FailureCode.UNREADABLE, text if uri in text else f"{uri}: {text}")


def too_large(uri: str, size: int, limit: int) -> RowFailure:
    return RowFailure(FailureCode.TOO_LARGE, f"{uri}: {size:,} bytes, more than max_bytes = {limit:,}")
