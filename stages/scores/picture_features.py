"""The pass of a fidelity step: latents decoded to pictures, pictures to features, features to moments and a sample a set.

Reconstructions and codes go through the same stage. Images are parted in two halves by a hash of their id: one is the
reference; the other is its like, and gives the codes. So no picture is held against an edit of itself, and what two sets of
reconstructions score is the floor of every distance.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from schemas.errors import JobError
from stages.codecs.base import Codec
from stages.codecs.factory import open_codec
from stages.columns import matrix_of
from stages.evaluation.models import CodecSource
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
    """A reduce stage over batches with `id` and `latent` (reconstructions), or of `codes_schema`."""

    def __init__(self, codec: CodecSource, entry: str, options: Mapping[str, Any], *, sample: int) -> None:
        self._source, self._entry, self._options, self._capacity = codec, entry, dict(options), sample
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
        names, taken = _names(batch)
        latents = widen(matrix_of(batch.column("latent")))
        valid = batch.column("latent").is_valid().to_numpy(zero_copy_only=False) & np.isfinite(latents).all(1)
        state.left += int((taken & ~valid).sum())
        rows = np.flatnonzero(taken & valid)
        hashes = salted(hash_ids(batch.column("id")), "sample")
        groups = dealt(hash_ids(_owners(batch)))
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


def _names(batch: pa.RecordBatch) -> tuple[list[SetName], Bools]:
    """The set of every row, and which rows take part."""
    if "parents" not in batch.schema.names:
        return [LIKE if like else REFERENCE for like in _like(batch.column("id"))], np.ones(len(batch), bool)
    parents = batch.column("parents")
    like = np.concatenate([_like(parents.flatten()), [True]])
    ends = np.concatenate([[0], np.cumsum(parents.value_lengths().to_numpy(zero_copy_only=False))])
    # All images a code is made of must be of the half that is not the reference; a draw is made of none.
    taken = np.array([like[a:b].all() for a, b in pairwise(ends)], bool)
    columns = (batch.column(name).to_pylist() for name in ("id", "title", "strength", "unit"))
    return [SetName(i.split("/")[0], title, at, unit or "") for i, title, at, unit in zip(*columns, strict=True)], taken


def _owners(batch: pa.RecordBatch) -> pa.Array:
    """The id of the first image each row is made of: its own of a reconstruction, and of a draw, which is made of none."""
    ids = batch.column("id")
    if "parents" not in batch.schema.names:
        return ids
    parents = batch.column("parents")
    made, owners = parents.value_lengths().to_numpy(zero_copy_only=False) > 0, parents.flatten()
    first = np.cumsum(np.concatenate([[0], parents.value_lengths().to_numpy(zero_copy_only=False)]))[:-1]
    return pc.replace_with_mask(ids, pa.array(made), owners.take(pa.array(first[made])))


def _like(ids: pa.Array) -> Bools:
    return np.asarray(fractions(hash_ids(ids), HALVES) < 0.5)
