"""The catalog: dataset → the table and version that readers see. One row is swapped, so a re-encode appears at once.

Every version the catalog ever pointed to (the newest `KEPT` a dataset) is tagged and stays readable, so a swap can be
taken back. A swap carries the lease's token: once a newer holder has swapped, an older one cannot.
"""

from dataclasses import asdict, dataclass
from datetime import datetime

import pyarrow as pa

from pipeline.store.engine import asking
from pipeline.store.ref import TableRef
from pipeline.store.replace import id_filter
from pipeline.store.upsert import upsert
from pipeline.store.where import quoted
from schemas.errors import LeaseLost
from schemas.tables import CATALOG, CATALOG_HISTORY

KEPT = 10


@dataclass(frozen=True)
class CatalogEntry:
    """What readers of a dataset see, or saw: a table of one codec at one version."""

    dataset: str
    fingerprint: str
    table: str
    version: int
    run_id: str
    token: int
    at: datetime


@dataclass(frozen=True)
class Catalog:
    """The catalog of one store: its present state and its history are two small tables."""

    now: TableRef
    past: TableRef

    def datasets(self) -> list[str]:
        """Names of the datasets that readers can see, sorted."""
        return sorted(e.dataset for e in _entries(self.now, None))

    def current(self, dataset: str) -> CatalogEntry | None:
        """What readers see, or None before the first swap."""
        return next(iter(_entries(self.now, dataset)), None)

    def history(self, dataset: str) -> list[CatalogEntry]:
        """What readers saw, newest first; the present state is the first. Swap any of them in again to go back."""
        return sorted(_entries(self.past, dataset), key=lambda e: (e.token, e.at), reverse=True)

    def swap(self, entry: CatalogEntry, table: TableRef) -> None:
        """Makes `entry` what readers see. Idempotent.

        Raises StoreError when its version is gone, LeaseLost when a newer lease holder has swapped already.
        """
        dataset = table.open(entry.version)
        with asking(table.uri, "tagging a version of"):
            if tag(entry.version) not in dataset.tags.list():
                dataset.tags.create(tag(entry.version), entry.version)
        upsert(self.past, pa.Table.from_pylist([{"key": _key(entry), **asdict(entry)}], CATALOG_HISTORY))
        row = pa.Table.from_pylist([asdict(entry)], CATALOG)
        if not upsert(self.now, row, only_if="source.token >= target.token"):
            raise LeaseLost(
                f"Dataset {entry.dataset} in {self.now.store} was swapped by a newer run than {entry.run_id} "
                f"(token {entry.token}). What it shows now stays. Fix: run the same command again to build on it."
            )
        self._forget(entry.dataset)

    def _forget(self, dataset: str) -> None:
        """Unties versions older than the newest `KEPT`; cleaning may then remove them."""
        history = self.history(dataset)
        kept = {(e.table, e.version) for e in [*history[:KEPT], *_entries(self.now, dataset)]}
        if not (dropped := history[KEPT:]):
            return
        for entry in dropped:
            if (entry.table, entry.version) not in kept:
                self._untag(entry)
        with asking(self.past.uri, "forgetting old swaps in"):
            self.past.open().delete(id_filter("key", [_key(e) for e in dropped]))

    def _untag(self, entry: CatalogEntry) -> None:
        dataset = TableRef(self.now.store, entry.table, self.now.options, self.now.pid).find()
        if dataset is not None and tag(entry.version) in dataset.tags.list():
            with asking(dataset.uri, "untagging a version of"):
                dataset.tags.delete(tag(entry.version))


def tag(version: int) -> str:
    """The tag that keeps a version the catalog points to."""
    return f"catalog-{version}"


def _key(entry: CatalogEntry) -> str:
    return f"{entry.dataset}/{entry.token}/{entry.table}/{entry.version}"


def _entries(ref: TableRef, dataset: str | None) -> list[CatalogEntry]:
    found = ref.find()
    if found is None:
        return []
    columns = list(CatalogEntry.__dataclass_fields__)
    where = None if dataset is None else f"dataset = {quoted(dataset)}"
    with asking(ref.store, "reading the catalog of"):
        return [CatalogEntry(**row) for row in found.to_table(columns=columns, filter=where).to_pylist()]
