"""Keeping a table small: files of killed writers, versions nobody needs, fragments that are too small.

Everything here is for the lease holder. Data files that no version refers to belong to writers that died, or to zombies
whose commits are fenced off anyway; with the lease held and before this run writes, nobody needs them. Files of an index are
kept for a day: no fence stops a zombie's index commit, and an index without its files fails every search.
Tagged versions (the catalog's) survive.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from pipeline.store.commit import check_token
from pipeline.store.engine import EngineError, asking
from pipeline.store.ref import TableRef
from pipeline.store.splits import row_bytes

TARGET_BYTES = 256 * 2**20
MAX_SOURCE_BYTES = 8 * 2**30
TIDY_EVERY = 64
INDEX_AGE = timedelta(days=1)
"""How long files of an index that no version refers to are kept: longer than a build goes on, paused or not."""
_OWNED = ("data/", "_deletions/", "_indices/", "_transactions/")


@dataclass(frozen=True)
class Cleaned:
    """What a cleaning removed."""

    files: int = 0
    bytes: int = 0
    versions: int = 0


def clean_orphans(ref: TableRef, older_than: timedelta, *, token: int) -> Cleaned:
    """Removes files that no version refers to and that were last written before `older_than` ago (an index's: before a day).

    Call it with the lease held, before this run writes anything (or with an age greater than the run's). Lists the whole
    table folder and reads every manifest. Raises LeaseLost for a stale token.
    """
    dataset = ref.open()
    check_token(dataset, ref, token)
    now = datetime.now(UTC)
    with asking(ref.uri, "cleaning"):
        # Listed first: a file that is committed in between is tracked by the time we look.
        listed = [
            (path, size)
            for batch in dataset.all_files()
            for path, size, at in _files(batch)
            if path.startswith(_OWNED) and at < now - _spared(path, older_than)
        ]
        kept = {path for batch in ref.open().tracked_files() for path in batch.column("path").to_pylist()}
        orphans = [(path, size) for path, size in listed if path not in kept]
        files = dataset.new_file_session()
        for path, _ in orphans:
            files.delete_file(path)
    return Cleaned(files=len(orphans), bytes=sum(size for _, size in orphans))


def _spared(path: str, older_than: timedelta) -> timedelta:
    return max(older_than, INDEX_AGE) if path.startswith("_indices/") else older_than


def trim_versions(ref: TableRef, *, keep: int, older_than: timedelta, token: int) -> Cleaned:
    """Removes versions that are older than `older_than` and not among the newest `keep`; tagged ones stay.

    A reader that still scans a removed version fails, so leave `older_than` longer than the longest scan.
    """
    dataset = ref.open()
    check_token(dataset, ref, token)
    before = datetime.now(UTC) - older_than
    with asking(ref.uri, "cleaning"):
        old = [v["version"] for v in dataset.versions() if _utc(v["timestamp"]) < before]
        old = [v for v in old if v <= dataset.version - keep]
        if not old:
            return Cleaned()
        stats = dataset.cleanup_old_versions(versions=old, error_if_tagged_old_versions=False)
    return Cleaned(files=stats.data_files_removed, bytes=stats.bytes_removed, versions=stats.old_versions)


def compact(ref: TableRef, *, token: int, target_bytes: int = TARGET_BYTES) -> int:
    """Merges small neighbouring fragments towards `target_bytes`, at most 8 GiB a call; returns how many went.

    Explicit targets, because Lance's default goes by rows and would merge wide tables again and again.
    """
    dataset = ref.open()
    check_token(dataset, ref, token)
    rows = max(target_bytes // row_bytes(dataset.schema, dataset.schema.names), 1)
    with asking(ref.uri, "compacting"):
        done = dataset.optimize.compact_files(
            target_rows_per_fragment=rows, max_bytes_per_file=2 * target_bytes, max_source_bytes=MAX_SOURCE_BYTES
        )
    return int(done.fragments_removed)


def tidy(ref: TableRef, version: int, *, keep: timedelta) -> None:
    """Now and then merges a small table's fragments and drops its versions older than `keep`."""
    if version % TIDY_EVERY:
        return
    # Upkeep only: whoever comes to the next round number does it if another writer was in the way.
    with contextlib.suppress(*EngineError):
        ref.open().optimize.compact_files(num_threads=1)
        ref.open().cleanup_old_versions(older_than=keep, error_if_tagged_old_versions=False)


def _files(batch: pa.RecordBatch) -> Iterator[tuple[str, int, datetime]]:
    columns = [batch.column(name).to_pylist() for name in ("path", "size_bytes", "last_modified")]
    return zip(*columns, strict=True)


def _utc(at: datetime) -> datetime:
    return at if at.tzinfo else at.astimezone(UTC)
