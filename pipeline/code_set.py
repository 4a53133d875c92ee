"""Code sets: what a traverse, interpolate, edit, … step defines, resolved into rows, and expanded inside workers.

Data's way: selection (ids and row ids, spilled once) → latents by row id → `stages.code_sets.traverse` / `stages.code_sets.interpolate`.
Only the selection is ever written; codes exist inside workers, for as long as a batch does. Rows are ordered by a hash of
their id, so a picture's place in a grid or shard does not depend on how the table was written.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.codec import CodecRef, opened
from pipeline.spill import Spill, write_spill
from pipeline.store.table import Table
from schemas.codec import LatentSpec
from stages.code_sets.codes import CodeSetShape, numbered
from stages.code_sets.parents import CodeStage, parents_batch

if TYPE_CHECKING:
    from stages.codecs.base import Codec

SELECTION = pa.schema(
    [
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("ids", pa.list_(pa.string()), nullable=False),
        pa.field("rows", pa.list_(pa.uint64()), nullable=False),  # of the latents table, one an id
    ]
)
BATCH_ROWS = 4096
ROWS_PER_BUCKET = 1_000_000
HASHED = pa.schema([("hash", pa.uint64()), ("id", pa.string()), ("row", pa.uint64())])


class CodecStage(CodeStage, Protocol):
    """A code stage that may need to decode while it makes its codes."""

    @property
    def needs_codec(self) -> bool: ...

    def __call__(self, batch: pa.RecordBatch, codec: "Codec | None" = None) -> pa.RecordBatch: ...


@dataclass(frozen=True)
class OnCodec:
    """A code stage that gets its codec where it is called, opened once a worker: what travels is the codec's name."""

    stage: CodecStage
    codec: CodecRef

    @property
    def parents(self) -> int:
        return self.stage.parents

    @property
    def strips(self) -> int:
        return self.stage.strips

    @property
    def frames(self) -> int:
        return self.stage.frames

    @property
    def columns(self) -> tuple[str, ...]:
        return self.stage.columns

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return self.stage(batch, opened(self.codec))


def on_codec(stage: CodecStage, codec: CodecRef) -> CodeStage:
    """The stage as it is, or with the codec's name where it decodes."""
    return OnCodec(stage, codec) if stage.needs_codec else stage


@dataclass(frozen=True)
class CodeSet:
    """A resolved code set. Picklable; `expand` gives the codes of some selected rows, all strips and frames of each."""

    name: str
    stage: CodeStage
    spec: LatentSpec
    selection: Spill
    latents: Table
    version: int

    def shape(self, first_seq: int) -> CodeSetShape:
        return CodeSetShape(self.name, self.selection.rows, self.stage.strips, self.stage.frames, first_seq)

    def expand(self, start: int, stop: int, *, first_seq: int) -> pa.RecordBatch:
        """Codes of rows `start` to `stop`: (stop − start) × strips × frames rows of `codes_schema`, numbered from `first_seq`."""
        return numbered(self.stage(self._inputs(self.selection.read(start, stop))), first_seq)

    def _inputs(self, selected: pa.RecordBatch) -> pa.RecordBatch:
        arrays = self._arrays(selected) if self.stage.parents else []
        return parents_batch(selected.column("seq"), selected.column("ids"), arrays, columns=self.stage.columns)

    def _arrays(self, selected: pa.RecordBatch) -> list[pa.Array]:
        """One read for all parents: row i's parent p is at i × parents + p."""
        parents, rows = self.stage.parents, selected.column("rows").flatten()
        table = self.latents.take_rows(rows.to_pylist(), list(self.stage.columns), version=self.version)
        each = np.arange(len(selected)) * parents
        whole = [table.column(name).combine_chunks() for name in self.stage.columns]
        return [column.take(pa.array(each + p)) for column in whole for p in range(parents)]


def select_rows(batches: Iterator[pa.RecordBatch], url: str, *, options: Mapping[str, Any], rows: int) -> Spill:
    """Writes `id` and `_rowid` batches as a selection ordered by hash of the id; memory is bounded by one bucket."""
    with TemporaryDirectory(prefix="latentmill-selection-") as folder:
        paths = bucketed(batches, Path(folder), buckets=buckets_for(rows))
        return write_spill(_in_order(paths), url, schema=SELECTION, batch_rows=BATCH_ROWS, options=options)


def buckets_for(rows: int) -> int:
    """How many buckets keep one small enough to hold."""
    return max(1, -(-rows // ROWS_PER_BUCKET))


def bucketed(batches: Iterator[pa.RecordBatch], folder: Path, *, buckets: int) -> list[Path]:
    """Spills `id` and `_rowid` batches by ranges of the id's hash: one after another the buckets are in its order."""
    paths = [folder / f"{b}.arrow" for b in range(buckets)]
    with ExitStack() as stack:
        writers = [stack.enter_context(pa.ipc.new_stream(str(path), HASHED)) for path in paths]
        for batch in batches:
            hashes = _hashes(batch.column("id"))
            hashed = pa.RecordBatch.from_arrays(
                [pa.array(hashes), batch.column("id"), batch.column("_rowid")], schema=HASHED
            )
            bucket = (
                (hashes // np.uint64(-(-(2**64) // buckets))).astype(np.int64)
                if buckets > 1
                else np.zeros(len(hashes), np.int64)
            )
            for b in np.unique(bucket):
                writers[b].write_batch(hashed.filter(pa.array(bucket == b)))
    return paths


def read_bucket(path: Path) -> pa.Table:
    """One bucket, by hash and id."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
        return reader.read_all().sort_by([("hash", "ascending"), ("id", "ascending")])


def select_given(
    ids: Sequence[Sequence[str]], rows: Sequence[Sequence[int]], url: str, *, options: Mapping[str, Any]
) -> Spill:
    """Writes chosen rows in their order: the ids of each row's parents, and where these stand in the latents table."""
    columns = [pa.array(ids, SELECTION.field("ids").type), pa.array(rows, SELECTION.field("rows").type)]
    batch = pa.RecordBatch.from_arrays(columns, names=SELECTION.names[1:])
    return write_spill(iter([batch]), url, schema=SELECTION, batch_rows=BATCH_ROWS, options=options)


def select_draws(count: int, url: str, *, options: Mapping[str, Any]) -> Spill:
    """Writes `count` rows without parents: draws, told apart by their place alone."""
    lists = [SELECTION.field(name).type for name in SELECTION.names[1:]]

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, count, BATCH_ROWS):
            rows = min(BATCH_ROWS, count - start)
            empty = [pa.array([[]] * rows, kind) for kind in lists]
            yield pa.RecordBatch.from_arrays(empty, names=SELECTION.names[1:])

    return write_spill(batches(), url, schema=SELECTION, batch_rows=BATCH_ROWS, options=options)


def _hashes(ids: pa.Array) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
    return np.fromiter(map(xxhash.xxh3_64_intdigest, ids.cast(pa.binary()).to_pylist()), np.uint64, len(ids))


def _in_order(paths: list[Path]) -> Iterator[pa.RecordBatch]:
    for path in paths:
        for batch in read_bucket(path).select(["id", "row"]).combine_chunks().to_batches():
            one = pa.array(np.arange(batch.num_rows + 1, dtype=np.int32))
            columns = [pa.ListArray.from_arrays(one, column) for column in batch.columns]
            yield pa.RecordBatch.from_arrays(columns, names=SELECTION.names[1:])
