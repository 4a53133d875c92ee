"""Passes of a fit that read only what changed: the statistic of the last fit, with new rows added and gone ones taken out.

Kept in the table `fit_states`, one row a pass of a step, with the version of the latents it covers. Whatever stands in the way
(another selection, a version that is gone, precision that would be lost) leads to a rebuild from all rows, and is said.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.context import Context
from pipeline.executors.base import Executor
from pipeline.store.splits import TableSplits
from schemas.identity import fingerprint
from schemas.steps import FitStep
from schemas.tables import FIT_STATES
from stages.directions.kept import freeze, thaw
from stages.grouping import Grouped
from stages.stage import PrecisionLost, ReduceStage, Subtracts

MAX_GROWTH = 1e4
"""Rounding errors may have grown so many times since the last rebuild: 1e-12 of a sum of squares."""
MAX_BYTES = 2**28
"""Of a statistic that is kept."""
FORMAT = 1
"""Of what is kept; a statistic of another format is built anew."""


@dataclass(frozen=True)
class _Kept:
    version: int
    contents: str
    growth: float
    state: Any


class Refreshing:
    """An executor's `reduce` for one fit: passes whose rows can be taken out again are refreshed, others read all rows.

    `rebuild`: read all rows in any case, and keep what is found. `read`: rows read by refreshed passes.
    """

    def __init__(self, step: FitStep, ctx: Context, *, where: str | None, version: int, columns: list[str]) -> None:
        self._step, self._ctx = step, ctx
        self._where, self._version, self._columns = where, version, columns
        self._contents = str(ctx.latents.contents(version))
        self._passes = 0
        self.read: int | None = None

    def reduce(self, executor: Executor, splits: TableSplits, stage: ReduceStage[Any]) -> Any:
        """The state of all rows of `splits`."""
        inner = stage.stage if isinstance(stage, Grouped) else stage
        if not isinstance(inner, Subtracts):
            return executor.reduce(splits, stage)
        key = f"{self._ctx.job.dataset}:{self._ctx.codec.fingerprint}:{self._step.name}:{self._passes}"
        self._passes += 1
        about = fingerprint(
            {
                "format": FORMAT,
                "pass": type(inner).__name__,
                "fields": asdict(inner),  # type: ignore[call-overload]
                "group": self._step.group,
                "where": self._where,
            }
        )
        found = self._refreshed(executor, splits, stage, inner, self._find(key, about))
        if isinstance(found, str):
            if found:
                self._ctx.notice(f"{self._step.name}: rebuilt from all rows: {found}")
            found = _Kept(self._version, self._contents, 1.0, executor.reduce(splits, stage))
            self._count(splits.rows)
        self._keep(key, about, found)
        return found.state

    def _refreshed(
        self,
        executor: Executor,
        splits: TableSplits,
        stage: ReduceStage[Any],
        inner: Subtracts[Any],
        kept: _Kept | None,
    ) -> _Kept | str:
        """What was kept, brought up to date, or the reason why all rows must be read; "" where nobody would wonder."""
        if kept is None or self._step.refresh == "rebuild":
            return ""
        if self._ctx.latents.contents(kept.version) != kept.contents:
            return f"version {kept.version} of the latents is no longer kept"
        changes = self._ctx.latents.changes(
            since=kept.version, version=self._version, columns=self._columns, where=self._where
        )
        if changes.rows >= splits.rows:
            return f"{changes.rows:,} rows came or went, and there are {splits.rows:,}"
        state, growth = kept.state, kept.growth
        try:
            if changes.added.rows:
                state = stage.merge(state, executor.reduce(changes.added, stage))
            if len(changes.removed):
                state, grown = inner.subtract(state, executor.reduce(changes.removed, stage))
                growth *= grown
        except PrecisionLost as lost:
            return str(lost)
        if growth > MAX_GROWTH:
            return "too much precision would be lost"
        self._count(changes.rows)
        return _Kept(self._version, self._contents, growth, state)

    def _count(self, rows: int) -> None:
        self.read = (self.read or 0) + rows

    def _find(self, key: str, about: str) -> _Kept | None:
        table = self._ctx.store.fit_states()
        if not table.exists():
            return None
        where = f"key = '{key}' AND about = '{about}'"
        for batch in table.scan(["dataset_version", "contents", "growth", "state"], where=where):
            for row in batch.to_pylist():
                return _Kept(row["dataset_version"], row["contents"], row["growth"], thaw(row["state"]))
        return None

    def _keep(self, key: str, about: str, found: _Kept) -> None:
        data = freeze(found.state)
        if len(data) > MAX_BYTES:
            said = f"its statistic of {len(data) / 2**20:.0f} MiB is too large to keep; the next fit reads all rows"
            self._ctx.notice(f"{self._step.name}: {said}")
            return
        row = {
            "key": key,
            "about": about,
            "dataset": self._ctx.job.dataset,
            "fingerprint": self._ctx.codec.fingerprint,
            "dataset_version": found.version,
            "contents": found.contents,
            "growth": found.growth,
            "state": data,
            "run_id": self._ctx.run_id,
            "at": datetime.now(UTC),
        }
        self._ctx.lease.confirm()
        self._ctx.store.fit_states().upsert(pa.Table.from_pylist([row], FIT_STATES))
