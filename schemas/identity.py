"""Identity: what makes two things the same, and the seeds that follow from it.

A fingerprint is SHA-256 over canonical JSON. It *raises* on anything it cannot serialise exactly: an ambiguous identity
is worse than none. Seeds are derived per row, so results do not depend on order, batches or workers (design §5.4).
"""

import hashlib
import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel


def canonical_json(value: Any) -> bytes:
    """The one byte string of `value`: sorted keys, no spaces, UTF-8, shortest floats.

    Accepts None, bool, int, finite float, str, enums, pydantic models, mappings with string keys, lists and tuples.
    Raises TypeError on any other type, ValueError on NaN or infinity.
    """
    plain = _plain(value, "$")
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def fingerprint(value: Any) -> str:
    """SHA-256 of `canonical_json(value)`, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def row_seed(row_id: str, step: str, draw: int = 0) -> int:
    """A 64-bit seed for one row's `draw`-th random draw in `step`; the same on every machine and in every order."""
    text = f"{len(row_id)}:{row_id}|{len(step)}:{step}|{draw}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def fraction_of(row_id: str, salt: str) -> float:
    """A number in [0, 1) fixed by the row's id: deterministic splits (held-out rows, samples) without bookkeeping."""
    return row_seed(row_id, salt) / 2.0**64


def _plain(value: Any, at: str) -> Any:
    match value:
        case None | bool() | str():
            return value.value if isinstance(value, Enum) else value
        case Enum():
            return _plain(value.value, at)
        case int():
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{at} is {value}: it has no canonical form; use null or a finite number")
            return int(value) if value.is_integer() and abs(value) < 2**53 else value
        case BaseModel():
            return _plain(value.model_dump(mode="python"), at)
        case Mapping():
            return {_key(k, at): _plain(v, f"{at}.{k}") for k, v in value.items()}
        case list() | tuple():
            return [_plain(v, f"{at}[{i}]") for i, v in enumerate(value)]
        case _:
            raise TypeError(
                f"{at} is a {type(value).__name__}: it has no canonical form; convert it to plain JSON types first"
            )


def _key(key: Any, at: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{at} has the key {key!r}: only strings can be keys")
    return key
