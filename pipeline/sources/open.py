"""The factory of sources: one kind of spec, one class."""

from typing import assert_never

from pipeline.sources.base import Source
from schemas.source import FilesSource, ManifestSource, ParquetSource, SourceSpec, TarSource


def open_source(spec: SourceSpec) -> Source:
    """The source that a spec describes. Nothing is read until it is asked."""
    match spec:
        case FilesSource():
            from pipeline.sources.files import FilesListing

            return FilesListing(spec)
        case ParquetSource():
            from pipeline.sources.parquet import ParquetListing

            return ParquetListing(spec)
        case TarSource():
            from pipeline.sources.tar import TarListing

            return TarListing(spec)
        case ManifestSource():
            from pipeline.sources.manifest import ManifestListing

            return ManifestListing(spec)
        case _:
            assert_never(spec)
