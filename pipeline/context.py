"""What every step of a run shares. A step gets its own spec and this; it never sees the other steps."""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from tempfile import TemporaryDirectory
from typing import Any

from pipeline import artifacts
from pipeline.code_set import CodeSet
from pipeline.codec import CodecRef, weights_exist
from pipeline.executors.base import Executor
from pipeline.executors.open import open_executor
from pipeline.listing import Listing, list_source
from pipeline.store.column_values import ColumnValues
from pipeline.store.columns import Fold, one_by_one
from pipeline.store.lease import Lease
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.errors import JobError
from schemas.events import Event, Notice, Progress, StepStarted
from schemas.job import Job
from schemas.steps import Step

WORK_FOLDER = "_work"
"""Work files of running runs, beside the tables."""

Report = Callable[[Event], None]


@dataclass
class Context:
    """One run's shared things. The executor starts when a step first needs it: a run with nothing to do never pays for Ray."""

    job: Job
    store: Store
    lease: Lease
    run_id: str
    report: Report
    given: str = ""
    """The job as the user wrote it."""
    retry_failures: bool = False
    listing: Listing | None = None  # the plan's, used by the first step that needs it
    code_sets: dict[str, CodeSet] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    summary: dict[str, dict[str, object]] = field(default_factory=dict)
    tables: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    started: float = field(default_factory=time.time)
    given_executor: Executor | None = None
    work_in_store: bool = True
    pinned: int | None = None
    """The version of the latents that this run shows; None: the newest, which only the lease's holder may take."""
    _executor: Executor | None = None
    _codec: CodecRef | None = None
    _folder: TemporaryDirectory[str] | None = None
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def executor(self) -> Executor:
        if self.given_executor is not None:
            return self.given_executor
        if self._executor is None:
            self._executor = open_executor(self.job.executor)
        return self._executor

    @property
    def codec(self) -> CodecRef:
        """The codec, resolved once its weights exist."""
        if self._codec is None:
            if not weights_exist(self.job.codec):
                fix = "put a `train` step above, or point codec.weights at a trained codec"
                raise JobError.one(
                    "codec.weights", getattr(self.job.codec, "weights", None), "no weights are there.", fix
                )
            self._codec = CodecRef.resolve(self.job.codec, allow_code=self.job.allow_code)
        return self._codec

    @property
    def latents(self) -> Table:
        return self.store.latents(self.job.dataset, self.codec.fingerprint)

    @property
    def latents_version(self) -> int:
        """The version of the latents that steps work on."""
        return self.latents.version if self.pinned is None else self.pinned

    @property
    def failures(self) -> Table:
        return self.store.failures(self.job.dataset, self.codec.fingerprint)

    def work_url(self, name: str) -> str:
        """Where a work file goes: in the store, where every worker can read it; on this machine for memory stores.

        A new name every time: workers keep open what they have read.
        """
        name = f"{next(self._numbers):03d}-{name}"
        if not self.work_in_store or self.store.uri.startswith("memory://"):
            if self._folder is None:
                self._folder = TemporaryDirectory(prefix="latentmill-run-")
            return artifacts.join(self._folder.name, name)
        return artifacts.join(self._work_folder, self.run_id, name)

    @property
    def _work_folder(self) -> str:
        return artifacts.join(self.store.uri, WORK_FOLDER, self.job.dataset)

    def clear_work(self) -> None:
        """Removes what earlier runs of the dataset left. For the lease holder, before its first work file."""
        if self.work_in_store:
            artifacts.remove_tree(self._work_folder, self.file_options)

    @property
    def file_options(self) -> dict[str, Any]:
        """The store's object-store options as fsspec wants them."""
        return artifacts.from_store_options(self.job.store_options)

    def listing_now(self) -> Listing:
        """The plan's listing if it was held against these tables (taken once), else a fresh one."""
        listing, self.listing = self.listing, None
        if listing is not None and listing.against == self.latents.name:
            return listing
        return list_source(self.job.source, latents=self.latents, failures=self.failures)

    @property
    def resolved_fingerprint(self) -> str | None:
        """The codec's fingerprint, as soon as its weights are there."""
        return self.codec.fingerprint if self._codec or weights_exist(self.job.codec) else None

    def put_columns(
        self, values: ColumnValues, *, fold: Fold = one_by_one, version: int | None = None, rows: int | None = None
    ) -> None:
        """Writes computed columns of the latents under this run's lease, in one version; see `store.columns.put_columns`."""
        self.lease.check()
        named = {"run": self.run_id, "attempt": uuid.uuid4().hex}
        token = self.lease.token
        self.latents.put_columns(values, token=token, properties=named, fold=fold, version=version, rows=rows)

    def publish(self) -> None:
        """Points the catalog at the latents table as it is now: from here on readers see this run's work, all at once."""
        table = self.latents
        current = self.store.current(self.job.dataset)
        before = current.version if current and current.table == table.name else None
        if before != table.version:
            self.store.swap(
                self.job.dataset,
                self.codec.fingerprint,
                table.name,
                table.version,
                self.run_id,
                token=self.lease.token,
            )
        self.tables[table.name] = (self.tables.get(table.name, (before, None))[0], table.version)

    def started_step(self, step: Step, *, total: int | None, already: int = 0) -> None:
        self.report(StepStarted(step=str(step.name), stage=step.stage, total=total, already=already))

    def progress(
        self,
        step: Step,
        *,
        computed: int,
        committed: int,
        failed: int,
        total: int | None,
        read: int = 0,
        note: str = "",
    ) -> None:
        self.report(
            Progress(
                step=str(step.name),
                read=max(read, computed),  # what is computed has been read, whatever the counter says
                computed=computed,
                committed=committed,
                failed=failed,
                total=total,
                note=note,
            )
        )

    def notice(self, message: str) -> None:
        self.notices.append(message)
        self.report(Notice(message=message))

    def close(self) -> None:
        """Lets go of the executor and of this run's work files."""
        if self._executor is not None:
            self._executor.close()
        if self._folder is not None:
            self._folder.cleanup()
        elif self.work_in_store:
            # No other run's: this one may have lost its lease, and its heir be at work.
            artifacts.remove_tree(artifacts.join(self._work_folder, self.run_id), self.file_options)
