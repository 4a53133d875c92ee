"""Who is to blame when an edit changes more than it should: the data, or the model?

Side by side: correlation of the labels, cosine of the directions, effect on the decoded pictures. And the answer, for an
attribute t with a plain and a balanced direction: the effect on another attribute o over the effect on t,

    leak_raw      = ρμ₁/μ₀ + κ     of the difference of means, ρ the labels' correlation, μ the distances of their classes
    leak_balanced = κ              of a direction that holds the other attributes fixed: what the model itself ties together

so leak_raw − leak_balanced is the data's part, and leak_balanced the model's (latent-science §6), or the scorer's: a scorer that
takes t for a little of o cannot be told from a model that makes it so; ask a second scorer. At ρ=.6, μ₁/μ₀=1.5, κ=.5 a
plain direction leaks 1.4 in all (.9 + .5); 1.392 and .500 are the two leaks of one simulation, .892 and .500 its split.
Measured in σ of the scores (R_tj/R_tt); `in_score_units` in the detail is free of that unit and of its noise.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.measurements import OK, Measurement
from stages.attributes import Column, Floats, read_labels
from stages.directions.auc import normal_quantile
from stages.evaluation.design import Edit
from stages.evaluation.refits import Refits
from stages.evaluation.replicates import NO_TARGET, TOO_FEW, Results, ratio

PLAIN = ("mean_difference",)
BALANCED = ("balanced_mean_difference", "ols")


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


def leaks(found: Results) -> Iterator[Measurement]:
    """Effect on each other attribute over the effect on the edit's own, for every edit that has a target."""
    for i, target in enumerate(found.design.targets):
        if target is None:
            continue
        for j in range(len(found.design.attributes)):
            if j != target:
                yield _leak(found, "leak", leak(found, i, target, j), (target, j), found.design.edits[i].name, i)


def both_kinds(edits: Sequence[Edit], targets: Sequence[int | None]) -> dict[int, tuple[int, int]]:
    """Attribute → its plain and its balanced edit, for the attributes that have both."""
    found = {}
    for target in sorted({t for t in targets if t is not None}):
        mine = [i for i, t in enumerate(targets) if t == target]
        plain = next((i for i in mine if edits[i].estimator in PLAIN), None)
        balanced = next((i for e in BALANCED for i in mine if edits[i].estimator == e), None)
        if plain is not None and balanced is not None:
            found[target] = (plain, balanced)
    return found


def data_or_model(found: Results, refits: Refits | None = None) -> Iterator[Measurement]:
    """`leak_data` and `leak_model` of each attribute (subject) into each other one (target), where both kinds of direction are.

    `refits`: the two fits repeated under the same bootstrap weights. Their spread joins that of the evaluated images; without
    them the interval takes the directions as given, and says so.
    """
    said = "" if refits else "the interval takes the directions as given: their own fits' noise is not in it"
    for target, (plain, balanced) in both_kinds(found.design.edits, found.design.targets).items():
        attribute = found.design.attributes[target]
        for j in range(len(found.design.attributes)):
            if j == target:
                continue
            raw, kept = leak(found, plain, target, j), leak(found, balanced, target, j)
            if refits is not None:
                raw, kept = (v + n - n[0] for v, n in zip((raw, kept), refits.leaks(target, j), strict=True))
            yield _leak(found, "leak_data", raw - kept, (target, j), attribute, plain, said)
            yield _leak(found, "leak_model", kept, (target, j), attribute, balanced, said)


def leak(found: Results, i: int, target: int, j: int) -> Floats:
    """What edit i does to score j over what it does to its target, in score units, (1 + replicates,)."""
    return ratio(found.slope[:, i, j], found.slope[:, i, target])


def _leak(
    found: Results, metric: str, values: Floats, pair: tuple[int, int], subject: str, i: int, said: str = ""
) -> Measurement:
    """`values` in score units become a measurement in σ; `pair`: the scores of the target and of the one it leaks into."""
    target, j = pair
    low, high = found.interval(found.slope[:, i, target])
    none = low is not None and high is not None and low <= 0 <= high
    if none:
        said = "the edit's effect on its own attribute cannot be told from 0, so a share of it means little"
    low, high = found.interval(values)
    detail = {"edit": found.design.edits[i].name, "in_score_units": float(values[0]), "low": low, "high": high}
    more = {"message": said} if said else {}
    return found.measurement(
        metric,
        values * found.sigma[:, target] / found.sigma[:, j],
        subject=subject,
        target=found.design.attributes[j],
        detail=detail,
        status="no_effect" if none else OK,
        **more,
    )


__all__ = ["NO_TARGET", "LabelCorrelation", "data_or_model", "direction_cosines", "label_correlations", "leak", "leaks"]
