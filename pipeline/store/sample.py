"""A sample of ids that is the same on every run: the ids with the smallest hash. Hashing runs inside the engine."""

import hashlib
from typing import Any

from pipeline.store.engine import asking
from pipeline.store.replace import key_of
from pipeline.store.where import both, quoted


def sample_ids(dataset: Any, count: int, *, salt: str, where: str | None = None) -> list[str]:
    """Up to `count` ids of the open `dataset`, in hash order. `where` must have been checked.

    About twice `count` ids are kept by a bound on the hash, so memory does not grow with the table. Two scans of the key.
    """
    key = key_of(dataset.schema)
    with asking(dataset.uri, "sampling"):
        rows = dataset.count_rows(filter=where)
        share = 2 * (count + 8) / max(rows, 1)
        while True:
            bound = f"md5(concat({quoted(salt)}, {key})) < {quoted(_bound(share))}" if share < 1 else None
            found = dataset.to_table(columns=[key], filter=both(where, bound)).column(key).to_pylist()
            if len(found) >= min(count, rows) or share >= 1:
                return sorted(found, key=lambda i: (_hash(salt, i), i))[:count]
            share *= 4


def _hash(salt: str, text: str) -> str:
    return hashlib.md5((salt + text).encode(), usedforsecurity=False).hexdigest()


def _bound(share: float) -> str:
    """The hexadecimal digits below which a uniform hash falls with probability `share`."""
    return f"{int(share * 2**52):013x}"
