"""What readers see: swapped at once, swapped back, kept from cleaning, and not swapped by who came late."""

from datetime import timedelta
from pathlib import Path

import pytest
from store_rows import FINGERPRINT, add, fenced, ids_of, names

from pipeline.store.catalog import KEPT
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.errors import LeaseLost, StoreError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def table(store: Store) -> Table:
    return fenced(store)


def swap(store: Store, table: Table, token: int = 1, run: str = "run", dataset: str = "faces") -> int:
    return store.swap(dataset, FINGERPRINT, table.name, table.version, run, token=token).version


def test_swap_and_swap_back(store: Store, table: Table) -> None:
    assert store.current("faces") is None and store.history("faces") == [] and store.datasets() == []
    add(table, names(5))
    first = swap(store, table)
    add(table, names(5, start=5))
    assert ids_of(table, store.current("faces").version) == names(5), "readers see the swap, not the newest version"
    second = swap(store, table, run="run2")
    assert [e.version for e in store.history("faces")] == [second, first]
    back = store.history("faces")[1]
    store.swap("faces", back.fingerprint, back.table, back.version, "undo", token=2)
    current = store.current("faces")
    assert (current.version, current.run_id, current.token, current.fingerprint) == (first, "undo", 2, FINGERPRINT)
    assert [e.version for e in store.history("faces")] == [first, second, first]
    swap(store, table, dataset="digits", token=1)
    assert store.datasets() == ["digits", "faces"] and store.current("faces").version == first


def test_the_same_swap_twice_is_one(store: Store, table: Table) -> None:
    for _ in range(2):
        swap(store, table)
    assert len(store.history("faces")) == 1


def test_an_older_holder_cannot_swap_over_a_newer_one(store: Store, table: Table) -> None:
    swap(store, table, token=5, run="newer")
    add(table, names(5))
    with pytest.raises(LeaseLost, match="newer run"):
        swap(store, table, token=4, run="zombie")
    assert store.current("faces").run_id == "newer"


def test_a_version_that_is_gone_is_refused(store: Store, table: Table) -> None:
    with pytest.raises(StoreError, match="version 77"):
        store.swap("faces", FINGERPRINT, table.name, 77, "run", token=1)
    with pytest.raises(StoreError, match="no table nothing"):
        store.swap("faces", FINGERPRINT, "nothing", 1, "run", token=1)
    assert store.current("faces") is None


def test_the_newest_states_are_kept_and_older_ones_let_go(store: Store, table: Table) -> None:
    versions = []
    for k in range(KEPT + 3):
        add(table, names(2, start=2 * k))
        versions.append(swap(store, table))
    assert [e.version for e in store.history("faces")] == versions[::-1][:KEPT]
    table.trim_versions(keep=1, older_than=timedelta(0), token=1)
    for entry in store.history("faces"):
        assert table.count_rows(version=entry.version) == 2 * (versions.index(entry.version) + 1)
    with pytest.raises(StoreError, match=f"version {versions[0]}"):
        table.count_rows(version=versions[0])


def test_a_pinned_state_outlives_its_history(store: Store, table: Table) -> None:
    add(table, names(2))
    first = swap(store, table)
    other = store.latents("faces", "cd" * 32)
    other.create(table.schema)
    for token in range(2, KEPT + 4):
        other.fence(token)
        swap(store, other, token=token)
    store.swap("faces", FINGERPRINT, table.name, first, "back", token=99)
    assert store.current("faces").table == table.name
    swap(store, other, token=100)
    assert {e.table for e in store.history("faces")} == {table.name, other.name}
