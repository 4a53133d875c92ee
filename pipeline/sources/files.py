"""Image files by glob or folder. The image id is the path relative to the glob's fixed root."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from pipeline.sources.base import below, listing_batch
from pipeline.sources.glob import Glob
from pipeline.sources.walk import absolute_uri, walk
from schemas.source import FilesSource, LabelType
from stages.images import IMAGE_SUFFIXES


@dataclass(frozen=True)
class FilesListing:
    """Implements `sources.base.Source`."""

    spec: FilesSource

    def listing(self) -> Iterator[pa.RecordBatch]:
        glob = Glob.parse(self.spec.images, suffixes=IMAGE_SUFFIXES)
        root = absolute_uri(glob.root)
        for found in walk(glob, self.spec.storage_options):
            path, size, version = found.columns
            yield listing_batch(ids=path, uris=below(root, path), versions=version, sizes=size)

    def label_types(self) -> dict[str, LabelType]:
        return {}
