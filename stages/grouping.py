"""Rows that belong together (pictures of one person, frames of one film): held out together, weighed together.

A group is told by a label, or by the part of the id in front of a separator. It travels as a column of hashes that `Grouped`
adds to every batch; blocks read it (stages/rows.py), so no pass needs to know where groups come from.
"""

import re
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from stages.row_hash import Hashes, hash_ids, salted
from stages.rows import GROUPS
from stages.stage import Passes, ReduceStage

Result = TypeVar("Result")

BY_ID = "id:"
"""`id:/` groups by folder: the id up to its last `/`."""


def group_hashes(batch: pa.RecordBatch, group: str) -> Hashes:
    """(rows,) a hash of each row's group. `group`: the name of a label, or `id:` and a separator.

    A row without that label, or whose id lacks the separator, is a group of its own.
    """
    ids = batch.column("id")
    if group.startswith(BY_ID):
        # Greedy, so it ends at the last separator.
        pattern = f"(?s)^(.*){re.escape(group.removeprefix(BY_ID))}.*$"
        return hash_ids(pc.replace_substring_regex(ids, pattern=pattern, replacement=r"\1"))
    values = pc.struct_field(batch.column("labels"), group)
    alone = values.is_null().to_numpy(zero_copy_only=False)
    hashes = hash_ids(pc.fill_null(values.cast(pa.string()), ""))
    if alone.any():
        hashes[alone] = salted(hash_ids(ids), "a group of its own")[alone]
    return hashes


@dataclass(frozen=True)
class Grouped:
    """A reduce stage that tells `stage` the group of every row."""

    stage: ReduceStage[Any]
    group: str

    def start(self) -> Any:
        return self.stage.start()

    def add(self, state: Any, batch: pa.RecordBatch) -> Any:
        return self.stage.add(state, batch.append_column(GROUPS, pa.array(group_hashes(batch, self.group))))

    def merge(self, a: Any, b: Any) -> Any:
        return self.stage.merge(a, b)


def with_groups(passes: Passes[Any, Result], group: str | None) -> Passes[Any, Result]:
    """The same passes over rows that know their group; unchanged without one."""
    if group is None:
        return (yield from passes)
    try:
        stage = next(passes)
        while True:
            stage = passes.send((yield Grouped(stage, group)))
    except StopIteration as finished:
        found: Result = finished.value
        return found
