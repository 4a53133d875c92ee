"""Labels as known factors: levels for scores that count, values for scores that correlate.

bool: 2 levels. category: one level a value. int: its values; float, and int with more values than bins: a histogram of equal
widths, as disentanglement_lib bins what is continuous. A missing label is UNKNOWN in its own factor only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.source import LabelType
from stages.attributes import MAX_VALUES, Bools, Column, Floats, read_labels
from stages.scores.information import UNKNOWN, Levels, histogram_bins


class FactorStatus(StrEnum):
    """Why a label is no factor to score, or `ok`."""

    OK = "ok"
    NO_LABELS = "no_labels"  # no row of the sample has it
    CONSTANT = "constant"  # one value in all rows that have it
    TOO_MANY_VALUES = "too_many_values"  # a category with more than MAX_VALUES values: an id, not a factor


@dataclass(frozen=True, slots=True)
class Factor:
    """`levels` (n,), UNKNOWN where the label is missing; `values` (n,) where the factor has an order, else None."""

    name: str
    status: FactorStatus
    levels: Levels
    values: Floats | None

    @property
    def known(self) -> Bools:
        return np.asarray(self.levels != UNKNOWN)

    def pick(self, rows: npt.NDArray[np.int64] | slice) -> "Factor":
        """The same factor on some rows, held against these rows alone."""
        levels = self.levels[rows]
        status = self.status
        if status is FactorStatus.OK:
            status = _status(levels)
        return Factor(self.name, status, levels, None if self.values is None else self.values[rows])


def read_factors(labels: pa.StructArray, kinds: Mapping[str, LabelType], *, bins: int) -> tuple[Factor, ...]:
    """The factors `kinds` of a column of labels, in their order."""
    return tuple(_read(labels, name, kind, bins) for name, kind in kinds.items())


def _read(labels: pa.StructArray, name: str, kind: LabelType, bins: int) -> Factor:
    values: Floats | None
    if kind == "category":
        encoded = pc.dictionary_encode(pc.struct_field(labels, name))
        # Values in the order of the alphabet: which row comes first must not decide a level.
        names = encoded.dictionary.to_pylist()
        rank = np.empty(len(names) + 1, np.int64)
        rank[[*np.argsort(np.array(names, str)), len(names)]] = [*range(len(names)), UNKNOWN]
        levels = rank[encoded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)]
        if len(names) > MAX_VALUES:
            return Factor(name, FactorStatus.TOO_MANY_VALUES, levels, None)
        values = np.maximum(levels, 0).astype(np.float64) if len(names) == 2 else None
        return Factor(name, _status(levels), levels, values)
    both, present = read_labels(labels, (Column(name, name, kind),))
    values, known = both[:, 0].astype(np.float64), present[:, 0]
    levels = np.full(len(values), UNKNOWN)
    distinct, place = np.unique(values[known], return_inverse=True)
    few = kind == "bool" or (kind == "int" and len(distinct) <= bins)
    if known.any():
        levels[known] = place if few else histogram_bins(values[known, None], bins=bins)[:, 0]
    return Factor(name, _status(levels), levels, values)


def _status(levels: Levels) -> FactorStatus:
    known = levels[levels != UNKNOWN]
    if not len(known):
        return FactorStatus.NO_LABELS
    return FactorStatus.OK if (known != known[0]).any() else FactorStatus.CONSTANT
