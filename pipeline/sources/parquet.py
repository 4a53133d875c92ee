"""Parquet files with encoded image bytes in a column: `bytes`, or Hugging Face's struct {bytes, path}.

Only footers, ids and labels are read here, never images. A row's version is its file's; its id is a column's value, or
`<file relative to the root>#<row>`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.artifacts import open_read
from pipeline.sources.base import BATCH_ROWS, below, listing_batch, repeated
from pipeline.sources.glob import Glob
from pipeline.sources.label_files import reading
from pipeline.sources.label_values import label_struct, natural_type
from pipeline.sources.walk import absolute_uri, walk
from schemas.errors import JobError, SourceError
from schemas.job import did_you_mean
from schemas.source import LabelType, ParquetSource


@dataclass(frozen=True)
class ParquetListing:
    """Implements `sources.base.Source`."""

    spec: ParquetSource

    def listing(self) -> Iterator[pa.RecordBatch]:
        types: dict[str, LabelType] | None = None
        for path, uri, version in self._files():
            with _opened(uri, self.spec) as file:
                mine = self._check(uri, file.schema_arrow)
                types = types if types is not None else mine
                if mine != types:
                    raise SourceError(
                        f"{uri}: its label columns are {mine}, those of the files before it {types}. Fix: make them equal."
                    )
                yield from self._rows(file, path, uri, version, types)

    def label_types(self) -> dict[str, LabelType]:
        if not self.spec.label_columns:
            return {}
        _, uri, _ = next(self._files())
        with _opened(uri, self.spec) as file:
            return self._check(uri, file.schema_arrow)

    def _files(self) -> Iterator[tuple[str, str, str]]:
        """Path, URI and version of every file."""
        glob = Glob.parse(self.spec.images, suffixes=(".parquet",))
        root = absolute_uri(glob.root)
        for found in walk(glob, self.spec.storage_options):
            uris = below(root, found.column("path"))
            yield from zip(
                found.column("path").to_pylist(), uris.to_pylist(), found.column("version").to_pylist(), strict=True
            )

    def _rows(
        self, file: pq.ParquetFile, path: str, uri: str, version: str, types: dict[str, LabelType]
    ) -> Iterator[pa.RecordBatch]:
        columns = [*([self.spec.id_column] if self.spec.id_column else []), *self.spec.label_columns]
        start = 0
        for batch in _read(file, list(dict.fromkeys(columns))):
            rows = pa.array(np.arange(start, start + batch.num_rows))
            start += batch.num_rows
            if self.spec.id_column:
                ids = pc.cast(batch.column(self.spec.id_column), pa.string())
                if ids.null_count:
                    at = pc.index(pc.is_null(ids), True).as_py()
                    raise SourceError(
                        f"{uri}: row {rows[at]} has no {self.spec.id_column}. Fix: give every row an id, or leave id_column out."
                    )
            else:
                ids = pc.binary_join_element_wise(pa.scalar(path + "#"), pc.cast(rows, pa.string()), "")
            values = {name: batch.column(name) for name in types}
            yield listing_batch(
                ids=ids,
                uris=repeated(uri, batch.num_rows),
                versions=repeated(version, batch.num_rows),
                rows=rows,
                labels=label_struct(values, types, where=uri, ids=ids) if types else None,
            )

    def _check(self, uri: str, schema: pa.Schema) -> dict[str, LabelType]:
        """The label columns' types. Raises JobError with the field and the nearest name for what is not there."""
        spec = self.spec
        _column(schema, spec.image_column, "source.image_column", uri)
        if not holds_images(schema.field(spec.image_column).type):
            kind = schema.field(spec.image_column).type
            fits = [f.name for f in schema if holds_images(f.type)]
            raise JobError.one(
                "source.image_column",
                spec.image_column,
                f"{uri} has {kind} there, not image bytes.",
                did_you_mean(spec.image_column, fits),
            )
        if spec.id_column is not None:
            _column(schema, spec.id_column, "source.id_column", uri)
        types: dict[str, LabelType] = {}
        for name in spec.label_columns:
            _column(schema, name, "source.label_columns", uri)
            kind = natural_type(schema.field(name).type)
            if kind is None:
                told = schema.field(name).type
                raise JobError.one(
                    "source.label_columns", name, f"{uri} has {told} there, which cannot be a label.", "leave it out"
                )
            types[name] = kind
        return types


def holds_images(kind: pa.DataType) -> bool:
    """Whether a Parquet column of this type holds encoded images, or the paths of images that were not embedded."""
    if pa.types.is_struct(kind):
        types = {field.name: field.type for field in kind}
        return _is_bytes(types.get("bytes")) or (types.get("bytes") == pa.null() and "path" in types)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType | None) -> bool:
    return kind is not None and bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _column(schema: pa.Schema, name: str, field: str, uri: str) -> None:
    if name not in schema.names:
        raise JobError.one(field, name, f"{uri} has no such column.", did_you_mean(name, schema.names))


@contextmanager
def _opened(uri: str, spec: ParquetSource) -> Iterator[pq.ParquetFile]:
    with reading(uri), open_read(uri, spec.storage_options) as raw, pq.ParquetFile(raw) as file:
        yield file


def _read(file: pq.ParquetFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Batches of the columns; batches without columns but with their row counts when there are none."""
    if columns:
        yield from file.iter_batches(BATCH_ROWS, columns=columns)
        return
    total = file.metadata.num_rows
    for start in range(0, total, BATCH_ROWS):
        rows = min(BATCH_ROWS, total - start)
        yield pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
