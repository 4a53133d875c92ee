"""The executor seam: everything between a plan and its receipts.

The way of the data, the same for encoding and rendering:

    splits.read(i)  →  stage(batch)  →  sink.write(batches)  →  Receipt
    CPU tasks          actor pool       CPU tasks               driver commits

The driver sees receipts only, never rows. An executor may run a split twice; whoever commits drops what is already in.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, TypeVar

import pyarrow as pa

from schemas.errors import AccountingError
from stages.code_sets.convergence import Converged
from stages.stage import MapStage, ReduceStage

State = TypeVar("State")
Item = TypeVar("Item")


class Splits(Protocol):
    """Independent pieces of input. Picklable; reading the same piece twice gives the same rows."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        """The rows of one piece, in batches small enough to hold several in memory."""


@dataclass(frozen=True)
class Receipt:
    """What one write left behind, small enough for the driver: which rows, and the fragments that hold them.

    `ranges` are half-open intervals of `seq`; `fragments` maps a table's name to the JSON of its new fragments; `keys` are
    ids that may stand in the table already and are replaced; `converged`: how the geodesics among the rows went; `seconds`
    adds up worker time by kind (read, compute, write).
    """

    ranges: tuple[tuple[int, int], ...]
    rows: int
    failed: int
    bytes: int = 0
    fragments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    converged: Converged = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class Sink(Protocol):
    """The last leg: writes batches where they belong. Picklable; writing twice leaves orphans, never doubles."""

    def write(self, batches: Iterable[pa.RecordBatch]) -> Receipt: ...


@dataclass(frozen=True)
class MapJob:
    """One distributed map. `row_bytes` is the size of a row between the legs, from which block sizes follow."""

    splits: Splits
    stage: MapStage
    sink: Sink
    batch_rows: int
    row_bytes: int


class Executor(Protocol):
    """Runs maps and reduces. The local executor is the reference; every other must equal it."""

    def map(self, job: MapJob) -> Iterator[Receipt]:
        """Receipts as writes finish, in any order."""

    def rows_read(self) -> int:
        """Rows read so far by the map that is running, for display; 0 where that cannot be told."""

    def reduce(self, splits: Splits, stage: ReduceStage[State]) -> State:
        """Folds every split and merges the states. A stage that `Opens` is opened on every worker first."""

    def stream(self, task: Callable[[str], Iterator[Item]]) -> Iterator[Item]:
        """Runs one task on one worker, called with its device; what it yields arrives here as it is made."""

    def close(self) -> None: ...


def ranges_of(seqs: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Half-open intervals that cover exactly `seqs` (sorted or not)."""
    ordered = sorted(seqs)
    starts = [s for i, s in enumerate(ordered) if i == 0 or s != ordered[i - 1] + 1]
    ends = [s + 1 for i, s in enumerate(ordered) if i + 1 == len(ordered) or ordered[i + 1] != s + 1]
    return tuple(zip(starts, ends, strict=True))


GROUPS = 64


def groups(splits: int) -> list[range]:
    """How a reduce cuts its splits: the same for every executor, so that even rounding agrees."""
    edges = [splits * i // min(GROUPS, max(splits, 1)) for i in range(min(GROUPS, max(splits, 1)) + 1)]
    return [range(a, b) for a, b in pairwise(edges) if a < b]


def fold_group(splits: Splits, stage: ReduceStage[State], group: range) -> State:
    """The state of one group of splits."""
    state = stage.start()
    for index in group:
        for batch in splits.read(index):
            state = stage.add(state, batch)
    return state


def merged(stage: ReduceStage[State], states: Iterable[tuple[int, State]], *, count: int) -> State:
    """The states of `count` groups that arrive in any order, merged in the groups' order: the rounding is always the same.

    A group that arrives again is left out. Raises AccountingError when one never came: a statistic that lacks rows would be
    wrong and look right.
    """
    state = stage.start()
    waiting: dict[int, State] = {}
    turn = 0
    for group, one in states:
        if group >= turn:
            waiting[group] = one
        del one  # it may be large, and the next one may take long
        while turn in waiting:
            state = stage.merge(state, waiting.pop(turn))
            turn += 1
    if turn != count:
        raise AccountingError(
            f"{count} groups of rows were to be added up, but number {turn} came back from no worker. "
            "Run the same command again. If it stays away, please report it."
        )
    return state
