"""What is done and what is not: a listing held against the tables, exactly, in bounded memory.

There is no second book: an image is done when the latents table holds its id at its present source version (design §5.2).
The comparison is a hash-partitioned join. Ids become 128-bit hashes (xxh3), every side is cut into buckets by hash that
spill to disk, and the buckets are joined one after another, so memory is a constant plus 1/64 of the data's hashes.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from schemas.errors import FailureCode
from stages.row_hash import hash_structs

BUCKETS = 64
SPILL_BYTES = 4 * 2**20
RECORD = np.dtype([("hi", "<u8"), ("lo", "<u8"), ("version", "<u8"), ("position", "<u8"), ("labels", "<u8")])
NO_ADDRESS = 2**64 - 1
NOT_COMPARED = 0
"""Instead of the hash of a row's labels: it has none."""
UNREADABLE = 2**64 - 1
"""Instead of it: they could not be read. In failures: that is why the image failed."""

Records = npt.NDArray[np.void]


class Status(IntEnum):
    """Where a listed image stands before the run."""

    NEW = 0  # in no table
    DONE = 1  # in latents, at this source version
    FAILED = 2  # in failures, at this source version
    CHANGED = 3  # in latents, at another source version
    CHANGED_FAILED = 4  # in failures, at another source version


@dataclass
class Tally:
    """The result of one reconciliation. Positions count listed images from 0 in listing order."""

    status: npt.NDArray[np.uint8]
    counts: dict[Status, int] = field(default_factory=dict)
    duplicates: list[int] = field(default_factory=list)  # positions of listed ids seen before, at most 20
    stale_failures: list[int] = field(default_factory=list)  # done, yet an older failure row was left behind
    stale_latents: list[int] = field(default_factory=list)  # failed at this version, an older latent was left behind
    doubled: int = 0  # ids that stand twice in one table: must never happen
    unlisted: int = 0  # rows of the latents table whose image the source no longer lists
    unlisted_failures: int = 0
    relabelled: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    """Per position: done, but the row's labels are not those of the listing."""
    unreadable: int = 0  # done, but the listing's labels could not be read: the row keeps its own
    mended: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    """Per position: failed because its labels could not be read, and now they can (or it has none): it is to be done."""
    addresses: npt.NDArray[np.uint64] | None = None
    """Per position: where the row lies in the latents table, NO_ADDRESS where it is not done. When asked for."""

    def todo(self, *, retry_failures: bool = False) -> npt.NDArray[np.bool_]:
        """A mask over positions: what is to be done."""
        done = [Status.DONE] if retry_failures else [Status.DONE, Status.FAILED]
        return ~np.isin(self.status, done) | self.mended


class Ledger:
    """Collects the hashes of three sides (listed, latents, failures) and joins them. Use as a context manager.

    Labels are compared where both sides bring a `labels` column. `addresses`: the tally also says where rows lie.
    """

    def __init__(self, *, spill_bytes: int = SPILL_BYTES, addresses: bool = False) -> None:
        self._addresses = addresses
        self._folder = tempfile.TemporaryDirectory(prefix="latentmill-ledger-")
        self._sides = {
            name: _Side(Path(self._folder.name) / name, spill_bytes) for name in ("listed", "latents", "failures")
        }

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def list_batch(self, batch: pa.RecordBatch) -> None:
        """Adds listed images, in listing order."""
        self._sides["listed"].add(batch)

    def add_table(self, name: str, rows: Iterator[pa.RecordBatch]) -> None:
        """Adds what `latents` or `failures` holds: batches with `id` and `source_version`.

        Of latents also `labels` and, if asked for, `_rowaddr`; of failures `error`, to tell which labels were mended.
        """
        for batch in rows:
            self._sides[name].add(batch)

    @property
    def listed(self) -> int:
        return self._sides["listed"].rows

    def reconcile(self) -> Tally:
        none = np.zeros(self.listed, bool)
        tally = Tally(np.zeros(self.listed, np.uint8), relabelled=none, mended=none.copy())
        if self._addresses:
            tally.addresses = np.full(self.listed, NO_ADDRESS, np.uint64)
        for bucket in range(BUCKETS):
            _join(tally, *(self._sides[name].read(bucket) for name in ("listed", "latents", "failures")))
        values, counts = np.unique(tally.status, return_counts=True)
        tally.counts = dict.fromkeys(Status, 0) | {Status(int(v)): int(c) for v, c in zip(values, counts, strict=True)}
        tally.duplicates.sort()
        return tally


class _Side:
    """Records of one side, cut into buckets by the hash's high bits; spilled when they grow."""

    def __init__(self, folder: Path, spill_bytes: int) -> None:
        folder.mkdir()
        self._spill_bytes = spill_bytes
        self._folder = folder
        self._pending: list[Records] = []
        self._pending_bytes = 0
        self.rows = 0

    def add(self, batch: pa.RecordBatch) -> None:
        digests = b"".join(map(xxhash.xxh3_128_digest, batch.column("id").cast(pa.binary()).to_pylist()))
        pairs = np.frombuffer(digests, ">u8").reshape(-1, 2)
        records = np.empty(len(pairs), RECORD)
        records["hi"], records["lo"] = pairs[:, 0], pairs[:, 1]
        versions = map(xxhash.xxh3_64_intdigest, batch.column("source_version").cast(pa.binary()).to_pylist())
        records["version"] = np.fromiter(versions, np.uint64, len(pairs))
        if "_rowaddr" in batch.schema.names:
            records["position"] = batch.column("_rowaddr").to_numpy()
        else:
            records["position"] = np.arange(self.rows, self.rows + len(pairs), dtype=np.uint64)
        records["labels"] = _label_hashes(batch)
        self.rows += len(pairs)
        self._pending.append(records)
        self._pending_bytes += records.nbytes
        if self._pending_bytes >= self._spill_bytes:
            self._spill()

    def read(self, bucket: int) -> Records:
        self._spill()
        path = self._folder / str(bucket)
        return np.fromfile(path, RECORD) if path.exists() else np.empty(0, RECORD)

    def _spill(self) -> None:
        if not self._pending:
            return
        records = np.concatenate(self._pending)
        self._pending, self._pending_bytes = [], 0
        bucket = (records["hi"] % BUCKETS).astype(np.uint8)
        order = np.argsort(bucket, kind="stable")
        edges = np.searchsorted(bucket[order], np.arange(BUCKETS + 1))
        for b in range(BUCKETS):
            if edges[b] < edges[b + 1]:
                with (self._folder / str(b)).open("ab") as file:
                    records[order[edges[b] : edges[b + 1]]].tofile(file)


def _label_hashes(batch: pa.RecordBatch) -> npt.NDArray[np.uint64]:
    names = batch.schema.names
    hashes = hash_structs(batch.column("labels")) if "labels" in names else None
    if hashes is None:
        hashes = np.full(batch.num_rows, NOT_COMPARED, np.uint64)
    unreadable = np.zeros(batch.num_rows, bool)
    if "label_error" in names:  # a listing
        unreadable = batch.column("label_error").is_valid().to_numpy(zero_copy_only=False)
    elif "error" in names:  # failures
        unreadable = pc.equal(batch.column("error"), str(FailureCode.UNREADABLE_LABEL)).to_numpy(zero_copy_only=False)
    return np.where(unreadable, np.uint64(UNREADABLE), hashes)


def _join(tally: Tally, listed: Records, latents: Records, failures: Records) -> None:
    listed, repeats = _unique(listed)
    latents, doubled = _unique(latents)
    failures, doubled_failures = _unique(failures)
    tally.doubled += len(doubled) + len(doubled_failures)
    room = 20 - len(tally.duplicates)
    tally.duplicates += [int(p) for p in repeats["position"][: max(room, 0)]]

    in_latents, same_latent, at = _match(listed, latents)
    in_failures, same_failure, failure_at = _match(listed, failures)
    status = np.full(len(listed), Status.NEW, np.uint8)
    status[in_failures] = Status.CHANGED_FAILED
    status[in_latents] = Status.CHANGED
    status[same_failure] = Status.FAILED
    status[same_latent] = Status.DONE
    position = listed["position"].astype(np.int64)
    tally.status[position] = status
    tally.status[repeats["position"].astype(np.int64)] = Status.DONE
    _compare_labels(tally, position[same_latent], listed[same_latent], latents[at[same_latent]])
    failed = status == Status.FAILED
    for_labels = failures["labels"][failure_at[failed]] == UNREADABLE
    tally.mended[position[failed]] = for_labels & (listed["labels"][failed] != UNREADABLE)
    if tally.addresses is not None:
        tally.addresses[position[same_latent]] = latents["position"][at[same_latent]]
    tally.stale_failures += position[in_failures & in_latents & (status != Status.FAILED)].tolist()
    tally.stale_latents += position[in_latents & (status == Status.FAILED)].tolist()
    tally.unlisted += len(latents) - int(in_latents.sum())
    tally.unlisted_failures += len(failures) - int(in_failures.sum())


def _compare_labels(tally: Tally, position: npt.NDArray[np.int64], listed: Records, rows: Records) -> None:
    comparable = rows["labels"] != NOT_COMPARED
    readable = listed["labels"] != UNREADABLE
    tally.relabelled[position] = comparable & readable & (listed["labels"] != rows["labels"])
    tally.unreadable += int((comparable & ~readable).sum())


def _unique(records: Records) -> tuple[Records, Records]:
    """The records sorted by (hi, lo) without repeats, and the repeats (later positions)."""
    records = records[np.lexsort((records["position"], records["lo"], records["hi"]))]
    repeat = np.zeros(len(records), bool)
    repeat[1:] = (records["hi"][1:] == records["hi"][:-1]) & (records["lo"][1:] == records["lo"][:-1])
    return records[~repeat], records[repeat]


def _match(
    listed: Records, table: Records
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """Per listed record: does the table hold its id; does it hold it at the same version; where. Both sorted by (hi, lo)."""
    if not len(table):
        nothing = np.zeros(len(listed), bool)
        return nothing, nothing.copy(), np.zeros(len(listed), np.intp)
    # 2^-64 per pair that two ids share `hi`; then the search may land beside the right `lo`, so look at both columns.
    at = np.searchsorted(table["hi"], listed["hi"])
    at = np.minimum(at, len(table) - 1)
    while True:
        behind = (table["hi"][at] == listed["hi"]) & (table["lo"][at] < listed["lo"]) & (at + 1 < len(table))
        if not behind.any():
            break
        at = at + behind
    held = (table["hi"][at] == listed["hi"]) & (table["lo"][at] == listed["lo"])
    return held, held & (table["version"][at] == listed["version"]), at
