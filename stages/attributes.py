"""Attributes as numbers: which columns an attribute becomes, and the values and gaps of a batch of rows.

bool → one 0/1 column; int, float → one column; category → one 0/1 column a value, named `attribute=value`: that value
against all the others. A missing label is a gap in its own column only; it is never filled in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.source import LabelType
from stages.row_hash import Hashes, salted
from stages.stage import PrecisionLost

MAX_VALUES = 256
"""Most values a category may have and still be fitted one value against the rest."""

MAX_NUMBER = 1e100
"""A label beyond it, such as the largest float that some tables write for "missing", is not known: sums cannot hold its square."""

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
ValueCounts = dict[str, dict[str, int] | None]


@dataclass(frozen=True, slots=True)
class Cut:
    """A row's key (see `row_keys`): the score's bits, and the hash that tells equal scores apart."""

    score: int
    tie: int

    @property
    def value(self) -> float:
        bits = self.score ^ 2**63 if self.score >= 2**63 else ~self.score & 2**64 - 1
        return float(np.uint64(bits).view(np.float64))


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where a number's two classes end: keys up to `low` are negative, from `high` on positive, the others unknown.

    `tied`: there are no two classes, and every row is unknown.
    """

    low: Cut | None
    high: Cut | None
    tied: bool


@dataclass(frozen=True, slots=True)
class Column:
    """One fitted column: the label it reads, and for a category the value that counts as positive."""

    name: str
    label: str
    kind: LabelType
    value: str | None = None
    cuts: Cuts | None = None
    """Set where a number is read as two classes."""

    @property
    def binary(self) -> bool:
        """Two classes, not a number."""
        return self.kind in ("bool", "category") or self.cuts is not None


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


def read_labels(
    labels: pa.StructArray, columns: Sequence[Column], hashes: Callable[[], Hashes] | None = None
) -> tuple[Floats, Bools]:
    """(values, known), each (rows, columns); a value is 0 where it is not known. NaN, infinity and what lies beyond MAX_NUMBER are not.

    `hashes`: of the rows' ids, needed where a column has cuts.
    A column lies together in memory: passes work column by column.
    """
    values = np.zeros((len(columns), len(labels)))
    known = np.zeros((len(columns), len(labels)), bool)
    arrays: dict[str, pa.Array] = {}
    for i, column in enumerate(columns):
        if column.label not in arrays:
            arrays[column.label] = pc.struct_field(labels, column.label)
        values[i], known[i] = _read(arrays[column.label], column)
        if column.cuts is not None:
            assert hashes is not None
            values[i], known[i] = _ends(values[i], known[i], column.cuts, hashes())
    return values.T, known.T


def _read(array: pa.Array, column: Column) -> tuple[npt.NDArray[np.generic], Bools | bool]:
    known: Bools | bool = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else True
    if column.kind == "category":
        array = pc.equal(array, column.value)
    numbers = (array.fill_null(False) if column.kind in ("bool", "category") else array.fill_null(0)).to_numpy(
        zero_copy_only=False
    )
    if column.kind == "float" and not (usable := np.abs(numbers) <= MAX_NUMBER).all():
        return np.where(usable, numbers, 0.0), known & usable
    return numbers, known


def _ends(scores: Floats, known: Bools, cuts: Cuts, hashes: Hashes) -> tuple[Floats, Bools]:
    """(1 for a positive and 0 otherwise, whether the row is in either class)."""
    if cuts.tied or cuts.low is None or cuts.high is None:
        return np.zeros(len(scores)), np.zeros(len(scores), bool)
    score, tie = row_keys(scores, hashes)
    low, high = cuts.low, cuts.high
    negative = (score < np.uint64(low.score)) | ((score == np.uint64(low.score)) & (tie <= np.uint64(low.tie)))
    positive = (score > np.uint64(high.score)) | ((score == np.uint64(high.score)) & (tie >= np.uint64(high.tie)))
    return (positive & known).astype(np.float64), known & (positive | negative)


def row_keys(scores: Floats, hashes: Hashes) -> tuple[Hashes, Hashes]:
    """Two unsigned words a row whose order is that of the scores, and of a hash of the id where scores are equal."""
    bits = (np.ascontiguousarray(scores) + 0.0).view(np.uint64)  # + 0.0 makes −0 the same number as 0
    top = np.uint64(2**63)
    return np.where(bits & top, ~bits, bits | top), salted(hashes, "equal scores")


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

    def subtract(self, a: ValueCounts, b: ValueCounts) -> tuple[ValueCounts, float]:
        return {label: self._left(a[label], b[label]) for label in self.labels}, 1.0

    def _left(self, a: dict[str, int] | None, b: dict[str, int] | None) -> dict[str, int]:
        if a is None or b is None:
            raise PrecisionLost("too many values were there to count them")
        left = {value: count - b.get(value, 0) for value, count in a.items()}
        return {value: count for value, count in left.items() if count}

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

    def without(self, other: "LabelCounts", columns: Sequence[Column]) -> "LabelCounts":
        """The counts without `other`'s rows. A number's range stays, and may be wider than that of the rows left; a number that
        has become constant shows in its second moments.
        """
        known, positive = self.known - other.known, self.positive - other.positive
        low, high = self.low.copy(), self.high.copy()
        for i, column in enumerate(columns):
            if not known[i]:
                low[i], high[i] = np.inf, -np.inf
            elif column.binary:
                low[i], high[i] = float(positive[i] == known[i]), float(positive[i] > 0)
        return LabelCounts(self.rows - other.rows, known, positive, low, high)

    def pick(self, columns: Sequence[int]) -> "LabelCounts":
        """The counts of some of the columns."""
        i = list(columns)
        return LabelCounts(self.rows, self.known[i], self.positive[i], self.low[i], self.high[i])

    @classmethod
    def empty(cls, columns: int) -> "LabelCounts":
        return cls.of(np.zeros((0, columns)), np.zeros((0, columns), bool))
