"""A manifest instead of a listing: Parquet, CSV or TSV with `uri`, and `id`, `size`, `etag` where they are known.

A bucket of 10⁹ objects takes a day to list; its inventory is one file. Relative URIs are resolved against the manifest's folder.
The id is the `id` column, else the URI as it is written. The version is the etag, else the size; a row with neither counts
as unchanged for ever.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sources.base import BATCH_ROWS, below, listing_batch, versions_of
from pipeline.sources.label_files import LabelFile, open_label_file
from pipeline.sources.label_values import Guess, label_struct, plain, typed
from pipeline.sources.walk import absolute_uri
from schemas.errors import JobError, Problem, SourceError
from schemas.job import did_you_mean
from schemas.source import LabelsSpec, LabelType, ManifestSource

_ABSOLUTE = r"^([A-Za-z][A-Za-z0-9+.-]*://|/)"
_KNOWN = ("id", "size", "etag")


@dataclass(frozen=True)
class ManifestListing:
    """Implements `sources.base.Source`."""

    spec: ManifestSource

    def listing(self) -> Iterator[pa.RecordBatch]:
        file = self._file()
        types = self._types(file)
        folder = absolute_uri(self.spec.images).rpartition("/")[0]
        start = 0
        for batch in file.batches(["uri", *(c for c in _KNOWN if c in file.names), *types]):
            for part in (batch.slice(at, BATCH_ROWS) for at in range(0, batch.num_rows, BATCH_ROWS)):
                yield self._batch(part, folder, types, start)
                start += part.num_rows
        if not start:
            raise SourceError(f"{self.spec.images}: the manifest has no rows. Fix: list at least one image.")

    def label_types(self) -> dict[str, LabelType]:
        return self._types(self._file()) if self.spec.label_columns else {}

    def _file(self) -> LabelFile:
        """Opens the manifest as the label readers open their files. Raises JobError for columns that are not there."""
        file = open_label_file(LabelsSpec(uri=self.spec.images), self.spec.storage_options)
        wanted = [("source.images", "uri"), *(("source.label_columns", name) for name in self.spec.label_columns)]
        missing = [
            Problem(field, name, f"{self.spec.images} has no such column.", did_you_mean(name, file.names))
            for field, name in wanted
            if name not in file.names
        ]
        if missing:
            raise JobError(missing)
        return file

    def _types(self, file: LabelFile) -> dict[str, LabelType]:
        """Types of the label columns: the format's own, or those that all values share (one more pass over the manifest)."""
        guesses = {name: Guess() for name in self.spec.label_columns if name not in file.types}
        for batch in file.batches(guesses) if guesses else ():
            for name, guess in guesses.items():
                guess.add(batch.column(name))
        return {n: file.types[n] if n in file.types else guesses[n].type for n in self.spec.label_columns}

    def _batch(self, batch: pa.RecordBatch, folder: str, types: dict[str, LabelType], start: int) -> pa.RecordBatch:
        given = plain(batch.column("uri"))
        if given.null_count:
            at = start + pc.index(pc.is_null(given), True).as_py()
            raise SourceError(f"{self.spec.images}: row {at + 1} has no uri. Fix: give every row one.")
        uris = pc.if_else(pc.match_substring_regex(given, _ABSOLUTE), given, below(folder, given))
        ids = plain(pc.cast(batch.column("id"), pa.string())) if "id" in batch.schema.names else given
        etags = pc.utf8_trim(plain(_text(batch, "etag")), '"')
        sizes, unfit = typed(_text(batch, "size"), "int")
        if pc.any(unfit, min_count=0).as_py():
            at = pc.index(unfit, True).as_py()
            value = batch.column("size")[at].as_py()
            raise SourceError(
                f"{self.spec.images}: row {start + at + 1}: size = {value!r} is not a number of bytes. Fix: mend it, or leave it empty."
            )
        values = {name: batch.column(name) for name in types}
        ids = pc.coalesce(ids, given)
        return listing_batch(
            ids=ids,
            uris=uris,
            versions=versions_of(etags, sizes, pa.nulls(len(given), pa.int64())),
            sizes=sizes,
            labels=label_struct(values, types, where=self.spec.images, ids=ids) if types else None,
        )


def _text(batch: pa.RecordBatch, name: str) -> pa.StringArray:
    if name not in batch.schema.names:
        return pa.nulls(batch.num_rows, pa.string())
    return pc.cast(batch.column(name), pa.string())
