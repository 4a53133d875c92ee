"""The render sink: decoded codes → files under the target → renders rows.

A row is written after its file, so no row ever names a file that is not there; a worker that dies between the two leaves a
file that the next run writes again with the same bytes. Names come from `stages.code_sets.codes.strip_name`, and `artifacts.join`
refuses whatever would leave the target all the same.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import pyarrow as pa

from pipeline import artifacts
from pipeline.executors.base import Receipt, ranges_of
from schemas.tables import RENDERS
from stages.code_sets.convergence import Converged, convergence_of, together
from stages.render import Output, Rendered, render
from stages.render_plan import RenderPlan

REMOTE_WRITES = 8
"""Files on their way at once to an object store, where one write is mostly waiting."""


class FragmentWriter(Protocol):
    """The part of `pipeline.store.table.Table` that a sink uses."""

    @property
    def name(self) -> str: ...

    def write(self, batches: Iterable[pa.RecordBatch]) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class RenderSink:
    """Writes pictures and their rows. Picklable; writing a split again writes the same files.

    `replacing` says that the table holds renders of earlier runs, so receipts name the ids whose older rows must go.
    Each call must hold whole groups of the plan (`stages.render_plan.group_rows`), in batches of any size and order;
    raises ValueError when it does not.
    """

    plan: RenderPlan
    dataset: str
    run_id: str
    renders: FragmentWriter
    replacing: bool = False

    def write(self, batches: Iterable[pa.RecordBatch]) -> Receipt:
        noted = _Noted()
        rows: list[tuple[Rendered, str | None]] = []
        size = failed = 0
        for output, uri in self._written(render(self.plan, noted.of(batches))):
            size += len(output.data)
            failed += output.failed
            rows += [(row, _uri_of(row, uri)) for row in output.rows]
        fragments = self.renders.write([self._batch(rows)]) if rows else ()
        return Receipt(
            ranges=ranges_of(noted.seqs),
            rows=len(noted.seqs),
            failed=failed,
            bytes=size,
            fragments={self.renders.name: fragments} if fragments else {},
            keys=tuple(row.id for row, _ in rows) if self.replacing else (),
            converged=noted.converged,
        )

    def _written(self, outputs: Iterable[Output]) -> Iterator[tuple[Output, str | None]]:
        """Writes each file; on an object store, several at once, while the next ones are drawn."""
        if not _is_remote(self.plan.step.to):
            yield from ((output, self._put(output)) for output in outputs)
            return
        waiting: deque[tuple[Output, Future[str | None]]] = deque()
        with ThreadPoolExecutor(REMOTE_WRITES) as pool:
            for output in outputs:
                waiting.append((output, pool.submit(self._put, output)))
                if len(waiting) >= 2 * REMOTE_WRITES:
                    first, future = waiting.popleft()
                    yield first, future.result()
            yield from ((output, future.result()) for output, future in waiting)

    def _put(self, output: Output) -> str | None:
        if output.path is None:
            return None
        uri = artifacts.join(self.plan.step.to, *output.path)
        artifacts.write_bytes(uri, output.data, dict(self.plan.step.storage_options))
        return uri

    def _batch(self, rows: list[tuple[Rendered, str | None]]) -> pa.RecordBatch:
        now = datetime.now(UTC)
        same = {"dataset": self.dataset, "fingerprint": self.plan.codec, "run_id": self.run_id, "at": now}
        columns = [
            [same[f.name] if f.name in same else uri if f.name == "uri" else getattr(row, f.name) for row, uri in rows]
            for f in RENDERS
        ]
        arrays = [pa.array(values, f.type) for values, f in zip(columns, RENDERS, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=RENDERS)


@dataclass
class _Noted:
    """What is seen of codes on their way to the pictures."""

    seqs: list[int] = field(default_factory=list)
    converged: Converged = field(default_factory=dict)

    def of(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.seqs += batch.column("seq").to_pylist()
            self.converged = together(self.converged, convergence_of(batch))
            yield batch


def _uri_of(row: Rendered, uri: str | None) -> str | None:
    """Where a row's picture is: its file, or `<shard>#<member>`."""
    if uri is None or row.content_hash is None:
        return None
    return f"{uri}#{row.member}" if row.member else uri


def _is_remote(url: str) -> bool:
    return not artifacts.is_local(url) and not url.startswith("memory://")
