"""The one import of Lance: quiet, with one bounded session a process, and its errors in words a user can act on.

Lance's messages carry Rust source paths and XML; `asking` keeps their first clause and puts a human sentence in front.
Object stores are told apart from missing tables: an unreachable bucket is never mistaken for an empty store.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

# Lance's Rust logger reads this once, when the library loads, and writes to stderr, which belongs to the progress bars.
os.environ.setdefault("LANCE_LOG", "error")

import lance as lance
import lance.fragment
import pyarrow as pa
from lance.dataset import ColumnOrdering as ColumnOrdering

from schemas.errors import LatentmillError, StoreError

EngineError = (OSError, ValueError, RuntimeError, KeyError, TypeError)
"""What Lance's Python layer raises; which of them it is says little, the text says more."""

INDEX_CACHE_BYTES = 512 * 2**20
METADATA_CACHE_BYTES = 128 * 2**20
MEMORY = "memory://"

_REASONS = (
    ("NoSuchBucket", "the bucket does not exist", "create the bucket, or correct the store's URI"),
    ("builder error", "the endpoint was refused", 'a plain http:// endpoint needs store_options: {allow_http: "true"}'),
    (
        "error sending request|ConnectError|connection refused|dns error|timed out|Connection reset",
        "the store cannot be reached",
        "check the network and store_options.aws_endpoint",
    ),
    (
        "AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|403 Forbidden|401 Unauthorized|InvalidToken",
        "access was refused",
        "check the credentials (store_options or the environment) and the bucket's policy",
    ),
    (
        "Permission denied|Read-only file system",
        "this user may not write or read there",
        "choose another path, or change its permissions",
    ),
    ("No space left", "the disk is full", "free some space and run the same command again"),
    ("Not a directory|File exists", "a file stands where a folder must be", "choose another path"),
    ("credential|CredentialsNotLoaded", "no credentials were found", "set them in store_options or the environment"),
    ("was not found|Not found", "something of the table is missing", "check that nothing else removes files there"),
)


@lru_cache(maxsize=1)
def _session_of(_pid: int) -> tuple[Any, threading.Lock, Any]:
    session = lance.Session(index_cache_size_bytes=INDEX_CACHE_BYTES, metadata_cache_size_bytes=METADATA_CACHE_BYTES)
    # A memory store lives as long as something in it is open: this handle keeps it for the life of the process.
    anchor = lance.write_dataset(
        pa.table({"anchor": pa.array([], pa.int64())}), f"{MEMORY}latentmill-anchor", session=session
    )
    return session, threading.Lock(), anchor


def session() -> Any:
    """This process's Lance session: shared connections and caches of a bounded size. Not carried over a fork."""
    return _session_of(os.getpid())[0]


def creating() -> threading.Lock:
    """This process's lock for making tables in memory stores."""
    return _session_of(os.getpid())[1]


def is_missing(error: BaseException) -> bool:
    """Whether Lance says "there is no such table or version", as opposed to "I could not look"."""
    return isinstance(error, ValueError) and "was not found" in str(error)


def is_conflict(error: BaseException) -> bool:
    """Whether another commit came first, so that the same change may be tried on top of it."""
    return bool(re.search(r"(?i)commit conflict|incompatible transaction|concurrent writers", str(error)))


def is_io(error: BaseException) -> bool:
    """Whether the store, not the request, was at fault: the outcome of a commit is unknown then."""
    return bool(
        re.search(
            r"LanceError\(IO\)|result for version \d+ is unknown|Generic \w+ error|error sending request|timed out",
            str(error),
        )
    )


def brief(error: BaseException) -> str:
    """The first clause of a Lance message, without Rust paths and XML, at most 300 characters."""
    text = re.sub(r",?\s*(?:location: )?/\S+\.rs:\d+:\d+", "", str(error))
    text = re.sub(r"<\?xml.*", "", text, flags=re.S)
    return " ".join(text.split())[:300]


def explain(uri: str, doing: str, error: BaseException) -> StoreError:
    """The StoreError for what Lance raised while `doing` something to `uri`."""
    if is_conflict(error):
        reason, fix = "another writer keeps changing the table", "run one job at a time on a dataset"
    else:
        known = ((reason, fix) for pattern, reason, fix in _REASONS if re.search(pattern, str(error)))
        reason, fix = next(known, ("the engine refused", ""))
    return StoreError(f"{doing} {uri} failed: {reason}." + (f" Fix: {fix}." if fix else "") + f" ({brief(error)})")


@contextmanager
def asking(uri: str, doing: str) -> Iterator[None]:
    """Turns what Lance raises inside into a StoreError that names `uri`. Our own errors pass through."""
    try:
        yield
    except LatentmillError:
        raise
    except EngineError as error:
        raise explain(uri, doing, error) from error
