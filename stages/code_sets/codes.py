"""Code sets as rows: how codes are numbered, named and laid out in batches (`schemas.tables.codes_schema`).

Invariant: `seq` alone says where a code belongs. A code set of R rows (images, or pairs of images), S strips a row and F
frames a strip numbers its codes  seq = first_seq + (row·S + strip)·F + frame,  so pictures, grids and shards are
found from `seq`, never from batches. Names are made of letters, digits, `-` and `_` only, whatever an image id holds.
"""

import base64
import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.identity import canonical_json
from schemas.steps import CodeSetStep
from schemas.tables import codes_schema
from stages.columns import column_of

UNSIGNED = ("t", "mean", "part", "step", "psi")
"""Units that count from a start, where a sign would mislead: the place along a path, the number of a mean, …"""


@dataclass(frozen=True)
class CodeSetShape:
    """The geometry of one code set inside a render's numbering."""

    name: str
    rows: int
    strips: int
    frames: int
    first_seq: int = 0

    @property
    def codes_per_row(self) -> int:
        return self.strips * self.frames

    @property
    def end_seq(self) -> int:
        """One past the last `seq`: where the next code set of the same render begins."""
        return self.first_seq + self.rows * self.codes_per_row


@dataclass(frozen=True)
class Strips:
    """Every strip of a batch, in the order of `seq`; all have the same number of frames.

    Lists hold one entry a strip. `latents` is (strips, frames, d); a code whose latent is not finite gets a null latent,
    and a strip with a `flag` loses all of them. `code_flags` mark single codes, flag → (strips, frames); they lose nothing.
    """

    first_seq: npt.NDArray[np.int64]
    names: Sequence[str]
    parents: Sequence[Sequence[str]]
    operations: Sequence[str]
    titles: Sequence[str]
    flags: Sequence[Sequence[str]]
    strengths: Sequence[float]
    unit: str
    latents: npt.NDArray[Any]
    usable: npt.NDArray[np.bool_]
    code_flags: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)


def codes_batch(strips: Strips, *, code_set: str, spec: LatentSpec) -> pa.RecordBatch:
    """Strips → one batch of `codes_schema`, whole strips, frames in order.

    A latent that became infinite or NaN on the way (strengths too large for float32) is null and flagged `non_finite`.
    """
    schema = codes_schema(spec)
    count, frames = len(strips.names), len(strips.strengths)
    with np.errstate(over="ignore"):  # what overflows is found and flagged just below
        latents = strips.latents.reshape(count * frames, spec.dim).astype(np.float32)
    finite = np.isfinite(latents).all(axis=1)
    usable = np.repeat(strips.usable, frames)
    flags = [list(f) for f in strips.flags for _ in range(frames)]
    for i in np.flatnonzero(usable & ~finite):
        flags[i].append("non_finite")
    for flag, mask in strips.code_flags.items():
        for i in np.flatnonzero(usable & finite & mask.reshape(-1)):
            flags[i].append(flag)
    valid = usable & finite
    latents[~valid] = 0.0
    each = np.repeat(np.arange(count), frames)
    columns: dict[str, Any] = {
        "seq": (strips.first_seq[:, None] + np.arange(frames)).reshape(-1),
        "id": [f"{code_set}/{name}/{frame:03d}" for name in strips.names for frame in range(frames)],
        "parents": _repeated(strips.parents, each, schema.field("parents").type),
        "operation": _repeated(strips.operations, each, pa.string()),
        "strip": _repeated(strips.names, each, pa.string()),
        "frame": np.tile(np.arange(frames, dtype=np.int32), count),
        "frames": np.full(count * frames, frames, np.int32),
        "title": _repeated(strips.titles, each, pa.string()),
        "strength": np.tile(np.asarray(strips.strengths, np.float64), count),
        "unit": pa.repeat(pa.scalar(strips.unit), count * frames),
        "flags": flags,
        "latent": column_of(latents, schema.field("latent"), valid=valid),
    }
    return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def operation(step: CodeSetStep, *fields: str, **facts: object) -> str:
    """What was done, without strengths: canonical JSON of the step's stage, name, given fields, and further facts."""
    trust = getattr(step, "trust", None)
    named = {"stage": step.stage, "step": step.name, **{name: getattr(step, name) for name in fields}}
    return canonical_json(named | facts | ({} if trust is None else {"trust": trust})).decode()


def strip_name(*ids: str, about: str = "") -> str:
    """A strip's name: readable parts of the ids, what it is about, and 80 bits of hash over the exact text of all.

    At most 84 letters, digits, `-` and `_` (a tar member's name ends at 100), so no id can climb out of a folder, name a device or hide behind a dot; two
    different ids differ by hash even where file systems fold case.
    """
    room = 40 // max(len(ids), 1)
    parts = [part for part in (*(_readable(i, room) for i in ids), _readable(about, 24)) if part]
    return "_".join([*parts, _digest(*ids, about)])


def _readable(text: str, length: int) -> str:
    """ASCII letters and digits of the text, the rest as single dashes; the end is kept, where paths say most."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = "".join(c if c.isalnum() else " " for c in ascii_text).split()
    return "-".join(words)[-length:].strip("-") if length else ""


def _digest(*texts: str) -> str:
    framed = "".join(f"{len(t)}:{t}" for t in texts)
    digest = hashlib.blake2b(framed.encode("utf-8", "surrogatepass"), digest_size=10).digest()
    return base64.b32encode(digest).decode().lower()


def _repeated(values: Sequence[Any], each: npt.NDArray[np.intp], kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind).take(pa.array(each))
