"""A store: one LanceDB database at a URI. The only way from the pipeline to Lance.

Tables lie at `<uri>/<table>.lance`, as LanceDB puts them, so any LanceDB client can open them by name.
`memory://` stores live in this process alone: good for the local executor, refused elsewhere.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pipeline.store.address import failures_name, is_local, latents_name, renders_name, store_uri
from pipeline.store.catalog import Catalog, CatalogEntry
from pipeline.store.engine import MEMORY
from pipeline.store.lease import Lease, read_lease
from pipeline.store.ref import TableRef
from pipeline.store.table import Table
from schemas.errors import StoreError

LEASES, RUNS, DIRECTIONS, CATALOG, HISTORY = "leases", "runs", "directions", "catalog", "catalog_history"
MEASUREMENTS, FIT_STATES = "measurements", "fit_states"


@dataclass(frozen=True)
class Store:
    """One database. `options` are Lance's storage options (`aws_endpoint`, `aws_region`, `allow_http`, …)."""

    uri: str
    options: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, uri: str, *, options: Mapping[str, str] | None = None, create: bool = True) -> "Store":
        """The store at `uri`; paths become absolute. Writes nothing: tables come with the first write.

        Raises StoreError when the store cannot be reached, and with `create=False` when nothing is there.
        """
        store = cls(store_uri(uri), dict(options or {}))
        if not store._known() and not create:
            raise StoreError(
                f"There is no Latentmill store at {store.uri}. Fix: check the path, or write one with `latentmill run`."
            )
        return store

    @classmethod
    def is_there(cls, uri: str, *, options: Mapping[str, str] | None = None) -> bool:
        """Whether a Latentmill store is at `uri`. Raises StoreError when that cannot be told."""
        return cls(store_uri(uri), dict(options or {}))._known()

    def table(self, name: str) -> Table:
        """Any table of the store, by its full name."""
        return Table(self._ref(name))

    def latents(self, dataset: str, fingerprint: str) -> Table:
        return self.table(latents_name(dataset, fingerprint))

    def failures(self, dataset: str, fingerprint: str) -> Table:
        return self.table(failures_name(dataset, fingerprint))

    def renders(self, dataset: str) -> Table:
        return self.table(renders_name(dataset))

    def directions(self) -> Table:
        return self.table(DIRECTIONS)

    def measurements(self) -> Table:
        return self.table(MEASUREMENTS)

    def fit_states(self) -> Table:
        return self.table(FIT_STATES)

    def runs(self) -> Table:
        return self.table(RUNS)

    def lease(self, dataset: str, *, run_id: str, ttl_seconds: float = 60) -> Lease:
        """The right to commit to `dataset`, for a `with` block; see `Lease`."""
        return Lease(self._ref(LEASES), dataset, run_id=run_id, ttl_seconds=ttl_seconds)

    def holder(self, dataset: str) -> str | None:
        """The run that holds the dataset's lease now, if one does."""
        ref = self._ref(LEASES)
        row = read_lease(ref, dataset) if ref.find() is not None else None
        return None if row is None or row.free else row.holder

    def datasets(self) -> list[str]:
        """Datasets that readers can see, sorted."""
        return self._catalog().datasets()

    def current(self, dataset: str) -> CatalogEntry | None:
        """Which table and version readers of `dataset` see; None before its first swap."""
        return self._catalog().current(dataset)

    def history(self, dataset: str) -> list[CatalogEntry]:
        """What readers of `dataset` saw, newest first (the newest ten). Swap one in again to go back."""
        return self._catalog().history(dataset)

    def swap(
        self, dataset: str, fingerprint: str, table: str, version: int, run_id: str, *, token: int
    ) -> CatalogEntry:
        """Points readers of `dataset` to `version` of `table`, all at once, and keeps that version from cleaning.

        `token` is the lease's. Raises LeaseLost when a newer holder has swapped, StoreError when the version is gone.
        """
        entry = CatalogEntry(dataset, fingerprint, table, version, run_id, token, datetime.now(UTC))
        self._catalog().swap(entry, self._ref(table))
        return entry

    def _catalog(self) -> Catalog:
        return Catalog(self._ref(CATALOG), self._ref(HISTORY))

    def _ref(self, name: str) -> TableRef:
        pid = os.getpid() if self.uri.startswith(MEMORY) else None
        return TableRef(self.uri, name, tuple(sorted(self.options.items())), pid)

    def _known(self) -> bool:
        if is_local(self.uri) and not os.path.isdir(self.uri):  # noqa: PTH112 - a string comes, a bool goes
            return False
        # Every run takes its lease first, so a store of ours has leases; the others are for stores copied without them.
        return any(self._ref(name).find() is not None for name in (LEASES, CATALOG, RUNS))
