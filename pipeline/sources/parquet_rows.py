"""Rows of Parquet files, read forwards: a cursor that keeps one file open and a few hundred rows in memory.

Work comes in listing order, so the next row is nearly always in the batch at hand or the one after it.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.artifacts import Options, is_local, local_path, open_read
from pipeline.faults import is_transient, read_faults
from pipeline.sources.base import UNKNOWN_VERSION
from pipeline.sources.fetch import Fetched, Fetcher, Wanted, unreadable, vanished
from pipeline.sources.walk import file_version
from schemas.errors import FailureCode, RowFailure, TransientReadError

CURSOR_ROWS = 256
PAGE_BUFFER = 2**20


class ParquetRows:
    """Encoded images of (file, row) pairs. Rows whose bytes are null are read from their `path`, relative to the file."""

    def __init__(self, options: Options, *, column: str, objects: Fetcher) -> None:
        self._options, self._column, self._objects = options, column, objects
        self._uri, self._version = "", ""
        self._failure: RowFailure | None = None
        self._cursor: _Cursor | None = None

    def fetch(self, rows: Iterable[tuple[Wanted, int]]) -> Iterator[tuple[int, Fetched]]:
        """Every (row to fetch, row number in its file) once, as (place, bytes or failure)."""
        for wanted, number in rows:
            if (wanted.uri, wanted.version) != (self._uri, self._version):
                self._open(wanted.uri, wanted.version)
            found = self._failure or self._row(wanted.uri, number)
            yield wanted.at, self._pointed(wanted, found) if isinstance(found, dict) else found

    def _open(self, uri: str, version: str) -> None:
        if self._cursor is not None:
            self._cursor.close()
        self._uri, self._version, self._failure, self._cursor = uri, version, None, None
        try:
            now = file_version(uri, self._options)
            if version not in (now, UNKNOWN_VERSION):
                self._failure = RowFailure(
                    FailureCode.CHANGED, f"{uri}: listed as {version}, now {now}; run again to list it anew"
                )
                return
            raw = pa.OSFile(str(local_path(uri))) if is_local(uri) else open_read(uri, self._options)
            self._cursor = _Cursor(pq.ParquetFile(raw, buffer_size=PAGE_BUFFER), self._column)
        except FileNotFoundError:
            self._failure = vanished(uri)
        except (pa.ArrowException, *read_faults()) as error:
            self._failure = _failure(uri, error)

    def _row(self, uri: str, number: int) -> Any:
        """Bytes, Hugging Face's struct as a dict, or a failure."""
        assert self._cursor is not None
        try:
            value = self._cursor.value(number)
        except (pa.ArrowException, *read_faults()) as error:
            return _failure(f"{uri} row {number}", error)
        return RowFailure(FailureCode.ZERO_BYTES, f"{uri} row {number}: its image is null") if value is None else value

    def _pointed(self, wanted: Wanted, image: dict[str, Any]) -> Fetched:
        if image.get("bytes") is not None:
            return bytes(image["bytes"])
        if not image.get("path"):
            return RowFailure(FailureCode.ZERO_BYTES, f"{wanted.uri}: image {{bytes, path}} of this row is empty")
        path = str(image["path"])
        uri = path if "://" in path or path.startswith("/") else wanted.uri.rpartition("/")[0] + "/" + path
        return next(iter(self._objects.fetch([Wanted(wanted.at, uri, UNKNOWN_VERSION, None, None)])))[1]


class _Cursor:
    """Values of one column by row number; cheap forwards, a row group from its start when it must go back."""

    def __init__(self, file: pq.ParquetFile, column: str) -> None:
        self._file, self._column = file, column
        counts = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self._starts = np.cumsum([0, *counts])
        self._group, self._at = -1, 0
        self._held: Any = None
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def close(self) -> None:
        self._file.close(force=True)

    def value(self, row: int) -> Any:
        """The value, or None for null. Raises what Arrow raises for damaged pages; the next call starts afresh."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        if group != self._group or row < self._at:
            self._at, self._held = int(self._starts[group]), None
            self._batches = self._file.iter_batches(CURSOR_ROWS, row_groups=[group], columns=[self._column])
        self._group = -1  # until the row is found, so that nothing is continued after damage
        while self._held is None or row >= self._at + len(self._held):
            self._at += 0 if self._held is None else len(self._held)
            batch = next(self._batches, None)
            if batch is None:
                raise pa.ArrowInvalid("fewer rows than its footer promises")
            self._held = batch.column(0)
        self._group = group
        return self._held[row - self._at].as_py()


def _failure(place: str, error: BaseException) -> RowFailure:
    """Damaged pages are corrupt; what the way to them did is unreadable."""
    if isinstance(error, TransientReadError | PermissionError) or is_transient(error):
        return unreadable(place, error)
    return RowFailure(FailureCode.CORRUPT, f"{place}: {error}")
