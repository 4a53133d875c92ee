"""The rows of one label file: typed, on disk, and found by image id.

How ids are compared is one rule for the whole file, read off the file's own ids, so it depends on no order and no batch:

- label ids with folders are compared with whole image ids; label ids without any, with an image's last path part;
- label ids that end in image suffixes are compared with the image's; label ids that do not, with the image id without its suffix;
- where every label id has a folder and an image id has none, the label's last path part counts, if those are all different.

An exact match always passes these rules. A label that fits two images is ambiguous, and refused.
Memory: the labels lie in a mapped temporary file; 24 bytes a label row stay in memory (hash, row, the image it went to).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from pipeline.sources.label_files import LabelFile
from pipeline.sources.label_values import Guess, label_struct, plain
from pipeline.sources.spilled import Spilled
from schemas.errors import JobError, Problem, SourceError
from schemas.job import did_you_mean
from schemas.source import LabelsSpec, LabelType
from schemas.tables import labels_type
from stages.images import IMAGE_SUFFIXES

_ID_COLUMNS = ("id", "image_id", "file_name")
_SUFFIX = r"(?i)\.(" + "|".join(suffix[1:] for suffix in IMAGE_SUFFIXES) + ")$"
FOLDERS = "^.*/"

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
KeysOf = Callable[[Rows], pa.StringArray]
Found = tuple[pa.StructArray, pa.StringArray, npt.NDArray[np.bool_]]
"""Labels, what was wrong with them, and which images had a row."""


class LabelRows:
    """The rows of a label file, typed, on disk, and their hashes in memory."""

    def __init__(self, uri: str, rows: Spilled, types: dict[str, LabelType]) -> None:
        self.types = types
        self._uri, self._rows = uri, rows
        hashes = np.concatenate([np.empty(0, np.uint64), *(hashes_of(b.column("id")) for b in rows.batches())])
        self._index = _Index(hashes)
        self._refuse_repeats()
        self._rule = _Rule.of(b.column("id") for b in rows.batches())
        self._last_parts: _Index | None = None
        self._image = np.zeros(len(hashes), np.uint64)

    @classmethod
    def read(cls, file: LabelFile, spec: LabelsSpec) -> "LabelRows":
        key, columns = _columns(file, spec)
        types: dict[str, LabelType] = {c: t for c in columns if (t := spec.types.get(c) or file.types.get(c))}
        batches = file.batches([key, *columns])
        if guesses := {c: Guess() for c in columns if c not in types}:
            first = next(batches, None)
            if first is None:
                raise SourceError(f"{file.uri}: there are no rows in it. Fix: give at least one label.")
            batches = Spilled(_guessed(first, batches, guesses), first.schema).batches()
            types |= {name: guess.type for name, guess in guesses.items()}
        schema = pa.schema([("id", pa.string()), ("labels", labels_type(types)), ("label_error", pa.string())])
        return cls(file.uri, Spilled(_typed(batches, key, types, file.uri, schema), schema), types)

    @property
    def unused(self) -> int:
        return int((self._image == 0).sum())

    def unused_ids(self, most: int) -> list[str]:
        """The first few ids of label rows that no image had."""
        ids: list[str] = self._rows.take(np.flatnonzero(self._image == 0)[:most]).column("id").to_pylist()
        return ids

    def of(self, ids: pa.StringArray) -> Found:
        keys = self._rule.keys(ids)
        rows = self._index.find(keys, lambda rows: self._rows.take(rows).column("id"))
        if self._rule.every_folder:
            rows = self._by_last_part(ids, rows)
        found = rows >= 0
        self._claim(ids, rows, found)
        taken = self._rows.take(rows)
        return taken.column("labels"), taken.column("label_error"), found

    def _by_last_part(self, ids: pa.StringArray, rows: Rows) -> Rows:
        bare = pc.invert(pc.match_substring(ids, "/")).to_numpy(zero_copy_only=False)
        if not bare.any():
            return rows
        if self._last_parts is None:
            parts = (hashes_of(_last_part(b.column("id"))) for b in self._rows.batches())
            self._last_parts = _Index(np.concatenate([np.empty(0, np.uint64), *parts]))
        if self._last_parts.repeats.any():
            return rows
        keys = self._rule.without_suffix(ids)
        near = self._last_parts.find(keys, lambda found: _last_part(self._rows.take(found).column("id")))
        return np.where(bare & (rows < 0), near, rows)

    def _claim(self, ids: pa.StringArray, rows: Rows, found: npt.NDArray[np.bool_]) -> None:
        """Notes which image each label row went to. Raises JobError when it is not the only one."""
        images = hashes_of(ids) | np.uint64(1)  # 0 is for rows that no image has had
        mine, images = rows[found], images[found]
        before = self._image[mine]
        self._image[mine] = images
        clash = ((before != 0) & (before != images)) | (self._image[mine] != images)
        if clash.any():
            at = int(np.flatnonzero(found)[np.flatnonzero(clash)[0]])
            label = self._rows.take(rows[at : at + 1]).column("id")[0].as_py()
            raise JobError.one(
                "source.labels.uri",
                self._uri,
                f"its label of `{label}` fits several images, `{ids[at].as_py()}` among them.",
                "write whole image ids (folder/name.suffix) in the label file, or narrow source.images",
            )

    def _refuse_repeats(self) -> None:
        rows = np.flatnonzero(self._index.repeats)
        ids = self._rows.take(self._index.rows[np.union1d(rows, rows - 1)]).column("id").to_pylist()
        repeated = sorted({i for i in ids if ids.count(i) > 1}) if len(ids) < 10_000 else ids[:1]
        fix = "keep one row an image"
        if repeated:
            raise JobError(
                [
                    Problem("source.labels.uri", self._uri, f"the image id `{i}` has several label rows.", fix)
                    for i in repeated[:10]
                ]
            )


class _Index:
    """Row numbers by 64-bit hash, sorted by hash: 16 bytes a row."""

    def __init__(self, hashes: Hashes) -> None:
        self.rows: Rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self.rows]

    @property
    def repeats(self) -> npt.NDArray[np.bool_]:
        """Positions (in hash order) whose hash is that of the position before."""
        repeated = np.zeros(len(self._hashes), bool)
        repeated[1:] = self._hashes[1:] == self._hashes[:-1]
        return repeated

    def find(self, keys: pa.StringArray, keys_of: KeysOf) -> Rows:
        """The row of each key, −1 where there is none. Texts are compared, so two keys of one hash are told apart."""
        wanted = hashes_of(keys)
        found = np.full(len(wanted), -1, np.int64)
        at = np.searchsorted(self._hashes, wanted)
        open_ = np.arange(len(wanted))
        while len(open_):
            open_ = open_[at[open_] < len(self._hashes)]
            open_ = open_[self._hashes[at[open_]] == wanted[open_]]
            rows = self.rows[at[open_]]
            same = pc.equal(keys_of(rows), keys.take(pa.array(open_))).to_numpy(zero_copy_only=False)
            found[open_[same]] = rows[same]
            open_ = open_[~same]
            at[open_] += 1
        return found


@dataclass(frozen=True)
class _Rule:
    """How image ids become keys that are compared with label ids."""

    folders: bool
    every_folder: bool
    suffixes: bool

    @classmethod
    def of(cls, ids: Iterator[pa.StringArray]) -> "_Rule":
        folders, every, suffixes = False, True, False
        for column in ids:
            with_folder = pc.match_substring(column, "/")
            folders |= bool(pc.any(with_folder, min_count=0).as_py())
            every &= bool(pc.all(with_folder, min_count=0).as_py())
            suffixes |= bool(pc.any(pc.match_substring_regex(column, _SUFFIX), min_count=0).as_py())
        return cls(folders, every and folders, suffixes)

    def keys(self, ids: pa.StringArray) -> pa.StringArray:
        return self.without_suffix(ids if self.folders else _last_part(ids))

    def without_suffix(self, ids: pa.StringArray) -> pa.StringArray:
        return ids if self.suffixes else pc.replace_substring_regex(ids, _SUFFIX, "")


def hashes_of(texts: pa.StringArray) -> Hashes:
    """xxh3-64 of every text."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, texts.cast(pa.binary()).to_pylist()), np.uint64, len(texts))


def _last_part(ids: pa.StringArray) -> pa.StringArray:
    return pc.replace_substring_regex(ids, FOLDERS, "")


def _columns(file: LabelFile, spec: LabelsSpec) -> tuple[str, list[str]]:
    """The id column and the label columns. Raises JobError with every name that is not in the file."""
    known = list(file.names)
    problems = []
    key = spec.id_column or next((c for c in _ID_COLUMNS if c in known), known[0] if known else "")
    if key not in known:
        problems.append(
            Problem("source.labels.id_column", key, f"{file.uri} has no such column.", did_you_mean(key, known))
        )
    columns = list(spec.columns) if spec.columns is not None else [c for c in known if c != key]
    for name in columns:
        if name not in known or name == key:
            said = "this is the id column." if name == key else f"{file.uri} has no such label column."
            problems.append(
                Problem("source.labels.columns", name, said, did_you_mean(name, [c for c in known if c != key]))
            )
    for name in spec.types:
        if name not in columns:
            problems.append(
                Problem(
                    f"source.labels.types.{name}",
                    name,
                    "no label column of this name is kept.",
                    did_you_mean(name, columns),
                )
            )
    if not columns and not problems:
        problems.append(
            Problem(
                "source.labels.uri",
                file.uri,
                "it has no column besides the id.",
                "add label columns, separated by commas",
            )
        )
    if problems:
        raise JobError(problems)
    return key, columns


def _guessed(
    first: pa.RecordBatch, rest: Iterator[pa.RecordBatch], guesses: Mapping[str, Guess]
) -> Iterator[pa.RecordBatch]:
    for batch in (b for source in ([first], rest) for b in source):
        for name, guess in guesses.items():
            guess.add(batch.column(name))
        yield batch


def _typed(
    batches: Iterator[pa.RecordBatch], key: str, types: Mapping[str, LabelType], uri: str, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    row = 0
    for batch in batches:
        ids = pc.replace_substring_regex(plain(pc.cast(batch.column(key), pa.string())), r"^\./", "")
        if ids.null_count:
            at = row + pc.index(pc.is_null(ids), True).as_py()
            raise SourceError(f"{uri}: row {at + 1} has no {key}. Fix: give every label row the id of its image.")
        labels, errors = label_struct({n: batch.column(n) for n in types}, types, where=uri, ids=ids)
        yield pa.RecordBatch.from_arrays([ids, labels, errors], schema=schema)
        row += batch.num_rows
