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
from stages.attributes import Bools, Column, Floats, read_labels
from stages.bootstrap import poisson_weights
from stages.directions.auc import normal_quantile
from stages.evaluation.design import MAX_SUMS, Edit
from stages.evaluation.groups import group_hashes
from stages.evaluation.on_labels import PRODUCTS
from stages.evaluation.replicates import FEW, TOO_FEW, independent
from stages.row_hash import Hashes, hash_ids


@dataclass(frozen=True)
class LabelCorrelation:
    """A reduce stage over batches with `id` and `labels`: for every pair of columns, moments over the rows that know both.

    State (4, 1 + replicates, J, J) of column x (rows) beside column y: n, mean of x, Σ(x − x̄)², Σ(x − x̄)(y − ȳ), each under every
    bootstrap weight, the first of which is 1. Merged as Chan does: labels such as years or times lie far from zero.
    `group`: the label that names what belongs together.
    """

    columns: tuple[Column, ...]
    replicates: int = 200
    seed: int = 0
    group: str | None = None

    @property
    def _kept(self) -> int:
        """Replicates, fewer where the state would not stay small: the first ones are the same however many there are."""
        return min(self.replicates, max(MAX_SUMS // (4 * len(self.columns) ** 2), FEW) - 1)

    def start(self) -> Floats:
        return np.zeros((4, 1 + self._kept, len(self.columns), len(self.columns)))

    def add(self, state: Floats, batch: pa.RecordBatch) -> Floats:
        labels = batch.column("labels")
        values, known = read_labels(labels, self.columns)
        groups = group_hashes(labels, self.group, hash_ids(batch.column("id")))
        rows = max(1, PRODUCTS // len(self.columns) ** 2)
        for start in range(0, len(values), rows):
            cut = slice(start, start + rows)
            state = self.merge(state, self._of(values[cut], known[cut], groups[cut]))
        return state

    def _of(self, values: Floats, known: Bools, groups: Hashes) -> Floats:
        weights = np.column_stack([np.ones(len(groups)), poisson_weights(groups, self._kept, seed=self.seed)])
        k = known.astype(np.float64)
        about = (values * k).sum(0) / np.maximum(k.sum(0), 1)
        v = (values - about) * k

        def summed(x: Floats, y: Floats) -> Floats:
            products = (x[:, :, None] * y[:, None]).reshape(len(x), -1)
            return (weights.T @ products).reshape(-1, x.shape[1], y.shape[1])

        n = summed(k, k)
        mean = summed(v, k) / np.maximum(n, 1)
        squares, products = summed(v**2, k) - n * mean**2, summed(v, v) - n * mean * mean.swapaxes(1, 2)
        return np.stack([n, about[:, None] + mean, squares, products])

    def merge(self, a: Floats, b: Floats) -> Floats:
        n = a[0] + b[0]
        part = b[0] / np.maximum(n, 1)
        apart = np.where((a[0] > 0) & (b[0] > 0), b[1] - a[1], 0.0)
        mean = np.where(a[0] > 0, a[1] + part * apart, b[1])
        both = a[0] * part
        return np.stack([n, mean, a[2] + b[2] + both * apart**2, a[3] + b[3] + both * apart * apart.swapaxes(1, 2)])


def label_correlations(moments: Floats, columns: Sequence[Column], *, confidence: float) -> Iterator[Measurement]:
    """Pearson's r (φ of two classes) of every pair, with its interval: artanh r ± the replicates' deviation of r over 1 − r².

    Not Fisher's 1/√(n − 3), which is of Gaussian pairs: φ of two labels that go together varies far more (1 − φ² and not its square,
    of even classes), and images of one group are not so many findings.
    """
    n, mean, squares, products = moments
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations = products / np.sqrt(squares * squares.swapaxes(1, 2))
    for i, first in enumerate(columns):
        for j in range(i + 1, len(columns)):
            count = float(n[0, i, j])
            about: dict[str, Any] = {"subject": first.name, "target": columns[j].name, "n": int(count)}
            if count < 4:
                yield Measurement("label_correlation", status=TOO_FEW, **about)
                continue
            if any(squares[0, a, b] <= count * (1e-13 * mean[0, a, b]) ** 2 for a, b in ((i, j), (j, i))):
                yield Measurement("label_correlation", status="constant", **about)
                continue
            r = float(np.clip(correlations[0, i, j], -1, 1))
            variance = min(squares[0, i, j], squares[0, j, i]) / count
            classes = variance if {first.kind, columns[j].kind} <= {"bool", "category"} else None
            low, high, why = _reach(r, correlations[1:, i, j], n[:, i, j], classes, confidence)
            yield Measurement("label_correlation", r, low=low, high=high, message=why, **about)


def _reach(
    r: float, replicates: Floats, n: Floats, classes: float | None, confidence: float
) -> tuple[float | None, float | None, str]:
    """The interval, or why there is none. `classes`: p(1 − p) of two labels of two classes.

    Of labels that are the same on all images at most u = 1 − (½(1 − confidence))^(1/images) differ (Clopper and Pearson), which takes
    u/2p(1 − p) from φ to first order.
    """
    kept, images = replicates[np.isfinite(replicates)], independent(n[0], n[1:])
    if images < FEW or len(kept) < max(FEW, 3 * len(replicates) / 4):
        return None, None, f"fewer than {FEW} independent images, or a class in few of them: no interval"
    if 1 - r * r < 1e-12:
        if classes is None:
            return r, r, "one label follows from the other on every image"
        bound = max(1 - (1 - (0.5 * (1 - confidence)) ** (1 / images)) / (2 * classes), -1.0)
        return (bound, 1.0, "") if r > 0 else (-1.0, -bound, "")
    centre, reach = math.atanh(r), normal_quantile(confidence) * float(kept.std(ddof=1)) / (1 - r * r)
    return math.tanh(centre - reach), math.tanh(centre + reach), ""


def direction_cosines(edits: Sequence[Edit]) -> Iterator[Measurement]:
    """Of every pair of directions."""
    for i, first in enumerate(edits):
        for second in edits[i + 1 :]:
            cosine = float(first.vector @ second.vector)
            yield Measurement("direction_cosine", cosine, subject=first.name, target=second.name)
