"""A table's address, small and picklable. Each process opens it for itself; handles never travel."""

import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from pipeline.store.engine import EngineError, asking, is_missing, lance, session
from schemas.errors import StoreError


@dataclass(frozen=True)
class TableRef:
    """Which table of which store. `options` (object-store settings, maybe secrets) stay out of its repr."""

    store: str
    name: str
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    pid: int | None = field(default=None, repr=False)

    @property
    def uri(self) -> str:
        """LanceDB's own layout, so `lancedb.connect(store).open_table(name)` finds the table."""
        return f"{self.store}/{self.name}.lance"

    @property
    def storage_options(self) -> dict[str, str] | None:
        return dict(self.options) or None

    def open(self, version: int | None = None) -> Any:
        """The Lance dataset at `version`, or as it is now. Raises StoreError when it is not there."""
        found = self.find(version)
        if found is not None:
            return found
        if version is None or self.find() is None:
            raise StoreError(f"{self.store} holds no table {self.name}. Fix: run the step that writes it.")
        raise StoreError(
            f"{self.store} holds no version {version} of table {self.name}: it was cleaned up, or never was. "
            "Fix: use a version that is kept, such as the catalog's."
        )

    def find(self, version: int | None = None) -> Any | None:
        """As `open`, but None when there is no such table or version. Raises StoreError when the store cannot tell."""
        if self.pid not in (None, os.getpid()):
            raise StoreError(
                f"{self.store} is in the memory of another process. "
                "Fix: use executor: {kind: local}, or a store on disk or in a bucket."
            )
        try:
            return lance.dataset(self.uri, version=version, storage_options=self.storage_options, session=session())
        except EngineError as error:
            if is_missing(error):
                return None
            with asking(self.store, f"opening table {self.name} of"):
                raise


@lru_cache(maxsize=8)
def pinned(ref: TableRef, version: int) -> Any:
    """The dataset at one version, kept open: a version never changes, so workers read many pieces through one handle."""
    return ref.open(version)
