"""Labels joined to listed images by id, whatever they come from: a label file, folder names, the listing itself.

Rows without a label are counted, and so are labels without an image: neither is dropped in silence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.artifacts import options_for
from pipeline.sources.glob import Glob
from pipeline.sources.label_files import open_label_file
from pipeline.sources.label_rows import FOLDERS, Found, LabelRows
from pipeline.sources.walk import absolute_uri
from schemas.errors import JobError, Problem
from schemas.source import LabelsSpec, LabelType, SourceSpec
from schemas.tables import label_types, labels_type
from stages.images import IMAGE_SUFFIXES

Joined = tuple[pa.StructArray, pa.StringArray]


SHOWN = 5
"""Unmatched ids of either side that are kept to be shown."""


class LabelIndex:
    """The labels of a source, ready to be joined. Each image is to be joined once: the counts add up what was asked.

    `type`: struct of all labels, those that the listing carries included. `matched`: images with a label row.
    """

    def __init__(self, rows: "LabelRows | _FolderNames", beside: Mapping[str, LabelType]) -> None:
        if both := sorted(set(rows.types) & set(beside)):
            fix = "leave it out of source.labels.columns or of source.label_columns"
            raise JobError(
                [Problem("source.labels", n, "the source itself carries a label of this name.", fix) for n in both]
            )
        self._rows = rows
        self.type = labels_type({**rows.types, **beside})
        self.matched = 0
        self.images_unmatched = 0
        self.images_without: list[str] = []

    @classmethod
    def open(
        cls, labels: LabelsSpec, *, source: SourceSpec | None = None, beside: Mapping[str, LabelType] | None = None
    ) -> "LabelIndex":
        """Reads the label file whole, once. `source` lends its storage options; `beside` are labels that the listing carries.

        Raises SourceError when the file cannot be read, JobError for columns that are not there and ids that repeat.
        """
        if labels.format == "folder":
            return cls(_FolderNames(_root_name(source)), beside or {})
        options = options_for(str(labels.uri), source.images, source.storage_options) if source else None
        return cls(LabelRows.read(open_label_file(labels, options), labels), beside or {})

    def join(self, batch: pa.RecordBatch) -> Joined:
        """Labels of a listing batch (null where there are none), and for each row what was wrong with them, else null.

        Raises JobError when a label fits two images.
        """
        labels, errors, found = self._rows.of(batch.column("id"))
        count = int(found.sum())
        self.matched += count
        self.images_unmatched += len(found) - count
        if count < len(found) and len(self.images_without) < SHOWN:
            without = batch.column("id").filter(pa.array(~found))
            self.images_without += without.slice(0, SHOWN - len(self.images_without)).to_pylist()
        if "labels" not in batch.schema.names:
            return labels, errors
        own = batch.column("labels")
        parts = {f.name: pc.struct_field(column, f.name) for column in (labels, own) for f in column.type}
        both = pa.StructArray.from_arrays([parts[f.name] for f in self.type], fields=list(self.type))
        return both, pc.coalesce(batch.column("label_error"), errors)

    @property
    def types(self) -> dict[str, LabelType]:
        return label_types(self.type)

    @property
    def labels_unmatched(self) -> int:
        """Label rows that no joined image had."""
        return self._rows.unused

    @property
    def labels_without(self) -> list[str]:
        """The first few of their ids. Beside `images_without` they show at a glance why two namings do not meet."""
        return self._rows.unused_ids(SHOWN)


@dataclass
class _FolderNames:
    """`format: folder`: the name of an image's parent folder; images directly in the root have the root's name."""

    root: str | None
    unused = 0

    def unused_ids(self, most: int) -> list[str]:
        return []

    @property
    def types(self) -> dict[str, LabelType]:
        return {"folder": "category"}

    def of(self, ids: pa.StringArray) -> Found:
        parent = pc.replace_substring_regex(pc.replace_substring_regex(ids, "/[^/]*$", ""), FOLDERS, "")
        names = pc.if_else(pc.match_substring(ids, "/"), parent, pa.scalar(self.root, pa.string()))
        struct = pa.StructArray.from_arrays([names], fields=list(labels_type(self.types)))
        return struct, pa.nulls(len(ids), pa.string()), names.is_valid().to_numpy(zero_copy_only=False)


def _root_name(source: SourceSpec | None) -> str | None:
    if source is None or source.kind != "files":
        return None
    root = absolute_uri(Glob.parse(source.images, suffixes=IMAGE_SUFFIXES).root)
    return root.rstrip("/").rsplit("/", 1)[-1] or None
