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
    """A reduce stage over batches with `labels`: for every pair of columns, moments over the rows that know both.

    State (4, J, J) of column x (rows) beside column y: n, mean of x, Σ(x − x̄)², Σ(x − x̄)(y − ȳ), merged as Chan does: labels
    such as years or times lie far from zero.
    """

    columns: tuple[Column, ...]

    def start(self) -> Floats:
        return np.zeros((4, len(self.columns), len(self.columns)))

    def add(self, state: Floats, batch: pa.RecordBatch) -> Floats:
        values, known = read_labels(batch.column("labels"), self.columns)
        k = known.astype(np.float64)
        about = (values * k).sum(0) / np.maximum(k.sum(0), 1)
        v = (values - about) * k
        n = k.T @ k
        mean = v.T @ k / np.maximum(n, 1)
        own = np.stack([n, about[:, None] + mean, (v**2).T @ k - n * mean**2, v.T @ v - n * mean * mean.T])
        return self.merge(state, own)

    def merge(self, a: Floats, b: Floats) -> Floats:
        n = a[0] + b[0]
        part = b[0] / np.maximum(n, 1)
        apart = np.where((a[0] > 0) & (b[0] > 0), b[1] - a[1], 0.0)
        mean = np.where(a[0] > 0, a[1] + part * apart, b[1])
        both = a[0] * part
        return np.stack([n, mean, a[2] + b[2] + both * apart**2, a[3] + b[3] + both * apart * apart.T])


def label_correlations(moments: Floats, columns: Sequence[Column], *, confidence: float) -> Iterator[Measurement]:
    """Pearson's r (φ of two classes) of every pair, with Fisher's interval."""
    n, mean, squares, products = moments
    for i, first in enumerate(columns):
        for j in range(i + 1, len(columns)):
            count = float(n[i, j])
            about: dict[str, Any] = {"subject": first.name, "target": columns[j].name, "n": int(count)}
            if count < 4:
                yield Measurement("label_correlation", status=TOO_FEW, **about)
                continue
            if any(squares[a, b] <= count * (1e-13 * mean[a, b]) ** 2 for a, b in ((i, j), (j, i))):
                yield Measurement("label_correlation", status="constant", **about)
                continue
            r = float(np.clip(products[i, j] / math.sqrt(squares[i, j] * squares[j, i]), -1, 1))
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
