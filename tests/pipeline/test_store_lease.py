"""One committer a dataset: who is refused, who takes over, and what a zombie can still do (nothing)."""

import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from store_rows import FINGERPRINT, add, batch, child, fenced, ids_of, line, names, wait_until

from pipeline.store.lease import Lease, read_lease
from pipeline.store.process import Process, is_gone, this_process
from pipeline.store.store import LEASES as TABLE
from pipeline.store.store import Store
from schemas.errors import LeaseHeld, LeaseLost
from schemas.tables import LEASES

HOLD = """
import sys, time
from store_rows import *
store = Store.open(sys.argv[1])
with store.lease("faces", run_id="child", ttl_seconds=float(sys.argv[2])) as lease:
    table = fenced(store, lease.token)
    add(table, names(10), token=lease.token)
    late = table.write([batch(["late"])])
    print(lease.token, flush=True)
    time.sleep(float(sys.argv[3]))
    try:
        print("committed", table.commit(late, token=lease.token, properties={}), flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
    try:
        lease.check()
        print("held", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


def foreign(store: Store, *, expires: timedelta, token: int = 4) -> None:
    """A lease row as a run on another machine would have left it."""
    with store.lease("other", run_id="x"):
        pass  # makes the table
    now = datetime.now(UTC)
    row = {"dataset": "faces", "token": token, "holder": "far-run", "host": "far-host", "pid": 1}
    row |= {"process": "another-boot:pid[1]:99", "since": now, "expires": now + expires}
    store.table(TABLE).upsert(pa.Table.from_pylist([row], LEASES))


def test_the_second_is_told_who_holds_it(store: Store) -> None:
    with store.lease("faces", run_id="first") as lease:
        assert lease.token == 1
        lease.check()
        with pytest.raises(LeaseHeld) as raised, store.lease("faces", run_id="second"):
            raise AssertionError("entered")
        said = str(raised.value)
        for part in (
            "faces",
            store.uri,
            "first",
            this_process().host,
            str(os.getpid()),
            "since 20",
            "until 20",
            "Fix:",
        ):
            assert part in said
        with store.lease("digits", run_id="second") as other:
            assert other.token == 1
    with store.lease("faces", run_id="second") as lease:
        assert lease.token == 2


def test_a_failing_block_gives_the_lease_back(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.lease("faces", run_id="r"):
        1 / 0  # noqa: B018
    with store.lease("faces", run_id="next") as lease:
        assert lease.token == 2


def test_of_many_that_want_it_one_gets_it(store: Store) -> None:
    won, refused = [], []
    hold, start = threading.Event(), threading.Barrier(6)

    def want(k: int) -> None:
        start.wait()
        try:
            with store.lease("faces", run_id=f"run{k}") as lease:
                won.append(lease.token)
                hold.wait(20)
        except LeaseHeld as error:
            refused.append(str(error))

    threads = [threading.Thread(target=want, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(won) + len(refused) == 6)
    hold.set()
    for thread in threads:
        thread.join()
    assert won == [1] and len(refused) == 5


def test_it_is_renewed_while_held(store: Store) -> None:
    with store.lease("faces", run_id="r", ttl_seconds=0.6) as lease:
        first = read_lease(store.table(TABLE).ref, "faces")
        time.sleep(1.5)
        later = read_lease(store.table(TABLE).ref, "faces")
        assert first and later and later.expires > first.expires and not later.free
        lease.check()


def test_another_hosts_lease_counts_until_it_expires(store: Store) -> None:
    foreign(store, expires=timedelta(seconds=60))
    with pytest.raises(LeaseHeld, match=r"far-run on host far-host \(pid 1\)"), store.lease("faces", run_id="r"):
        pass
    foreign(store, expires=timedelta(seconds=-0.001))
    with store.lease("faces", run_id="r") as lease:
        assert lease.token == 5


def test_a_lease_renewed_after_we_looked_is_not_taken(store: Store) -> None:
    """The holder was slow, not dead: its renewal and our takeover race, and the row we judged is no longer there."""
    foreign(store, expires=timedelta(seconds=-1))
    leases = store.table(TABLE).ref
    judged = read_lease(leases, "faces")
    foreign(store, expires=timedelta(seconds=60))
    assert judged is not None and judged.free
    assert not store.lease("faces", run_id="r")._take(judged, datetime.now(UTC))
    held = read_lease(leases, "faces")
    assert held is not None and (held.holder, held.token) == ("far-run", 4)


def test_a_holder_that_lost_its_row_stops(store: Store) -> None:
    with store.lease("faces", run_id="r", ttl_seconds=0.3) as lease:
        foreign(store, expires=timedelta(seconds=60), token=9)
        wait_until(lambda: _lost(lease))
    row = read_lease(store.table(TABLE).ref, "faces")
    assert row is not None and row.holder == "far-run", "leaving the block freed somebody else's lease"


def _lost(lease: Lease) -> bool:
    try:
        lease.check()
    except LeaseLost as error:
        return "took it over" in str(error)
    return False


def test_process_marks() -> None:
    me = this_process()
    assert me.mark and not is_gone(me)
    assert is_gone(Process(me.host, me.pid, me.mark.rpartition(":")[0] + ":1")), "the number was reused"
    assert not is_gone(Process("far", 1, "another-boot:pid[1]:5")), "another machine's processes cannot be seen"
    assert not is_gone(Process(me.host, me.pid, "")), "no mark, no verdict"


@pytest.mark.fault
def test_a_killed_holders_lease_is_taken_over_at_once(store: Store) -> None:
    with child(HOLD, store.uri, 600, 600) as holder:
        assert line(holder) == "1"
        with pytest.raises(LeaseHeld, match=f"pid {holder.pid}"), store.lease("faces", run_id="r"):
            pass
        # Not even reaped yet: a zombie in the system's sense runs no code, so its lease is free.
        holder.send_signal(signal.SIGKILL)
        wait_until(lambda: is_gone_pid(store))
        started = time.monotonic()
        with store.lease("faces", run_id="r") as lease:
            assert lease.token == 2 and time.monotonic() - started < 5
            table = fenced(store, lease.token)
            add(table, ["after"], token=lease.token)
    assert ids_of(table) == sorted([*names(10), "after"])


def is_gone_pid(store: Store) -> bool:
    row = read_lease(store.table(TABLE).ref, "faces")
    return row is not None and row.free


@pytest.mark.fault
@pytest.mark.slow
def test_a_zombie_cannot_commit(store: Store) -> None:
    """Paused (SIGSTOP) past its expiry, taken over, woken up: its commit is refused and it learns why."""
    with child(HOLD, store.uri, 3, 4) as zombie:
        assert line(zombie) == "1"
        zombie.send_signal(signal.SIGSTOP)
        with pytest.raises(LeaseHeld), store.lease("faces", run_id="r"):
            pass
        wait_until(lambda: is_gone_pid(store))
        with store.lease("faces", run_id="heir") as lease:
            assert lease.token == 2
            table = store.latents("faces", FINGERPRINT)
            table.fence(lease.token)
            add(table, ["late"], token=lease.token, source_version="heir")
            zombie.send_signal(signal.SIGCONT)
            assert line(zombie) == "LeaseLost"
            assert line(zombie) == "LeaseLost"
            lease.check()
            add(table, ["more"], token=lease.token)
    assert ids_of(table) == sorted([*names(10), "late", "more"])
    assert table.take(["late"], ["source_version"]).column(0).to_pylist() == ["heir"]


def test_writing_needs_no_lease_but_shows_nothing(store: Store) -> None:
    with store.lease("faces", run_id="r") as lease:
        table = fenced(store, lease.token)
        table.write([batch(names(3))])
    assert table.count_rows() == 0
