"""Code sets as rows: how codes are numbered, named and laid out in batches (`schemas.batches.codes_schema`).

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
import pyarrow.compute as pc

from schemas.batches import codes_schema
from schemas.codec import LatentSpec
from schemas.identity import canonical_json
from schemas.steps import CodeSetStep
from stages.code_sets.noise import draw_name
from stages.code_sets.parents import NON_FINITE, Parents
from stages.columns import column_of

UNSIGNED = ("t", "mean", "part", "step", "psi", "quantile")
"""Units that count from a start, where a sign would mislead: the place along a path, the number of a mean, a share of the data, …"""


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
class Strip:
    """What all frames of a strip share: its title, and what was done. `about`: what its name says besides the images it is of."""

    title: str
    operation: str
    about: str = ""


@dataclass(frozen=True)
class Strips:
    """What a stage makes of n rows of parents: S strips a row, F frames a strip; what codes a row becomes says `codes_batch`.

    `of` lists the strips of each row. Arrays go by rows, then by a row's strips (an axis that may be left out where there is one):
    `latents` (n, S, F, d) and `lost` (n, S), the flag of a strip that could not be made, which loses all its latents, else ''.
    `marks` flag single codes, flag → (n, S, F); they lose nothing. `moved` (n, S, F): how far each code is from the latent it was made
    of, where it was made of one.
    """

    of: Sequence[Sequence[Strip]]
    strengths: Sequence[float]
    unit: str
    latents: npt.NDArray[Any]
    lost: npt.NDArray[np.str_]
    marks: Mapping[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    moved: npt.NDArray[np.float64] | None = None


def unwarned() -> np.errstate:
    """For formulas: numbers may overflow inside it without a warning, for a code that is not finite is flagged when it is laid out."""
    return np.errstate(over="ignore", invalid="ignore")


def distance(codes: npt.NDArray[np.float64], z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How far codes (n, F, d) are from the latents (n, d) they were made of, (n, F)."""
    step = codes - z[:, None, :]
    return np.asarray(np.sqrt(np.einsum("nfd,nfd->nf", step, step)))


def codes_batch(strips: Strips, rows: Parents, step: CodeSetStep, spec: LatentSpec) -> pa.RecordBatch:
    """The strips made of `rows` → one batch of `codes_schema`, rows, strips and frames in order, numbered from 0 for row 0.

    A latent that became infinite or NaN on the way (strengths too large for float32) is null and flagged `non_finite`.
    """
    schema = codes_schema(spec)
    each = [
        (len(row) * seq + place, strip, ids, strip_name(*ids, about=strip.about if ids else draw_name(seq)))
        for seq, ids, row in zip(rows.seq.tolist(), rows.ids, strips.of, strict=True)
        for place, strip in enumerate(row)
    ]
    count, frames = len(each), len(strips.strengths)
    with np.errstate(over="ignore"):  # what overflows is found and flagged just below
        latents = strips.latents.reshape(count * frames, spec.dim).astype(np.float32)
    finite = np.isfinite(latents).all(axis=1)
    lost = strips.lost.reshape(-1)
    usable = np.repeat(lost == "", frames)
    flags = [[flag] if flag else [] for flag in lost.tolist() for _ in range(frames)]
    for i in np.flatnonzero(usable & ~finite):
        flags[i].append(NON_FINITE)
    valid = usable & finite
    for flag, mask in strips.marks.items():
        for i in np.flatnonzero(valid & mask.reshape(-1)):
            flags[i].append(flag)
    latents[~valid] = 0.0
    code_set, of_code = str(step.name or step.stage), np.repeat(np.arange(count), frames)
    first = np.array([number for number, *_ in each], np.int64) * frames
    columns: dict[str, Any] = {
        "seq": (first[:, None] + np.arange(frames)).reshape(-1),
        "id": [f"{code_set}/{name}/{frame:03d}" for *_, name in each for frame in range(frames)],
        "parents": _repeated([ids for _, _, ids, _ in each], of_code, schema.field("parents").type),
        "operation": _repeated([strip.operation for _, strip, _, _ in each], of_code, pa.string()),
        "strip": _repeated([name for *_, name in each], of_code, pa.string()),
        "frame": np.tile(np.arange(frames, dtype=np.int32), count),
        "frames": np.full(count * frames, frames, np.int32),
        "title": _repeated([strip.title for _, strip, _, _ in each], of_code, pa.string()),
        "strength": np.tile(np.asarray(strips.strengths, np.float64), count),
        "unit": pa.repeat(pa.scalar(strips.unit), count * frames),
        "moved": pa.nulls(count * frames) if strips.moved is None else pa.array(strips.moved.reshape(-1), mask=~valid),
        "flags": flags,
        "latent": column_of(latents, schema.field("latent"), valid=valid),
    }
    return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)


def numbered(codes: pa.RecordBatch, first_seq: int) -> pa.RecordBatch:
    """The same codes, counted from `first_seq`: their place in a render of several code sets."""
    at = codes.schema.get_field_index("seq")
    return codes.set_column(at, codes.schema.field(at), pc.add(codes.column(at), pa.scalar(first_seq, pa.int64())))


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
