"""Untouched originals put to a scorer of one's own: its scores beside their labels, for its response S (`response`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from schemas.errors import JobError
from stages.attributes import Column, Floats, read_labels
from stages.evaluation.groups import group_hashes
from stages.evaluation.on_labels import add_rows, empty_sums
from stages.evaluation.scorer import Scorer, open_scorer, scores_of
from stages.row_hash import hash_ids
from stages.tensors import tensor_of


@dataclass(slots=True)
class Scored:
    """State. `sums`: of labels and scores (`on_labels`). Pictures that left: `unread`, `unscored`; `unlabelled` lack a label."""

    sums: Floats
    unread: int = 0
    unscored: int = 0
    unlabelled: int = 0


class Originals:
    """A reduce stage over `pixels_schema` batches with labels. `at`: positions among the scores that `columns` label."""

    def __init__(
        self,
        columns: tuple[Column, ...],
        at: tuple[int, ...],
        scorer: str,
        options: Mapping[str, Any],
        *,
        scores: int,
        replicates: int,
        seed: int = 0,
        group: str | None = None,
        allow_code: bool = False,
    ) -> None:
        self.columns, self._at, self._scores = columns, list(at), scores
        self._entry, self._options, self._allow_code = scorer, dict(options), allow_code
        self._replicates, self._seed, self._group = replicates, seed, group
        self._scorer: Scorer | None = None

    def open(self, device: str) -> None:
        """Builds the scorer."""
        self._scorer = open_scorer(self._entry, self._options, device=device, allow_code=self._allow_code)
        self._device = device

    def start(self) -> Scored:
        return Scored(empty_sums(len(self.columns), len(self.columns), replicates=self._replicates))

    def add(self, state: Scored, batch: pa.RecordBatch) -> Scored:
        assert self._scorer is not None, "open() comes before the first batch"
        read = pc.is_null(batch.column("error")).to_numpy(zero_copy_only=False)
        values, known = read_labels(batch.column("labels"), self.columns, lambda: hash_ids(batch.column("id")))
        labelled = known.all(axis=1)
        state.unread += int((~read).sum())
        state.unlabelled += int((read & ~labelled).sum())
        rows = np.flatnonzero(read & labelled)
        if not len(rows):
            return state
        pixels = tensor_of(batch.column("pixels"), batch.schema.field("pixels"))
        with torch.inference_mode():
            scores = scores_of(self._scorer, pixels[torch.from_numpy(rows)].to(self._device))
        if scores.shape != (len(rows), self._scores):
            reason = f"gave scores of shape {scores.shape} for {len(rows)} pictures and {self._scores} attributes."
            raise JobError.one("scorer", self._entry, reason, "return (pictures, attributes)")
        good = np.isfinite(scores).all(axis=1)
        state.unscored += int((~good).sum())
        rows, scores = rows[good], scores[good]
        groups = group_hashes(batch.column("labels"), self._group, hash_ids(batch.column("id")))[rows]
        add_rows(state.sums, values[rows], scores[:, self._at], groups, seed=self._seed)
        return state

    def merge(self, a: Scored, b: Scored) -> Scored:
        return Scored(a.sums + b.sums, a.unread + b.unread, a.unscored + b.unscored, a.unlabelled + b.unlabelled)
