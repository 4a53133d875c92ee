"""Attributes as numbers: which columns an attribute becomes, and the values and gaps of a batch of rows.

bool → one 0/1 column; int, float → one column; category → one 0/1 column a value, named `attribute=value`: that value
against all the others. A missing label is a gap in its own column only; it is never filled in.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.source import LabelType

MAX_VALUES = 256
"""Most values a category may have and still be fitted one value against the rest."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
ValueCounts = dict[str, dict[str, int] | None]


@dataclass(frozen=True, slots=True)
class Column:
    """One fitted column: the label it reads, and for a category the value that counts as positive."""

    name: str
    label: str
    kind: LabelType
    value: str | None = None

    @property
    def binary(self) -> bool:
        """Two classes, not a number."""
        return self.kind in ("bool", "category")


def columns_of(attributes: Mapping[str, LabelType], values: Mapping[str, Sequence[str]]) -> tuple[Column, ...]:
    """The columns of `attributes` in their order; `values` lists each category's values."""
    return tuple(
        column
        for label, kind in attributes.items()
        for column in (
            [Column(f"{label}={value}", label, kind, value) for value in values[label]]
            if kind == "category"
            else [Column(label, label, kind)]
        )
    )


def read_labels(labels: pa.StructArray, columns: Sequence[Column]) -> tuple[Floats, Bools]:
    """(values, known), each (rows, columns); a value is 0 where it is not known. NaN and infinity are not known.

    A column lies together in memory: passes work column by column.
    """
    values = np.zeros((len(columns), len(labels)))
    known = np.zeros((len(columns), len(labels)), bool)
    arrays: dict[str, pa.Array] = {}
    for i, column in enumerate(columns):
        if column.label not in arrays:
            arrays[column.label] = pc.struct_field(labels, column.label)
        values[i], known[i] = _read(arrays[column.label], column)
    return values.T, known.T


def _read(array: pa.Array, column: Column) -> tuple[npt.NDArray[np.generic], Bools | bool]:
    known: Bools | bool = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else True
    if column.kind == "category":
        array = pc.equal(array, column.value)
    numbers = (array.fill_null(False) if column.binary else array.fill_null(0)).to_numpy(zero_copy_only=False)
    if column.kind == "float" and not (finite := np.isfinite(numbers)).all():
        return np.where(finite, numbers, 0.0), known & finite
    return numbers, known


@dataclass(frozen=True)
class Census:
    """A reduce stage: how often each value of each category occurs. None stands for more than MAX_VALUES values."""

    labels: tuple[str, ...]

    def start(self) -> ValueCounts:
        return {label: {} for label in self.labels}

    def add(self, state: ValueCounts, batch: pa.RecordBatch) -> ValueCounts:
        return self.merge(state, {label: self._count(batch.column("labels"), label) for label in self.labels})

    def merge(self, a: ValueCounts, b: ValueCounts) -> ValueCounts:
        return {label: _together(a[label], b[label]) for label in self.labels}

    def _count(self, labels: pa.StructArray, label: str) -> dict[str, int]:
        counted = pc.value_counts(pc.struct_field(labels, label).drop_null())
        return dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))


def _together(a: dict[str, int] | None, b: dict[str, int] | None) -> dict[str, int] | None:
    if a is None or b is None:
        return None
    union = {value: a.get(value, 0) + b.get(value, 0) for value in {**a, **b}}
    return union if len(union) <= MAX_VALUES else None


@dataclass(slots=True)
class LabelCounts:
    """How many rows know each column, how many are positive, and the range of its values; all (columns,)."""

    rows: int
    known: npt.NDArray[np.int64]
    positive: npt.NDArray[np.int64]
    low: Floats
    high: Floats

    @classmethod
    def of(cls, values: Floats, known: Bools) -> "LabelCounts":
        """values, known: (rows, columns). A column without a known value has the empty range (inf, −inf)."""
        return cls(
            rows=len(values),
            known=known.sum(0),
            positive=(known & (values > 0.5)).sum(0),
            low=np.where(known, values, np.inf).min(0, initial=np.inf),
            high=np.where(known, values, -np.inf).max(0, initial=-np.inf),
        )

    def merged(self, other: "LabelCounts") -> "LabelCounts":
        return LabelCounts(
            self.rows + other.rows,
            self.known + other.known,
            self.positive + other.positive,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def pick(self, columns: Sequence[int]) -> "LabelCounts":
        """The counts of some of the columns."""
        i = list(columns)
        return LabelCounts(self.rows, self.known[i], self.positive[i], self.low[i], self.high[i])

    @classmethod
    def empty(cls, columns: int) -> "LabelCounts":
        return cls.of(np.zeros((0, columns)), np.zeros((0, columns), bool))
