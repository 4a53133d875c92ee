"""The cosine of each image's two latents as a column, `STEP_cosine`: which images moved when the codec changed?

Written in the pass that judges the alignment, so that no latent is read once more for it: workers leave small Arrow files of
(address, cosine) in the run's work folder, the driver puts them where the rows lie. Images that the other codec has no latent of
have none; those that the alignment was fitted on have one too, a little flattered.
"""

import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import artifacts
from pipeline.context import Context
from pipeline.executors.base import Executor
from pipeline.joined import JoinedSplits
from pipeline.store.column_spill import ColumnSpill
from pipeline.store.splits import ADDRESS
from schemas.errors import JobError
from schemas.steps import CompareStep
from schemas.tables import computed_field, is_computed
from stages.comparison.row_cosines import Cosines, RowCosines, row_cosines
from stages.stage import ReduceStage


@dataclass(frozen=True)
class Written:
    """State: what `RowCosines` sums up, and the files there are."""

    cosines: Cosines
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Writing:
    """A reduce stage over batches of `JoinedSplits`: `stage`, and a file a batch. Writing one twice leaves one that nobody reads."""

    stage: RowCosines
    folder: str
    options: tuple[tuple[str, Any], ...]
    name: str

    def start(self) -> Written:
        return Written(self.stage.start())

    def add(self, state: Written, batch: pa.RecordBatch) -> Written:
        cosines = row_cosines(batch, self.stage.alignment)
        rows = pa.record_batch({ADDRESS: batch.column(ADDRESS), self.name: cosines})
        url = artifacts.join(self.folder, f"{uuid.uuid4().hex}.arrow")
        with artifacts.open_write(url, dict(self.options)) as out, pa.ipc.new_stream(out, rows.schema) as writer:
            writer.write_batch(rows)
        return Written(self.stage.add(state.cosines, batch), (*state.urls, url))

    def merge(self, a: Written, b: Written) -> Written:
        return Written(self.stage.merge(a.cosines, b.cosines), a.urls + b.urls)


@dataclass
class CosineColumn:
    """Reduces the passes of a comparison and keeps the files of the one that knows the alignment; then `put`."""

    step: CompareStep
    ctx: Context
    urls: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        name, schema = self.step.cosine_column, self.ctx.latents.schema
        if name in schema.names and not is_computed(schema.field(name)):
            raise JobError.one(f"{self.step.name}.name", name, "the table has such a column.", "use another name")

    def reduce(self, executor: Executor, splits: JoinedSplits, stage: ReduceStage[Any]) -> Any:
        """The state of all rows of `splits`."""
        if not isinstance(stage, RowCosines):
            return executor.reduce(splits, stage)
        folder, options = self.ctx.work_url(f"{self.step.name}-cosines"), tuple(self.ctx.file_options.items())
        written = executor.reduce(splits, Writing(stage, folder, options, self.step.cosine_column))
        self.urls = written.urls
        return written.cosines

    def put(self, version: int) -> None:
        """Writes the column, in one version. `version`: of the rows' addresses. StoreError when rows have moved since.

        What an earlier comparison wrote goes, also where this one came to no alignment.
        """
        again = self.step.cosine_column in self.ctx.latents.schema.names
        if not (self.urls or again):
            return
        ctx, column = self.ctx, computed_field(self.step.cosine_column, pa.float32(), by="compare")
        ctx.latents.fence(ctx.lease.token)
        ctx.latents.clean_orphans(timedelta(0), token=ctx.lease.token)
        placed: list[npt.NDArray[np.uint64]] = []
        with ColumnSpill((column,)) as spill:
            for url in self.urls:
                with artifacts.open_read(url, ctx.file_options) as file, pa.ipc.open_stream(file) as reader:
                    for batch in reader:
                        spill.add(batch)
                        placed.append(batch.column(ADDRESS).to_numpy())
            if again:
                _forget_others(spill, np.concatenate([*placed, np.zeros(0, np.uint64)]), ctx, version)
            ctx.put_columns(spill, version=version, rows=spill.rows)
        ctx.publish()


def _forget_others(spill: ColumnSpill, placed: npt.NDArray[np.uint64], ctx: Context, version: int) -> None:
    """Nulls for the rows without a value: they may hold that of another comparison, perhaps with another codec."""
    for batch in ctx.latents.scan([ADDRESS], version=version):
        others = batch.column(ADDRESS).filter(pa.array(~np.isin(batch.column(ADDRESS).to_numpy(), placed)))
        if len(others):
            (field,) = spill.fields
            spill.add(pa.record_batch({ADDRESS: others, field.name: pa.nulls(len(others), field.type)}))
