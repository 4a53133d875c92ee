"""One committer a dataset. A row in the `leases` table says who, until when, and with which fencing token.

Taking and renewing are compare-and-swap updates of that row, so of two that try one wins. Times are read from this host's
clock only: a lease counts as expired when its `expires` lies before *our* now. That assumes clocks within a fraction of
the time to live. A wrong clock can only make a lease change hands too early; safety does not rest on it, because the new
holder fences the tables with its greater token and the old one can no longer commit (`commit.fence`).
A holder that died on this machine is seen dead (`process`), and its lease is taken over at once.
"""

import contextlib
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from pipeline.store.clean import tidy
from pipeline.store.create import create
from pipeline.store.engine import EngineError, asking, explain, is_conflict
from pipeline.store.process import Process, is_gone, this_process
from pipeline.store.ref import TableRef
from pipeline.store.where import quoted
from schemas.errors import LeaseHeld, LeaseLost, StoreError
from schemas.tables import LEASES

TRIES = 20
KEEP = timedelta(hours=1)


@dataclass(frozen=True)
class LeaseRow:
    """Who holds a dataset. `holder` is a run id, empty when nobody does."""

    dataset: str
    token: int
    holder: str
    host: str
    pid: int
    process: str
    since: datetime
    expires: datetime

    @property
    def free(self) -> bool:
        """Nobody's, expired by this host's clock, or left by a process of this machine that ended."""
        dead = is_gone(Process(self.host, self.pid, self.process))
        return not self.holder or self.expires <= datetime.now(UTC) or dead


class Lease:
    """The right to commit to one dataset, for as long as the `with` block runs. `token` is its fencing token.

    Entering raises LeaseHeld when another run has it. A thread renews it every third of `ttl_seconds`.
    """

    def __init__(self, ref: TableRef, dataset: str, *, run_id: str, ttl_seconds: float = 60) -> None:
        self._ref, self._dataset, self._run_id = ref, dataset, run_id
        self._ttl = timedelta(seconds=ttl_seconds)
        self._token: int | None = None
        self._lost: str | None = None
        self._renewed = 0.0
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"lease {dataset}", daemon=True)

    @property
    def token(self) -> int:
        if self._token is None:
            raise StoreError(f"The lease on {self._dataset} is not held. Enter it with `with`.")
        return self._token

    def __enter__(self) -> Self:
        create(self._ref, LEASES)
        self._token = self._acquire()
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._heart.join(timeout=self._ttl.total_seconds())
        # Best effort: a lease that cannot be given back expires, and must not hide why the block ended.
        with contextlib.suppress(StoreError, *EngineError):
            self._swap(self._mine(), {"holder": "''", "expires": _timestamp(datetime.now(UTC))})

    def check(self) -> None:
        """Raises LeaseLost when the lease was taken over, or could not be renewed before it ran out."""
        if self._lost is None and time.monotonic() - self._renewed > self._ttl.total_seconds():
            self._lost = "it could not be renewed in time"
        if self._lost is not None:
            raise LeaseLost(
                f"Run {self._run_id} lost its lease on dataset {self._dataset} in {self._ref.store}: {self._lost}. "
                "Nothing was committed twice. Fix: run the same command again when no other run is at work."
            )

    def confirm(self) -> None:
        """As `check`, but looks at the lease itself: a takeover that the next renewal would notice is noticed now."""
        self.check()
        row = read_lease(self._ref, self._dataset)
        if row is None or (row.token, row.holder) != (self.token, self._run_id):
            self._lost = "another run took it over"
            self.check()

    def _acquire(self) -> int:
        since = datetime.now(UTC)
        for _ in range(TRIES):
            row = read_lease(self._ref, self._dataset)
            if row is None:
                self._insert()
            elif (row.holder, row.since) == (self._run_id, since):
                return row.token  # taken by a try whose answer was lost
            elif not row.free:
                raise LeaseHeld(_held(row, self._ref.store))
            elif self._take(row, since):
                return row.token + 1
        raise LeaseHeld(
            f"Dataset {self._dataset} in {self._ref.store} is wanted by many runs at once. Fix: run one at a time."
        )

    def _insert(self) -> None:
        epoch = datetime.fromtimestamp(0, UTC)
        row = LeaseRow(self._dataset, 0, "", "", 0, "", epoch, epoch)
        rows = pa.Table.from_pylist([vars(row)], LEASES)
        with asking(self._ref.store, "taking a lease in"):
            self._ref.open().merge_insert("dataset").when_not_matched_insert_all().execute(rows)

    def _take(self, row: LeaseRow, since: datetime) -> bool:
        """Whether we replaced exactly `row`, as it was read, by ourselves."""
        me = this_process()
        self._renewed = time.monotonic()
        was = f"{self._whose(row.token)} AND holder = {quoted(row.holder)} AND expires = {_timestamp(row.expires)}"
        return self._swap(
            was,
            {
                "token": str(row.token + 1),
                "holder": quoted(self._run_id),
                "host": quoted(me.host),
                "pid": str(me.pid),
                "process": quoted(me.mark),
                "since": _timestamp(since),
                "expires": _timestamp(datetime.now(UTC) + self._ttl),
            },
        )

    def _beat(self) -> None:
        while not self._stop.wait(self._ttl.total_seconds() / 3):
            started = time.monotonic()
            try:
                kept = self._swap(self._mine(), {"expires": _timestamp(datetime.now(UTC) + self._ttl)})
            except (StoreError, *EngineError):
                continue  # tried again at the next beat; `check` gives up when the lease has run out
            if not kept:
                self._lost = "another run took it over"
                return
            self._renewed = started

    def _swap(self, was: str, values: dict[str, str]) -> bool:
        """Compare-and-swap: whether one row was as `was` says, and now is as `values` say."""
        for n in range(TRIES):
            dataset = self._ref.open()
            try:
                changed = dataset.update(values, where=was)
            except EngineError as error:
                if not is_conflict(error) or n + 1 == TRIES:
                    raise explain(self._ref.store, "writing a lease in", error) from error
                time.sleep(0.01 * (n + 1))
            else:
                tidy(self._ref, dataset.version, keep=KEEP)
                return int(changed["num_rows_updated"]) == 1
        return False

    def _whose(self, token: int) -> str:
        return f"dataset = {quoted(self._dataset)} AND token = {token}"

    def _mine(self) -> str:
        return f"{self._whose(self.token)} AND holder = {quoted(self._run_id)}"


def read_lease(ref: TableRef, dataset: str) -> LeaseRow | None:
    """The lease of a dataset as it stands, or None when there never was one."""
    with asking(ref.store, "reading leases of"):
        rows: list[dict[str, Any]] = ref.open().to_table(filter=f"dataset = {quoted(dataset)}").to_pylist()
    return LeaseRow(**rows[0]) if rows else None


def _timestamp(at: datetime) -> str:
    """An SQL literal to the microsecond, in UTC."""
    return f"timestamp '{at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}'"


def _held(row: LeaseRow, store: str) -> str:
    return (
        f"Dataset {row.dataset} in {store} is being written by run {row.holder} on host {row.host} (pid {row.pid}) "
        f"since {row.since:%Y-%m-%d %H:%M:%S} UTC; its lease runs until {row.expires:%Y-%m-%d %H:%M:%S} UTC "
        "unless it is renewed. Fix: wait for that run, or stop it; a run that died frees the dataset by itself."
    )
