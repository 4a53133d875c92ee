"""The listing of a run: every image of the source, spilled to local disk, and where each stands against the tables.

The listing is streamed once; what a run does, counts and checks is derived from this spill, so a source that changes
while a run goes on cannot make the books uneven.
"""

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.ledger import Ledger, Tally
from pipeline.sources.base import Source
from pipeline.sources.labels import LabelIndex
from pipeline.sources.open import open_source
from pipeline.store.splits import ADDRESS
from pipeline.store.table import Table
from schemas.batches import work_schema
from schemas.errors import AccountingError, JobError, Problem
from schemas.source import SourceSpec
from schemas.tables import labels_type

SPILL = "listing.arrow"


@dataclass(frozen=True)
class LabelCounts:
    """How the label file met the listing."""

    matched: int = 0
    images_without_labels: int = 0
    labels_without_image: int = 0
    some_images: tuple[str, ...] = ()
    some_labels: tuple[str, ...] = ()

    def told(self) -> str:
        """What did not meet, with a few ids of each side; empty when everything did."""
        parts = []
        if self.images_without_labels:
            parts.append(
                f"{_of(self.images_without_labels, 'image')} no label row ({_shown(self.some_images, self.images_without_labels)})"
            )
        if self.labels_without_image:
            parts.append(
                f"{_of(self.labels_without_image, 'label row')} no image ({_shown(self.some_labels, self.labels_without_image)})"
            )
        return "; ".join(parts)


def _of(count: int, what: str) -> str:
    return f"{count:,} {what} has" if count == 1 else f"{count:,} {what}s have"


def _shown(ids: tuple[str, ...], count: int) -> str:
    return ", ".join(ids) + (", …" if count > len(ids) else "")


@dataclass(frozen=True)
class Listing:
    """A finished listing: spilled rows, their standing against the tables, their bytes and labels.

    Its folder goes with it.
    """

    folder: Path
    tally: Tally
    rows: int
    bytes: int
    labels: pa.StructType | None
    label_counts: LabelCounts | None
    against: str | None
    """Name of the latents table it was held against."""

    def batches(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Spilled rows with the position of each batch's first row."""
        position = 0
        with (
            pa.memory_map(str(self.folder / SPILL)) as source,
            pa.ipc.open_stream(source) as reader,
        ):
            for batch in reader:
                yield position, batch
                position += batch.num_rows

    def bytes_of(self, mask: npt.NDArray[np.bool_]) -> int:
        """Encoded bytes of the masked images, as far as the listing tells sizes."""
        return sum(
            int(batch.column("size").fill_null(0).to_numpy()[mask[start : start + batch.num_rows]].sum())
            for start, batch in self.batches()
        )

    def ids_at(self, positions: list[int]) -> list[str]:
        """Image ids at the given positions, in listing order."""
        wanted = np.sort(np.asarray(positions, np.int64))
        found: list[str] = []
        for start, batch in self.batches():
            lo, hi = np.searchsorted(wanted, [start, start + batch.num_rows])
            if lo < hi:
                found += batch.column("id").take(pa.array(wanted[lo:hi] - start)).to_pylist()
        return found


def list_source(spec: SourceSpec, *, latents: Table | None, failures: Table | None) -> Listing:
    """Streams the listing to disk and holds it against the tables (None: nothing is stored yet).

    Raises SourceError when the source cannot be listed, JobError when an id is listed twice, AccountingError when a table
    holds an id twice.
    """
    source = open_source(spec)
    labels = LabelIndex.open(spec.labels, source=spec, beside=source.label_types()) if spec.labels is not None else None
    folder = Path(tempfile.mkdtemp(prefix="latentmill-listing-"))
    try:
        listing = _spilled(source, labels, folder, latents, failures)
        _refuse_duplicates(listing)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(listing, shutil.rmtree, folder, ignore_errors=True)
    return listing


def _spilled(
    source: Source, labels: LabelIndex | None, folder: Path, latents: Table | None, failures: Table | None
) -> Listing:
    schema = _spill_schema(source, labels)
    size = 0
    with Ledger() as ledger:
        with pa.OSFile(str(folder / SPILL), "wb") as out, pa.ipc.new_stream(out, schema) as writer:
            for batch in source.listing():
                size += int(batch.column("size").fill_null(0).to_numpy().sum())
                batch = _with_labels(batch, labels, schema)
                ledger.list_batch(batch)
                writer.write_batch(batch)
        tally = _reconcile(ledger, latents, failures, labels=_labels_of(schema))
    struct = _labels_of(schema)
    counts = (
        LabelCounts(
            labels.matched,
            labels.images_unmatched,
            labels.labels_unmatched,
            tuple(labels.images_without),
            tuple(labels.labels_without),
        )
        if labels
        else None
    )
    return Listing(folder, tally, len(tally.status), size, struct, counts, latents.name if latents else None)


def recount(listing: Listing, *, latents: Table, failures: Table, located_at: int | None = None) -> Tally:
    """The same listing held against the tables as they are now; `located_at`: also where rows lie at that version of latents."""
    with Ledger(addresses=located_at is not None) as ledger:
        for _, batch in listing.batches():
            ledger.list_batch(batch)
        return _reconcile(ledger, latents, failures, labels=listing.labels, located_at=located_at)


def _reconcile(
    ledger: Ledger,
    latents: Table | None,
    failures: Table | None,
    *,
    labels: pa.StructType | None,
    located_at: int | None = None,
) -> Tally:
    columns = ["id", "source_version"]
    if latents is not None and latents.exists():
        # Labels of other types are another job's: the plan refuses them, with their names.
        same = labels is not None and labels == _labels_of(latents.schema)
        extra = [*(["labels"] if same else []), *([] if located_at is None else [ADDRESS])]
        ledger.add_table("latents", latents.scan([*columns, *extra], version=located_at))
    if failures is not None and failures.exists():
        ledger.add_table("failures", failures.scan([*columns, "error"]))
    tally = ledger.reconcile()
    if tally.doubled:
        raise AccountingError(
            f"{tally.doubled} ids stand twice in {latents.name if latents else ''} or its failures. "
            "Something other than Latentmill wrote to the store; restore an earlier version of the table."
        )
    return tally


def _labels_of(schema: pa.Schema) -> pa.StructType | None:
    return schema.field("labels").type if "labels" in schema.names else None


def _spill_schema(source: Source, labels: LabelIndex | None) -> pa.Schema:
    struct = labels.type if labels is not None else labels_type(source.label_types())
    schema = work_schema(struct)
    return schema.remove(schema.get_field_index("seq"))


def _with_labels(batch: pa.RecordBatch, labels: LabelIndex | None, schema: pa.Schema) -> pa.RecordBatch:
    columns = {name: batch.column(name) for name in batch.schema.names}
    if labels is not None:
        columns["labels"], columns["label_error"] = labels.join(batch)
    columns.setdefault("label_error", pa.nulls(batch.num_rows, pa.string()))
    return pa.RecordBatch.from_arrays([columns[f.name] for f in schema], schema=schema)


def _refuse_duplicates(listing: Listing) -> None:
    if not listing.tally.duplicates:
        return
    ids = sorted(set(listing.ids_at(listing.tally.duplicates)))
    fix = "give each image its own id (`id_column`, or a glob with one root)"
    raise JobError([Problem("source", i, "this image id is listed more than once.", fix) for i in ids])
