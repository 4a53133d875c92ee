"""The entanglement triptych: correlation of the labels, cosine of the directions, effect on the decoded pictures (`questions`).

Side by side they show what goes together where; `attribution` says who is to blame.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.measurements import Measurement
from stages.attributes import Column, Floats, read_labels
from stages.directions.auc import normal_quantile
from stages.evaluation.design import Edit
from stages.evaluation.replicates import TOO_FEW


@dataclass(frozen=True)
class LabelCorrelation:
    """A reduce stage over batches with `labels`: for every pair of columns, sums over the rows that know both.

    State (6, J, J): n, Σx, Σy, Σx², Σy², Σxy of row x and column y, labels scaled by `columns`' own numbers.
    """

    columns: tuple[Column, ...]

    def start(self) -> Floats:
        return np.zeros((6, len(self.columns), len(self.columns)))

    def add(self, state: Floats, batch: pa.RecordBatch) -> Floats:
        values, known = read_labels(batch.column("labels"), self.columns)
        k = known.astype(np.float64)
        v = values * k
        squares = v**2
        return state + np.stack([k.T @ k, v.T @ k, k.T @ v, squares.T @ k, k.T @ squares, v.T @ v])

    def merge(self, a: Floats, b: Floats) -> Floats:
        return a + b


def label_correlations(sums: Floats, columns: Sequence[Column], *, confidence: float) -> Iterator[Measurement]:
    """Pearson's r (φ of two classes) of every pair, with Fisher's interval."""
    n, x, y, xx, yy, xy = sums
    for i, first in enumerate(columns):
        for j in range(i + 1, len(columns)):
            count = float(n[i, j])
            about: dict[str, Any] = {"subject": first.name, "target": columns[j].name, "n": int(count)}
            if count < 4:
                yield Measurement("label_correlation", status=TOO_FEW, **about)
                continue
            spread = (xx[i, j] - x[i, j] ** 2 / count) * (yy[i, j] - y[i, j] ** 2 / count)
            if spread <= 1e-12 * xx[i, j] * yy[i, j]:
                yield Measurement("label_correlation", status="constant", **about)
                continue
            r = float(np.clip((xy[i, j] - x[i, j] * y[i, j] / count) / math.sqrt(spread), -1, 1))
            centre, reach = (
                math.atanh(np.clip(r, -1 + 1e-15, 1 - 1e-15)),
                normal_quantile(confidence) / math.sqrt(count - 3),
            )
            yield Measurement(
                "label_correlation", r, low=math.tanh(centre - reach), high=math.tanh(centre + reach), **about
            )


def direction_cosines(edits: Sequence[Edit]) -> Iterator[Measurement]:
    """Of every pair of directions."""
    for i, first in enumerate(edits):
        for second in edits[i + 1 :]:
            cosine = float(first.vector @ second.vector)
            yield Measurement("direction_cosine", cosine, subject=first.name, target=second.name)
