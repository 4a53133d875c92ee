"""Where a store is: URIs made absolute and checked, and table names that LanceDB accepts.

A path means the same place in every process afterwards. Table names are an injection of (dataset, kind, fingerprint):
the kind is read from the right, so a dataset name may itself contain dots.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from schemas.errors import StoreError

SCHEMES = ("s3", "s3+ddb", "gs", "az", "abfss", "memory")
FINGERPRINT_DIGITS = 16
"""How much of a fingerprint is in a table's name: 64 bits, with the whole of it in the schema metadata."""


def store_uri(uri: str) -> str:
    """`uri` without a trailing slash; paths and `file://` become absolute paths. Raises StoreError for other schemes."""
    text = os.fspath(uri).strip()
    if not text:
        raise StoreError("The store's URI is empty. Fix: give a path or a URL such as s3://bucket/store.")
    scheme = match[1].lower() if (match := re.match(r"^([A-Za-z][A-Za-z0-9+.-]*)://", text)) else ""
    if scheme in ("", "file"):
        path = unquote(urlsplit(text).path) if scheme else text
        return str(Path(os.path.abspath(Path(path).expanduser())))  # noqa: PTH100 - resolve() would follow links
    if scheme not in SCHEMES:
        raise StoreError(
            f"{text} is not a kind of store that works. Fix: use a path, file://, {', '.join(f'{s}://' for s in SCHEMES)}."
        )
    return text.rstrip("/") if not text.endswith("://") else text + "store"


def is_local(uri: str) -> bool:
    """Whether a normalised URI is a path on this machine."""
    return "://" not in uri


def ascii_name(dataset: str) -> str:
    """A dataset's name in the letters LanceDB allows: itself, or `xn--` + punycode."""
    return dataset if dataset.isascii() else "xn--" + dataset.encode("punycode").decode("ascii")


def latents_name(dataset: str, fingerprint: str) -> str:
    return f"{ascii_name(dataset)}.latents.{fingerprint[:FINGERPRINT_DIGITS]}"


def failures_name(dataset: str, fingerprint: str) -> str:
    return f"{ascii_name(dataset)}.failures.{fingerprint[:FINGERPRINT_DIGITS]}"


def renders_name(dataset: str) -> str:
    return f"{ascii_name(dataset)}.renders"
