"""SIGKILL at random moments, between write and commit too: run again, and every id is there exactly once."""

import random
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
from store_rows import FINGERPRINT, add, batch, child, fenced, ids_of, line, names

from pipeline.store.store import Store
from schemas.errors import LeaseLost

ROWS = 1200
DRIVER = """
import sys, time
from store_rows import *
store = Store.open(sys.argv[1])
ids = names(int(sys.argv[3]))
with store.lease("faces", run_id=sys.argv[2]) as lease:
    table = fenced(store, lease.token)
    held = {r["id"]: r["source_version"] for b in table.scan(["id", "source_version"]) for r in b.to_pylist()}
    todo = [i for i in ids if held.get(i) != "v2"]
    print("begun", flush=True)
    for start in range(0, len(todo), 20):
        part = todo[start:start + 20]
        fragments = table.write([batch(part, source_version="v2")])
        time.sleep(0.005)
        table.commit(fragments, token=lease.token, properties={}, replaces=[i for i in part if i in held])
print("done", flush=True)
"""


@pytest.mark.fault
@pytest.mark.slow
def test_a_driver_killed_again_and_again(tmp_path: Path) -> None:
    """Half the images are there in an older version: the run appends and replaces. What is done follows from the table."""
    store = Store.open(str(tmp_path / "store"))
    add(fenced(store), names(ROWS)[::2])
    rng = random.Random(7)
    done = [0]
    for kill in range(6):
        with child(DRIVER, store.uri, f"run{kill}", ROWS) as driver:
            assert line(driver) == "begun"
            time.sleep(rng.uniform(0.02, 0.4))
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        table = store.latents("faces", FINGERPRINT)
        held = ids_of(table)
        assert len(held) == len(set(held)) and set(names(ROWS)[::2]) <= set(held)
        done.append(table.count_rows("source_version = 'v2'"))
    with child(DRIVER, store.uri, "last", ROWS) as driver:
        assert [line(driver), line(driver)] == ["begun", "done"]
    assert ids_of(table) == names(ROWS) and table.count_rows("source_version = 'v2'") == ROWS
    assert done == sorted(done) and any(0 < n < ROWS for n in done)


WRITER = """
import pickle, sys, time
from store_rows import *
table = fenced(Store.open(sys.argv[1]), 1)
def rows():
    for k in range(10_000):
        yield batch(names(50, prefix=f"w{k}"))
        if k == 40: print("writing", flush=True)
        time.sleep(0.01 if k > 40 else 0)
if sys.argv[2] == "written":
    table.write([batch(names(50))]); print("writing", flush=True); time.sleep(600)
table.write(rows())
"""


@pytest.mark.fault
@pytest.mark.parametrize("when", ["writing", "written"])
def test_a_killed_writer_leaves_files_that_are_cleaned_and_no_rows(tmp_path: Path, when: str) -> None:
    store = Store.open(str(tmp_path / "store"))
    table = fenced(store)
    add(table, names(30), source_version="kept")
    with child(WRITER, store.uri, when) as writer:
        assert line(writer) == "writing"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    data = tmp_path / "store" / f"{table.name}.lance" / "data"
    assert ids_of(table) == names(30)
    with pytest.raises(LeaseLost):
        table.fence(2)
        table.clean_orphans(timedelta(0), token=1)
    left = len(list(data.iterdir())) - 1
    assert table.clean_orphans(timedelta(hours=1), token=2).files == 0
    assert table.clean_orphans(timedelta(0), token=2).files == left
    assert len(list(data.iterdir())) == 1 and ids_of(table) == names(30)
    if when == "written":
        assert left == 1


def test_cleaning_touches_nothing_that_any_version_needs(tmp_path: Path) -> None:
    table = fenced(Store.open(str(tmp_path / "store")))
    add(table, names(30))
    first = table.version
    add(table, names(10), source_version="v2", replaces=names(10))
    table.delete_ids(names(5), token=1, properties={})
    waiting = table.write([batch(["in flight"])])
    assert table.clean_orphans(timedelta(hours=1), token=1).files == 0, "an age protects files in flight"
    table.commit(waiting, token=1, properties={})
    assert table.clean_orphans(timedelta(0), token=1).files == 0
    assert ids_of(table, first) == names(30) and len(ids_of(table)) == 26


def test_compaction_and_trimming_keep_rows_and_tagged_versions(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "store"))
    table = fenced(store)
    for k in range(12):
        add(table, names(10, start=10 * k))
    pinned = table.version
    store.swap("faces", "f" * 64, table.name, pinned, "run", token=1)
    add(table, ["new"], replaces=names(10))
    held = ids_of(table)
    assert table.compact(token=1) >= 12
    assert table.compact(token=1) == 0, "a compacted table is left alone"
    removed = table.trim_versions(keep=1, older_than=timedelta(0), token=1)
    assert removed.versions >= 10 and ids_of(table) == held
    assert ids_of(table, pinned) == names(120)
    assert table.trim_versions(keep=1, older_than=timedelta(hours=1), token=1).versions == 0
    table.fence(2)
    for clean in (
        lambda: table.compact(token=1),
        lambda: table.trim_versions(keep=1, older_than=timedelta(0), token=1),
    ):
        with pytest.raises(LeaseLost):
            clean()
