"""Which codes of a render are still to be drawn, and the splits that make them.

Decided once, before anything is drawn: a mask over `seq`. Workers draw what it names and nothing else, so that the driver
knows what must come back, and a split that no worker returned is seen. Where the table holds pictures already, the mask is
a reduce on the workers; only `seq` numbers come to the driver.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from threadpoolctl import threadpool_limits

from pipeline import artifacts
from pipeline.code_set import CodeSet
from pipeline.executors.base import Executor, ranges_of
from pipeline.selection import id_in
from pipeline.store.table import Table
from stages.code_sets.codes import CodeSetShape
from stages.code_sets.convergence import READ, Converged, convergence_of, together
from stages.render_plan import RenderPlan, codes_of, group_rows, pending, render_ids

SPLIT_BYTES = 32 * 2**20

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Piece:
    """Whole groups of one code set: rows `start` to `stop`, codes `first` to `end` of the render's `seq`."""

    code_set: int
    start: int
    stop: int
    first: int
    end: int


@dataclass(frozen=True)
class CodeSplits:
    """The codes to be drawn, piece by piece, in batches of `batch_rows`. Implements `executors.base.Splits`.

    `todo`: one bit a `seq`, eight to a byte.
    """

    plan: RenderPlan
    code_sets: tuple[CodeSet, ...]
    pieces: tuple[Piece, ...]
    todo: bytes
    batch_rows: int

    def __len__(self) -> int:
        return len(self.pieces)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        piece = self.pieces[index]
        codes = self.codes(index)
        bits = np.frombuffer(self.todo, np.uint8)[piece.first // 8 : -(-piece.end // 8)]
        mask = np.unpackbits(bits)[piece.first % 8 :][: piece.end - piece.first].astype(np.bool_)
        todo = codes.filter(pa.array(mask[codes.column("seq").to_numpy() - piece.first]))
        yield from (todo.slice(at, self.batch_rows) for at in range(0, todo.num_rows, self.batch_rows))

    def codes(self, index: int) -> pa.RecordBatch:
        """All codes of one piece."""
        piece = self.pieces[index]
        first_seq = self.plan.code_sets[piece.code_set].first_seq
        # One BLAS thread: a sum cut by threads rounds otherwise, and a picture's recipe is made of its codes' digits.
        with threadpool_limits(1, user_api="blas"):
            return self.code_sets[piece.code_set].expand(piece.start, piece.stop, first_seq=first_seq)


def splits_of(plan: RenderPlan, code_sets: Sequence[CodeSet], todo: Mask, *, batch_rows: int) -> CodeSplits:
    """The splits that hold something of `todo`, a mask over `seq`."""
    pieces = (p for i, shape in enumerate(plan.code_sets) for p in _pieces(plan, i, shape))
    some = tuple(piece for piece in pieces if todo[piece.first : piece.end].any())
    return CodeSplits(plan, tuple(code_sets), some, np.packbits(todo).tobytes(), batch_rows)


def _pieces(plan: RenderPlan, code_set: int, shape: CodeSetShape) -> Iterator[Piece]:
    """Whole groups, about 32 MiB of pictures, at least 8 pieces if there are so many."""
    height, width = plan.picture
    group = group_rows(plan.step, shape, plan.picture)
    by_bytes = SPLIT_BYTES // (shape.codes_per_row * height * width * 3)
    rows = max(1, min(by_bytes, -(-shape.rows // 8)) // group) * group
    for start in range(0, shape.rows, rows):
        stop = min(start + rows, shape.rows)
        first, end = (shape.first_seq + row * shape.codes_per_row for row in (start, stop))
        yield Piece(code_set, start, stop, first, end)


@dataclass(frozen=True)
class Undrawn:
    """`todo`: a mask over `seq`. `converged`: how the geodesics of all codes went; None where no code was looked at yet."""

    todo: Mask
    converged: Converged | None = None


def undrawn(splits: CodeSplits, renders: Table, executor: Executor) -> Undrawn:
    """Which codes `renders` lacks as they would be drawn now. `splits` must hold all of them.

    A picture that an earlier run found impossible counts as drawn.
    """
    total = splits.plan.code_sets[-1].end_seq
    if not renders.count_rows():
        return Undrawn(np.ones(total, np.bool_))
    mask = np.zeros(total, np.bool_)
    looked = executor.reduce(_Compared(splits, renders, renders.version), _Looks())
    for a, b in looked.pending:
        mask[a:b] = True
    return Undrawn(mask, looked.converged)


@dataclass(frozen=True)
class _Compared:
    """The codes of each piece, and which a version of the renders table lacks. Implements `executors.base.Splits`."""

    splits: CodeSplits
    renders: Table
    version: int

    def __len__(self) -> int:
        return len(self.splits)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        codes = self.splits.codes(index)
        lacking = pa.array(pending(self.splits.plan, codes, self._done(codes)), pa.bool_())
        yield codes.select(["seq", *READ]).append_column("pending", lacking)

    def _done(self, codes: pa.RecordBatch) -> dict[str, str]:
        """Recipes of the pictures of `codes` that an earlier run finished."""
        ids = sorted({i for code in codes_of(codes) for i in render_ids(self.splits.plan, [code])})
        rows = self.renders.scan(["id", "recipe", "uri"], where=id_in(ids), version=self.version)
        return {r["id"]: r["recipe"] for batch in rows for r in batch.to_pylist() if _still_there(r["uri"])}


@dataclass(frozen=True)
class _Looked:
    """Ranges of `seq` that are to be drawn, and the geodesics of all codes."""

    pending: tuple[tuple[int, int], ...] = ()
    converged: Converged = field(default_factory=dict)


class _Looks:
    """A reduce stage over batches of `_Compared`."""

    def start(self) -> _Looked:
        return _Looked()

    def add(self, state: _Looked, batch: pa.RecordBatch) -> _Looked:
        pending = batch.filter(batch.column("pending")).column("seq").to_pylist()
        return self.merge(state, _Looked(ranges_of(pending), convergence_of(batch)))

    def merge(self, a: _Looked, b: _Looked) -> _Looked:
        return _Looked(a.pending + b.pending, together(a.converged, b.converged))


def _still_there(uri: str | None) -> bool:
    """Whether a picture that was written is there. Only asked where asking costs nothing: on this machine's disks."""
    return uri is None or not artifacts.is_local(uri) or artifacts.exists(uri.split("#", 1)[0])
