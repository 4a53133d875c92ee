"""The pass of a fidelity step: latents decoded to pictures, pictures to features, features to moments and a sample a set.

Reconstructions and codes go through the same stage. Images are parted in two halves by a hash of their id: one is the
reference; the other is its like, and gives the codes. So no picture is held against an edit of itself, and what two sets of
reconstructions score is the floor of every distance. Images of one group (`group`) are in one half.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from schemas.errors import JobError
from stages.codecs.base import Codec
from stages.codecs.factory import open_codec
from stages.columns import matrix_of
from stages.evaluation.models import CodecSource
from stages.grouping import group_hashes
from stages.guarded import Guarded
from stages.moments import Moments
from stages.row_hash import Hashes, fractions, hash_ids, salted
from stages.rows import widen
from stages.sample import Sample, SampledRows
from stages.scores.extractors import FeatureExtractor, features_of, open_extractor
from stages.scores.grouped import dealt

PICTURES = 512
PICTURE_BYTES = 24 * 2**20
MAX_STATE = 2**27
"""Numbers that the sets of one pass may hold together: 1 GiB."""
HALVES = "fidelity halves"
PARENT_GROUPS = "parent_groups"

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, order=True)
class SetName:
    """Pictures that belong together: the code set they are of, what was done (a direction's name, a path), how strongly."""

    code_set: str
    title: str
    strength: float | None = None
    unit: str = ""


REFERENCE = SetName("", "reconstruction", 0.0, "reference")
LIKE = SetName("", "reconstruction", 1.0, "like")


@dataclass(slots=True)
class FeatureSet:
    """Features of one set: moments of all rows, and rows with the smallest hashes."""

    moments: Moments
    sample: Sample

    def merged(self, other: "FeatureSet") -> "FeatureSet":
        return FeatureSet(self.moments.merged(other.moments), self.sample.merged(other.sample))


@dataclass(slots=True)
class Features:
    """State: a set a name; `left` counts codes without a finite latent, without a picture, or without finite features."""

    sets: dict[SetName, FeatureSet] = field(default_factory=dict)
    left: int = 0


class PictureFeatures:
    """A reduce stage over batches with `id` and `latent` (reconstructions), or of `codes_schema`.

    With `group` (stages/grouping.py) the first also have its label, the others PARENT_GROUPS: a hash for each of `parents`.
    """

    def __init__(
        self, codec: CodecSource, entry: str, options: Mapping[str, Any], *, sample: int, group: str | None = None
    ) -> None:
        self._source, self._entry, self._options, self._capacity = codec, entry, dict(options), sample
        self._group = group
        self._model: tuple[Codec, FeatureExtractor] | None = None

    def open(self, device: str) -> None:
        """Builds codec and extractor. Raises JobError when the codec cannot decode."""
        source = self._source
        codec = open_codec(source.spec, source.weights(), device=device, allow_code=source.allow_code)
        if "decode" not in codec.can:
            raise JobError.one("codec.family", source.spec.family, "this codec cannot decode.", "remove the step")
        extractor = open_extractor(self._entry, self._options, device=device, allow_code=source.allow_code)
        self._model = (codec, extractor)

    def start(self) -> Features:
        return Features()

    def add(self, state: Features, batch: pa.RecordBatch) -> Features:
        owners, like = _owned(batch, self._group)
        names, taken = _names(batch, like)
        latents = widen(matrix_of(batch.column("latent")))
        valid = batch.column("latent").is_valid().to_numpy(zero_copy_only=False) & np.isfinite(latents).all(1)
        state.left += int((taken & ~valid).sum())
        rows = np.flatnonzero(taken & valid)
        hashes = salted(hash_ids(batch.column("id")), "sample")
        groups = dealt(owners)
        for start in range(0, len(rows), step := self._at_once()):
            self._add(state, latents, rows[start : start + step], names, (hashes, groups))
        return state

    def merge(self, a: Features, b: Features) -> Features:
        sets = {
            n: a.sets[n].merged(b.sets[n]) if n in a.sets and n in b.sets else a.sets.get(n) or b.sets[n]
            for n in {**a.sets, **b.sets}
        }
        return Features(sets, a.left + b.left)

    def _at_once(self) -> int:
        assert self._model is not None, "open() comes before the first batch"
        height, width = self._model[0].picture
        return max(1, min(PICTURES, PICTURE_BYTES // (height * width * 3)))

    def _add(
        self,
        state: Features,
        latents: npt.NDArray[np.float32],
        rows: npt.NDArray[np.int64],
        names: list[SetName],
        by_row: tuple[Hashes, npt.NDArray[np.int8]],
    ) -> None:
        """`by_row`: the hash that samples a row, and the group it is dealt into."""
        assert self._model is not None
        (codec, extractor), (hashes, groups) = self._model, by_row
        outcome = Guarded(lambda z: (features_of(extractor, codec.decode(z)),))(
            torch.from_numpy(latents[rows]).reshape(len(rows), *codec.latent.shape)
        )
        made = outcome.outputs[0].numpy() if outcome.outputs else np.zeros((0, 1))
        good = np.isfinite(made).all(1)
        state.left += len(rows) - int(good.sum())
        rows, made = rows[outcome.rows][good], made[good]
        of = np.array([names[row] for row in rows], object)
        for name in dict.fromkeys(of.tolist()):
            mine = of == name
            self._set(state, name, made.shape[1]).moments.absorb(Moments.of(made[mine], full=True))
            count = int(mine.sum())
            # The one class column of a sample carries the group a picture is dealt into.
            kept = SampledRows(
                hashes[rows[mine]], np.zeros(count, bool), made[mine].astype(np.float32), groups[rows[mine], None]
            )
            state.sets[name].sample.offer(kept)

    def _set(self, state: Features, name: SetName, dim: int) -> FeatureSet:
        if name not in state.sets:
            size = (len(state.sets) + 1) * (dim * dim + self._capacity * dim)
            if size > MAX_STATE:
                reason = f"{len(state.sets) + 1} sets of {dim} features would hold {size:,} numbers."
                raise JobError.one(
                    "of", name.title, reason, "score fewer directions or strengths at a time, or a smaller sample"
                )
            state.sets[name] = FeatureSet(Moments.empty(dim, full=True), Sample(dim, 1, self._capacity))
        return state.sets[name]


def _owned(batch: pa.RecordBatch, group: str | None) -> tuple[Hashes, Bools]:
    """What each row belongs to, and whether all it is made of is of the half that is not the reference.

    A reconstruction belongs to its image (or group), a code to the first image it is made of, a draw, made of none, to itself.
    """
    own = hash_ids(batch.column("id"))
    if "parents" not in batch.schema.names:
        owners = own if group is None else group_hashes(batch, group)
        return owners, _like(owners)
    parents = batch.column("parents")
    if group is None:
        of_parents = hash_ids(parents.flatten())
    else:
        of_parents = batch.column(PARENT_GROUPS).flatten().to_numpy(zero_copy_only=False)
    counts = parents.value_lengths().to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(counts)])
    like_parents = np.append(_like(of_parents), True)
    first = np.append(of_parents, np.uint64(0))[ends[:-1]]
    return np.where(counts > 0, first, own), np.array([like_parents[a:b].all() for a, b in pairwise(ends)], bool)


def _names(batch: pa.RecordBatch, like: Bools) -> tuple[list[SetName], Bools]:
    """The set of every row, and which rows take part."""
    if "parents" not in batch.schema.names:
        return [LIKE if one else REFERENCE for one in like], np.ones(len(batch), bool)
    columns = (batch.column(name).to_pylist() for name in ("id", "title", "strength", "unit"))
    return [SetName(i.split("/")[0], title, at, unit or "") for i, title, at, unit in zip(*columns, strict=True)], like


def _like(owners: Hashes) -> Bools:
    return np.asarray(fractions(owners, HALVES) < 0.5)
