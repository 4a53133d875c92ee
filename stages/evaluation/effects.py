"""The pass of an evaluation: z and every z + αd decoded together, scored, and added up under bootstrap weights.

The state is one matrix of weighted sums: row 0 with weight 1, the others one a bootstrap replicate. It does not grow with
rows and merges by adding, so intervals come with the pass. An image of which one picture cannot be made or scored leaves
whole, and is counted: a pair with one half is none.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from schemas.errors import JobError
from stages.attributes import Floats
from stages.bootstrap import poisson_weights
from stages.codecs.factory import open_codec
from stages.evaluation.design import MAX_SUMS, Design
from stages.evaluation.features import (
    Layout,
    Sums,
    identity_features,
    no_features,
    picture_features,
    score_features,
)
from stages.evaluation.groups import group_hashes
from stages.evaluation.kept_features import merged, offer, sampled
from stages.evaluation.models import CodecSource, Models
from stages.evaluation.scorer import open_scorer, scores_of
from stages.moments import Moments
from stages.row_hash import Hashes
from stages.rows import read_blocks
from stages.sample import Sample
from stages.scores.extractors import open_extractor

PICTURES = 512
PICTURE_BYTES = 24 * 2**20
"""Of the pictures that are decoded at once: at least all of one image."""


@dataclass(slots=True)
class Effects:
    """State. `sums` (1 + replicates, layout.width); `origin` (J,) lies near the scores, so squares about it keep their digits.

    Rows that left: `non_finite` latents, `not_decoded`, `not_scored`. `seconds` of worker time by kind.
    """

    sums: Sums
    origin: Floats | None = None
    rows: int = 0
    non_finite: int = 0
    not_decoded: int = 0
    not_scored: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    features: Sample | None = None
    """Of all pictures of some images, for fidelity; `not_featured` images of them had none."""
    not_featured: int = 0
    response: Moments | None = None
    """Of latents and unedited scores, where the design asks for a gradient."""


class Evaluation:
    """A reduce stage over batches with `id`, `latent` and `labels`."""

    def __init__(
        self,
        design: Design,
        codec: CodecSource,
        *,
        scorer: str | None = None,
        scorer_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.design, self.layout = design, Layout.of(design)
        self._source, self._entry, self._options = codec, scorer, dict(scorer_options or {})
        self._model: Models | None = None
        if (size := self.layout.width * (1 + design.replicates)) > MAX_SUMS:
            fix = "evaluate fewer directions, attributes or slices at a time, or use fewer replicates"
            raise JobError.one("replicates", design.replicates, f"the sums would hold {size:,} numbers.", fix)

    def open(self, device: str) -> None:
        """Builds codec and scorer. Raises JobError when the codec cannot do what is asked."""
        source = self._source
        codec = open_codec(source.spec, source.weights(), device=device, allow_code=source.allow_code)
        needed = {"decode"} | ({"encode"} if self.design.identity or self._entry is None else set())
        if lacking := sorted(needed - codec.can):
            fix = "use a codec that can, or `identity: false` and a scorer of your own"
            raise JobError.one("codec.family", source.spec.family, f"this codec cannot {lacking[0]}.", fix)
        scorer = None
        if self._entry is not None:
            scorer = open_scorer(self._entry, self._options, device=device, allow_code=source.allow_code)
        extractor = None
        if (asked := self.design.fidelity) is not None:
            extractor = open_extractor(asked.extractor, asked.options, device=device, allow_code=source.allow_code)
        self._model = Models(codec, scorer, extractor, device)

    def start(self) -> Effects:
        state = Effects(np.zeros((1 + self.design.replicates, self.layout.width)))
        if self.design.gradient:
            state.response = Moments.empty(
                len(self.design.edits[0].vector), labels=len(self.design.attributes), full=True
            )
        return state

    def add(self, state: Effects, batch: pa.RecordBatch) -> Effects:
        model = self._model
        assert model is not None, "open() comes before the first batch"
        height, width = model.codec.picture
        at_once = min(PICTURES, PICTURE_BYTES // (height * width * 3))
        rows = max(1, at_once // self.design.pictures)
        if "labels" not in batch.schema.names:
            batch = batch.append_column("labels", pa.array([{}] * batch.num_rows, pa.struct([])))
        for block in read_blocks(batch, [s.column for s in self.design.slices], holdout=0.0):
            state.non_finite += block.non_finite
            groups = group_hashes(block.labels, self.design.group, block.hashes)
            replicates = poisson_weights(groups, self.design.replicates, seed=self.design.seed)
            weights = np.column_stack([np.ones(len(block)), replicates]).astype(np.float64)
            holds = np.array([s.holds for s in self.design.slices], bool)
            slices = (((block.values > 0.5) == holds) & block.known).astype(np.float64)
            for start in range(0, len(block), rows):
                cut = slice(start, start + rows)
                self._add(state, model, _Rows(block.latents, weights, slices, block.hashes, groups).at(cut))
        return state

    def merge(self, a: Effects, b: Effects) -> Effects:
        if b.origin is None or a.origin is None:
            origin, sums = (a.origin if b.origin is None else b.origin), a.sums + b.sums
        else:
            origin, sums = a.origin, a.sums + self._about(a.origin, b)
        return Effects(
            sums,
            origin,
            a.rows + b.rows,
            a.non_finite + b.non_finite,
            a.not_decoded + b.not_decoded,
            a.not_scored + b.not_scored,
            {k: a.seconds.get(k, 0.0) + b.seconds.get(k, 0.0) for k in {**a.seconds, **b.seconds}},
            merged(a.features, b.features),
            a.not_featured + b.not_featured,
            a.response.merged(b.response) if a.response and b.response else None,
        )

    def _about(self, origin: Floats, state: Effects) -> Sums:
        """The state's sums with scores measured from another origin: Σw(s−o)² moves by 2δΣw(s−o′) + δ²Σw."""
        assert state.origin is not None
        shift = state.origin - origin
        sums = state.sums.copy()
        weight = self.layout.view(sums, "weight")[:, None]
        score, square = self.layout.place("score"), self.layout.place("square")
        sums[:, square] += 2 * shift * sums[:, score] + shift**2 * weight
        sums[:, score] += shift * weight
        return sums

    def _add(self, state: Effects, model: Models, rows: "_Rows") -> None:
        clock = _Clock(state.seconds)
        pictures, good = model.decode(self._codes(rows.latents), self.design.pictures)
        state.not_decoded += int((~good).sum())
        rows = rows.at(good)
        if not len(rows):
            return
        clock.spent("decode")
        scores, encoded, good = self._scored(model, pictures)
        state.not_scored += int((~good).sum())
        clock.spent("score")
        if not good.any():
            return
        if not good.all():
            rows, scores = rows.at(good), scores[good]
            pictures = pictures[torch.from_numpy(good).to(pictures.device)]
            encoded = None if encoded is None else encoded[good]
        if state.origin is None:
            state.origin = scores[:, 0].mean(axis=0)
        features = score_features(self.design, scores, state.origin, rows.slices)
        features |= picture_features(self.design, pictures)
        features |= (
            identity_features(self.design, encoded)
            if self.design.identity and encoded is not None
            else no_features(self.design, ["identity", "beside"], len(rows))
        )
        state.sums += rows.weights.T @ self.layout.pack(features, len(rows))
        state.rows += len(rows)
        if state.response is not None:
            state.response.absorb(Moments.of(rows.latents, y=scores[:, 0], full=True))
        clock.spent("statistics")
        self._keep_features(state, model, pictures, rows)
        clock.spent("fidelity")

    def _keep_features(self, state: Effects, model: Models, pictures: torch.Tensor, rows: "_Rows") -> None:
        if self.design.fidelity is None:
            return
        chosen = sampled(self.design.fidelity, rows.hashes)
        if chosen.any():
            found = model.features(pictures[torch.from_numpy(chosen).to(pictures.device)])
            rows = rows.at(chosen)
            state.features, lost = offer(state.features, self.design, found, rows.hashes, rows.groups)
            state.not_featured += lost

    def _codes(self, latents: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(n, 1 + k·a, d): each row's own latent, then its edits, direction after direction."""
        vectors = np.array([edit.vector for edit in self.design.edits])
        steps = (self.design.alphas[:, :, None] * vectors[:, None]).reshape(-1, latents.shape[1])
        wide = latents.astype(np.float64)
        return np.concatenate([wide[:, None], wide[:, None] + steps], axis=1).astype(np.float32)

    def _scored(self, model: Models, pictures: torch.Tensor) -> tuple[Floats, Floats | None, npt.NDArray[np.bool_]]:
        """Scores (n, pictures, J), encoded latents (n, pictures, d) where they are needed, and which rows are all finite."""
        n, count = pictures.shape[:2]
        flat = pictures.flatten(0, 1)
        encoded, scores = None, None
        if model.scorer is None or self.design.identity:
            encoded = model.encode(flat).reshape(n, count, -1)
        if model.scorer is not None:
            scores = scores_of(model.scorer, flat)
            if scores.shape != (n * count, len(self.design.attributes)):
                names = len(self.design.attributes)
                reason = f"gave scores of shape {scores.shape} for {n * count} pictures and {names} attributes."
                raise JobError.one("scorer", self._entry, reason, "return (pictures, attributes)")
        else:
            assert self.design.readout is not None and encoded is not None
            scores = self.design.readout(encoded.reshape(n * count, -1))
        scores = scores.reshape(n, count, -1)
        good: npt.NDArray[np.bool_] = np.asarray(np.isfinite(scores).all(axis=(1, 2)))
        if encoded is not None:
            good &= np.isfinite(encoded).all(axis=(1, 2))
        return scores, encoded, good


@dataclass(frozen=True, eq=False)
class _Rows:
    """What is known of some rows: `latents` (n, d), `weights` (n, 1 + replicates), `slices` (n, S), two hashes each."""

    latents: npt.NDArray[Any]
    weights: Floats
    slices: Floats
    hashes: Hashes
    groups: Hashes

    def __len__(self) -> int:
        return len(self.latents)

    def at(self, rows: slice | npt.NDArray[np.bool_]) -> "_Rows":
        return _Rows(self.latents[rows], self.weights[rows], self.slices[rows], self.hashes[rows], self.groups[rows])


class _Clock:
    """Adds the seconds since it was last asked to a kind."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds, self._last = seconds, time.perf_counter()

    def spent(self, kind: str) -> None:
        now = time.perf_counter()
        self._seconds[kind] = self._seconds.get(kind, 0.0) + now - self._last
        self._last = now
