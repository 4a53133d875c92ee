"""The committer: the one place where a run's writes become visible, and where "exactly once" is decided.

Workers leave fragments and receipts; the driver commits them by time and by rows. A receipt whose rows are in already
(an executor ran a split twice) is dropped: its fragments are orphans, cleaned later. Latents are committed before
failures; a death between the two leaves an old failure row beside a new latent, which the next reconciliation removes.
"""

import time
import uuid
from collections.abc import Sequence

import numpy as np

from pipeline.executors.base import Receipt
from pipeline.ledger import Status
from pipeline.store.lease import Lease
from pipeline.store.table import Table
from pipeline.work import Work


class Committer:
    """Takes receipts in any order and commits them to the latents and failures tables, which are behind the lease's fence.

    The first receipt is committed at once, so that a mistake shows early; later ones every `rows` or `seconds`.
    """

    def __init__(
        self, work: Work, *, latents: Table, failures: Table, lease: Lease, run_id: str, rows: int, seconds: float
    ) -> None:
        self._work, self._lease, self._run_id = work, lease, run_id
        self._latents, self._failures = latents, failures
        self._rows, self._seconds = rows, seconds
        self._done = np.zeros(work.rows, bool)
        self._waiting: list[Receipt] = []
        self._last = -float("inf")
        self.committed = 0
        self.failed = 0
        self.taken = 0
        self.bytes = 0
        self.commits = 0
        self.first_commit_at: float | None = None
        self.seconds: dict[str, float] = {}

    def take(self, receipt: Receipt) -> None:
        """Adds one receipt, and commits when it is time."""
        if any(self._done[a:b].any() for a, b in receipt.ranges):
            # Rows of a re-run split. If only a part were new it stays out as well: the next round does those rows.
            return
        for a, b in receipt.ranges:
            self._done[a:b] = True
        self._waiting.append(receipt)
        self.taken += receipt.rows
        self.bytes += receipt.bytes
        for kind, spent in receipt.seconds.items():
            self.seconds[kind] = self.seconds.get(kind, 0.0) + spent
        if sum(r.rows for r in self._waiting) >= self._rows or time.monotonic() - self._last >= self._seconds:
            self.commit()

    def commit(self) -> None:
        """Makes everything taken so far visible."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        self._lease.check()
        ranges = [r for receipt in waiting for r in receipt.ranges]
        for table, prior in ((self._latents, Status.CHANGED), (self._failures, None)):
            fragments = [f for receipt in waiting for f in receipt.fragments.get(table.name, ())]
            replaced = self._replaced(ranges, prior)
            if fragments or replaced:
                table.commit(fragments, token=self._lease.token, properties=self._properties(), replaces=replaced)
        self.committed += sum(r.rows - r.failed for r in waiting)
        self.failed += sum(r.failed for r in waiting)
        self.commits += 1
        self._last = time.monotonic()
        self.first_commit_at = self.first_commit_at or time.time()

    def _replaced(self, ranges: Sequence[tuple[int, int]], prior: Status | None) -> list[str]:
        if prior is not None:
            return self._work.ids(ranges, prior)
        return self._work.ids(ranges, Status.FAILED) + self._work.ids(ranges, Status.CHANGED_FAILED)

    def _properties(self) -> dict[str, str]:
        return {"run": self._run_id, "attempt": uuid.uuid4().hex}
