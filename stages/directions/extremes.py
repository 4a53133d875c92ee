"""Classes from a number: the top and the bottom share of the rows by score, as InterFaceGAN trains its planes.

Exactly ⌊q·n⌋ rows a side, of the n rows that know the number and have a finite latent. Equal scores are told apart by a hash
of the id, so the choice depends on no order. A cut is found by radix selection on 128-bit keys (score, hash), sixteen bits a
pass: most scores take two or three passes, equal ones up to eight, and memory is 2¹⁶ counts a cut.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.attributes import Column, Cut, Cuts, Floats, row_keys
from stages.directions.direction import Estimate, FitStatus
from stages.rows import read_blocks
from stages.stage import Passes

WORDS = 8
"""Of sixteen bits in a key, the score's four first."""
BINS = 2**16

Counts = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Target:
    """A cut that is being found: of column `column`, the `rank`-th smallest (from 0) of the keys that start with `prefix`."""

    column: int
    rank: int
    prefix: tuple[int, ...] = ()


@dataclass(frozen=True)
class RadixPass:
    """A reduce stage: for every target, how many keys with its prefix have each value of the next word; (targets, BINS)."""

    columns: tuple[Column, ...]
    targets: tuple[Target, ...]

    def start(self) -> Counts:
        return np.zeros((len(self.targets), BINS), np.int64)

    def add(self, state: Counts, batch: pa.RecordBatch) -> Counts:
        for block in read_blocks(batch, self.columns, holdout=0):
            words: dict[int, Words] = {}
            for counts, target in zip(state, self.targets, strict=True):
                if target.column not in words:
                    known = block.known[:, target.column]
                    words[target.column] = _words(block.values[known, target.column], block.hashes[known])
                rows, depth = words[target.column], len(target.prefix)
                rows = rows[(rows[:, :depth] == target.prefix).all(1)] if depth else rows
                counts += np.bincount(rows[:, depth], minlength=BINS)
        return state

    def merge(self, a: Counts, b: Counts) -> Counts:
        return a + b


def extreme_columns(columns: Sequence[Column], share: float) -> Passes[Any, tuple[Column, ...]]:
    """The columns with every number turned into two classes: its top and its bottom `share`, in (0, 0.5], of the rows."""
    numbers = [i for i, column in enumerate(columns) if not column.binary]
    if not numbers:
        return tuple(columns)
    asked = tuple(columns[i] for i in numbers)
    counts: Counts = yield RadixPass(asked, tuple(Target(c, 0) for c in range(len(asked))))
    cuts: dict[tuple[int, bool], Cut | None] = {}
    targets: dict[tuple[int, bool], Target] = {}
    for c, found in enumerate(counts):
        n = int(found.sum())
        side = math.floor(share * n + 1e-9)  # .29 of 100 rows are 29, and .29 · 100 is a little less
        for top, rank in ((False, side - 1), (True, n - side)):
            if side == 0:
                cuts[c, top] = None
            else:
                _narrow(cuts, targets, (c, top), Target(c, rank), found)
    while targets:
        counts = yield RadixPass(asked, tuple(targets.values()))
        for (key, target), found in zip(list(targets.items()), counts, strict=True):
            del targets[key]
            _narrow(cuts, targets, key, target, found)
    made = list(columns)
    for c, i in enumerate(numbers):
        low, high = cuts[c, False], cuts[c, True]
        # Equal scores at both ends would leave it to the hash alone to make classes.
        tied = low is None or high is None or low.score >= high.score
        made[i] = replace(columns[i], cuts=Cuts(low, high, tied=tied))
    return tuple(made)


def _narrow(
    cuts: dict[tuple[int, bool], Cut | None],
    targets: dict[tuple[int, bool], Target],
    key: tuple[int, bool],
    target: Target,
    counts: Counts,
) -> None:
    """Takes one more word of a target's key; done when the cut falls between bins."""
    below = np.cumsum(counts)
    word = int(np.searchsorted(below, target.rank, side="right"))
    inside = target.rank - int(below[word] - counts[word])
    prefix, top = (*target.prefix, word), key[1]
    at_edge = inside == 0 if top else inside == counts[word] - 1
    if at_edge or len(prefix) == WORDS:
        rest = (0 if top else BINS - 1,) * (WORDS - len(prefix))
        cuts[key] = _cut((*prefix, *rest))
    else:
        targets[key] = Target(target.column, inside, prefix)


def _cut(words: tuple[int, ...]) -> Cut:
    def number(part: tuple[int, ...]) -> int:
        return int("".join(f"{w:04x}" for w in part), 16)

    return Cut(number(words[:4]), number(words[4:]))


def _words(scores: Floats, hashes: npt.NDArray[np.uint64]) -> Words:
    """(rows, WORDS), most significant first."""
    both = np.column_stack(row_keys(scores, hashes))
    return both.astype(">u8").view(">u2").astype(np.uint16).reshape(len(scores), WORDS)


def without_ends(columns: Sequence[Column], estimates: Sequence[Estimate]) -> list[Estimate]:
    """The estimates, with a typed reason for columns whose top and bottom are no two classes, and what the classes are."""
    told = []
    for column, estimate in zip(columns, estimates, strict=True):
        low, high = (column.cuts.low, column.cuts.high) if column.cuts else (None, None)
        if low is not None and high is not None and column.cuts and column.cuts.tied:
            reason = f"the top and the bottom share the score {low.value:.6g}; take a smaller share"
            estimate = Estimate(FitStatus.CONSTANT, estimate.evidence, reason)
        elif column.cuts and column.cuts.tied and estimate.status is FitStatus.NO_LABELS:
            estimate = replace(estimate, message="fewer than one row a side, if any knows the score")
        elif low is not None and high is not None:
            said = f"classes: scores from {high.value:.6g} up and {low.value:.6g} down"
            estimate = replace(estimate, message="; ".join(part for part in (estimate.message, said) if part))
        told.append(estimate)
    return told
