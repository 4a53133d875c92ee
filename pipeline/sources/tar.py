"""Tar shards in WebDataset convention: members that share a name up to its first dot are one sample.

Only headers (and label members) are read here; an image is later read as a byte range of its shard. A sample's version is its
shard's. Its image is the one member whose whole suffix is an image's (`jpg`, beside which `seg.png` is a mask), else the one
whose suffix ends in an image's; `image_member` says which where that is not enough.
"""

import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.artifacts import is_local, open_read
from pipeline.faults import explained, faults
from pipeline.sources.ahead import in_order
from pipeline.sources.base import BATCH_ROWS, below, listing_batch
from pipeline.sources.glob import Glob
from pipeline.sources.label_values import Guess, label_struct, text_columns
from pipeline.sources.spilled import Spilled
from pipeline.sources.walk import absolute_uri, walk
from schemas.errors import SourceError
from schemas.source import LabelType, TarSource
from stages.images import IMAGE_SUFFIXES

ROWS = pa.schema(
    [
        ("id", pa.string()),
        ("uri", pa.string()),
        ("version", pa.string()),
        ("size", pa.int64()),
        ("offset", pa.int64()),
        ("label", pa.string()),
    ]
)


@dataclass
class _Sample:
    """Members of one name. `plain`: image members with a suffix of one part; `compound`: with more; `chosen`: `image_member`."""

    name: str
    chosen: list[tarfile.TarInfo] = field(default_factory=list)
    plain: list[tarfile.TarInfo] = field(default_factory=list)
    compound: list[tarfile.TarInfo] = field(default_factory=list)
    label: str | None = None


@dataclass(frozen=True)
class TarListing:
    """Implements `sources.base.Source`. With a label member, shards are indexed once, to a temporary file, to learn all types."""

    spec: TarSource

    def listing(self) -> Iterator[pa.RecordBatch]:
        found = False
        for batch in self._indexed.batches() if self.spec.label_member else self._index():
            for part in (batch.slice(at, BATCH_ROWS) for at in range(0, batch.num_rows, BATCH_ROWS)):
                found = True
                yield self._listed(part)
        if not found:
            raise SourceError(
                f"{self.spec.images}: no shard holds an image. Fix: check image_member, or that shards hold image files."
            )

    def label_types(self) -> dict[str, LabelType]:
        return self._types if self.spec.label_member else {}

    def _listed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        ids, uris, versions, sizes, offsets, label = batch.columns
        labels = None
        if self.spec.label_member:
            objects, problems = self._parsed(ids.to_pylist(), uris.to_pylist(), label.to_pylist())
            struct, unfit = label_struct(
                text_columns(objects, self._types), self._types, where=self.spec.images, ids=ids
            )
            labels = (struct, pc.coalesce(pa.array(problems, pa.string()), unfit))
        return listing_batch(ids=ids, uris=uris, versions=versions, sizes=sizes, offsets=offsets, labels=labels)

    @cached_property
    def _indexed(self) -> Spilled:
        return Spilled(self._index(), ROWS)

    @cached_property
    def _types(self) -> dict[str, LabelType]:
        guesses: dict[str, Guess] = {}
        for batch in self._indexed.batches():
            objects, _ = self._parsed(*(batch.column(c).to_pylist() for c in ("id", "uri", "label")))
            for name in {key for row in objects for key in row}:
                guesses.setdefault(name, Guess()).add(text_columns(objects, [name])[name])
        return {name: guess.type for name, guess in guesses.items()}

    def _parsed(
        self, ids: list[str], uris: list[str], labels: list[str | None]
    ) -> tuple[list[dict[str, Any]], list[str | None]]:
        """Label members as objects, and what was wrong with those that are none."""
        objects: list[dict[str, Any]] = []
        problems: list[str | None] = []
        member = str(self.spec.label_member)
        for name, uri, text in zip(ids, uris, labels, strict=True):
            parsed, problem = _parse(text, member)
            objects.append(parsed)
            problems.append(f"{uri}: image {name}: member {name}.{member} {problem}" if problem else None)
        return objects, problems

    # --- the index -------------------------------------------------------------------------------------------------

    def _index(self) -> Iterator[pa.RecordBatch]:
        glob = Glob.parse(self.spec.images, suffixes=(".tar",))
        root = absolute_uri(glob.root)

        def shards() -> Iterator[Iterable[pa.RecordBatch]]:
            for found in walk(glob, self.spec.storage_options):
                uris = below(root, found.column("path")).to_pylist()
                yield from (
                    self._shard(*shard) for shard in zip(uris, found.column("version").to_pylist(), strict=True)
                )

        if is_local(root):
            yield from (batch for shard in shards() for batch in shard)
        else:
            yield from in_order(shards())

    def _shard(self, uri: str, version: str) -> Iterator[pa.RecordBatch]:
        rows: list[tuple[Any, ...]] = []
        try:
            with open_read(uri, self.spec.storage_options) as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
                for sample in self._samples(tar):
                    image = self._image(sample, uri)
                    if image is not None:
                        rows.append((sample.name, uri, version, image.size, image.offset_data, sample.label))
                    if len(rows) == BATCH_ROWS:
                        yield _batch(rows)
                        rows = []
        except tarfile.TarError as error:
            fix = "shards are whole, uncompressed .tar files; write it again or leave it out of the glob"
            raise SourceError(f"{uri}: not a readable tar shard ({error}). Fix: {fix}.") from error
        except faults() as error:
            raise explained(uri, error) from error
        if rows:
            yield _batch(rows)

    def _samples(self, tar: tarfile.TarFile) -> Iterator[_Sample]:
        """Samples in the shard's order: runs of members with one name."""
        sample: _Sample | None = None
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header of the shard
            if not member.isfile():
                continue
            folder, _, file = member.name.removeprefix("./").rpartition("/")
            stem, _, suffix = file.partition(".")
            name = f"{folder}/{stem}" if folder else stem
            if sample is None or sample.name != name:
                if sample is not None:
                    yield sample
                sample = _Sample(name)
            self._add(sample, member, suffix, tar)
        if sample is not None:
            yield sample

    def _add(self, sample: _Sample, member: tarfile.TarInfo, suffix: str, tar: tarfile.TarFile) -> None:
        if self.spec.label_member is not None and suffix == self.spec.label_member:
            held = tar.extractfile(member)
            sample.label = held.read().decode("utf-8", "replace") if held else None
        elif suffix == self.spec.image_member:
            sample.chosen.append(member)
        elif f".{suffix.lower()}" in IMAGE_SUFFIXES:
            sample.plain.append(member)
        elif f".{suffix.lower()}".endswith(IMAGE_SUFFIXES):
            sample.compound.append(member)

    def _image(self, sample: _Sample, uri: str) -> tarfile.TarInfo | None:
        """The sample's image, if it has one. Where it cannot be said which it is, choosing would lose one without a word."""
        candidates = sample.chosen if self.spec.image_member else sample.plain or sample.compound
        if len(candidates) > 1:
            held = ", ".join(member.name for member in candidates)
            raise SourceError(
                f"{uri}: sample {sample.name} holds several images: {held}. Fix: set source.image_member to the suffix of the "
                "right one, or write shards in which every image has its own name before the first dot."
            )
        return candidates[0] if candidates else None


def _parse(text: str | None, member: str) -> tuple[dict[str, Any], str | None]:
    if text is None:
        return {}, None
    if member != "json" and not member.endswith(".json"):
        return {member: text}, None
    try:
        parsed = json.loads(text)
    except ValueError as error:
        return {}, f"is not JSON ({error})"
    return (parsed, None) if isinstance(parsed, dict) else ({}, "is not a JSON object")


def _batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.RecordBatch.from_arrays([pa.array(c, f.type) for c, f in zip(columns, ROWS, strict=True)], schema=ROWS)
