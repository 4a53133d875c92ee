"""Exactly once: writes are invisible until committed, replaced rows never show twice, stale tokens never commit."""

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lance.optimize import Compaction
from store_rows import DIM, add, batch, fenced, ids_of, names

from pipeline.store import commit as committing
from pipeline.store.engine import EngineError, is_conflict, lance
from pipeline.store.replace import replacing
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.batches import encoded_schema
from schemas.errors import LeaseLost, StoreError
from schemas.steps import IndexStep
from schemas.tables import RENDERS, RUNS


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return fenced(Store.open(str(tmp_path / "store")))


def source_versions(table: Table) -> dict[str, str]:
    rows = [r for b in table.scan(["id", "source_version"]) for r in b.to_pylist()]
    assert len({r["id"] for r in rows}) == len(rows), "an id came twice"
    return {r["id"]: r["source_version"] for r in rows}


def test_nothing_is_visible_before_the_commit(table: Table) -> None:
    before = table.version
    fragments = table.write([batch(names(10)), batch(names(10, start=10))])
    assert all(isinstance(f, str) for f in fragments)
    assert (table.version, table.count_rows()) == (before, 0)
    version = table.commit(fragments, token=1, properties={"run": "r"})
    assert (version, table.version, table.count_rows()) == (before + 1, before + 1, 20)


def test_no_rows_make_no_fragments_and_no_version(table: Table) -> None:
    before = table.version
    assert table.write([]) == () and table.write([batch([])]) == ()
    assert table.commit((), token=1, properties={}) == before
    assert table.delete_ids(["not there"], token=1, properties={}) == before
    assert table.version == before


def test_files_are_sized_by_bytes(table: Table) -> None:
    rows = batch(names(50_000), vectors=np.random.default_rng(0).normal(size=(50_000, DIM)))
    assert len(table.write([rows])) == 1
    fragments = table.write([rows], max_bytes_per_file=2**20)
    assert 3 <= len(fragments) <= 12
    table.commit(fragments, token=1, properties={})
    assert ids_of(table) == names(50_000)


def test_write_takes_the_encode_stage_batches(table: Table) -> None:
    rows = batch(names(5))
    front = [pa.array(range(5), pa.int64()), pa.nulls(5, pa.string()), pa.nulls(5, pa.string())]
    encoded = pa.RecordBatch.from_arrays([*front, *rows.columns], schema=encoded_schema(rows.schema))
    table.commit(table.write([encoded]), token=1, properties={})
    assert ids_of(table) == names(5)


def test_rows_that_do_not_fit_are_refused(table: Table) -> None:
    good = batch(names(2))
    with pytest.raises(StoreError, match="width"):
        table.write([good.drop_columns(["width"])])
    null = pa.nulls(2, pa.string())
    fields = [f.with_nullable(True) for f in good.schema]
    with pytest.raises(StoreError, match="uri may not be null"):
        table.write(
            [
                pa.RecordBatch.from_arrays(
                    [null if f.name == "uri" else good[f.name] for f in fields], schema=pa.schema(fields)
                )
            ]
        )
    wide = batch(names(2), vectors=np.zeros((2, DIM + 1)))
    with pytest.raises(StoreError, match="latent does not fit"):
        table.write([wide])
    assert table.count_rows() == 0


def test_what_the_source_raises_comes_through(table: Table) -> None:
    class Broken(Exception): ...

    def rows(before: int) -> Iterator[pa.RecordBatch]:
        yield from (batch(names(3, start=3 * k)) for k in range(before))
        raise Broken("the source died")

    for before in (0, 1, 4):
        with pytest.raises(Broken):
            table.write(rows(before))
    assert table.count_rows() == 0


def test_the_same_attempt_lands_once(table: Table) -> None:
    fragments = table.write([batch(names(10))])
    properties = {"attempt": uuid.uuid4().hex, "run": "r"}
    first = table.commit(fragments, token=1, properties=properties)
    add(table, ["another"])
    assert table.commit(fragments, token=1, properties=properties) == first
    assert table.count_rows() == 11
    written = table.ref.open().get_transactions(2)[1].transaction_properties
    assert written["run"] == "r" and written[committing.TOKEN] == "1"


def test_replace_swaps_old_rows_for_new_in_one_version(table: Table) -> None:
    add(table, names(100))
    add(table, names(100, start=100))
    before = table.version
    changed = [*names(3, start=10), *names(2, start=150), "new"]
    assert add(table, changed, source_version="v2", replaces=[*changed, "never there"]) == before + 1
    held = source_versions(table)
    assert {i for i, v in held.items() if v == "v2"} == set(changed) and len(held) == 201
    assert set(source_versions_at(table, before).values()) == {"v1"}


def source_versions_at(table: Table, version: int) -> dict[str, str]:
    return {
        r["id"]: r["source_version"]
        for b in table.scan(["id", "source_version"], version=version)
        for r in b.to_pylist()
    }


def test_replacing_a_whole_fragment_drops_it(table: Table) -> None:
    add(table, names(20))
    add(table, names(20), source_version="v2", replaces=names(20))
    assert set(source_versions(table).values()) == {"v2"} and table.count_rows() == 20
    assert len(table.ref.open().get_fragments()) == 1


def test_replacing_more_ids_than_a_filter_takes(table: Table) -> None:
    many = names(12_000)
    add(table, many)
    add(table, many[:6000], source_version="v2", replaces=many[:6000])
    held = source_versions(table)
    assert len(held) == 12_000 and all((held[i] == "v2") == (k < 6000) for k, i in enumerate(many))


def test_replace_with_indexes_and_rows_the_indexes_do_not_know(table: Table) -> None:
    add(table, names(600))
    table.build_vector_index(IndexStep(kind="ivf_flat", recall_queries=5), token=1)
    add(table, names(10, start=600))
    changed = [*names(5), *names(5, start=605)]
    add(table, changed, source_version="v2", replaces=changed)
    add(table, changed[:7], source_version="v3", replaces=changed[:7])
    held = source_versions(table)
    assert len(held) == 610 and sorted(held.values()).count("v3") == 7 and sorted(held.values()).count("v2") == 3
    assert table.take(changed, ["source_version"]).column(0).to_pylist() == ["v3"] * 7 + ["v2"] * 3
    near = table.search(np.asarray(batch(changed[:1]).column("latent")[0].as_py()), k=610).column("id").to_pylist()
    assert sorted(near) == sorted(held)


@given(st.lists(st.lists(st.integers(0, 15), max_size=6, unique=True), min_size=1, max_size=6))
def test_any_sequence_of_upserting_commits_holds_each_id_once(rounds: list[list[int]]) -> None:
    table = fenced(Store.open(f"memory://{uuid.uuid4().hex}"))
    model: dict[str, str] = {}
    for number, chosen in enumerate(rounds):
        ids = [f"i{c}" for c in chosen]
        add(table, ids, source_version=str(number), replaces=ids)
        model |= dict.fromkeys(ids, str(number))
    assert source_versions(table) == model


def test_a_reader_never_sees_an_image_with_no_or_two_rows(table: Table) -> None:
    ids = names(300)
    add(table, ids)
    stop, seen, wrong = threading.Event(), [], []

    def read() -> None:
        while not stop.is_set():
            rows = [r for b in table.scan(["id", "source_version"], batch_rows=50) for r in b.to_pylist()]
            seen.append(len({r["source_version"] for r in rows}))
            if sorted(r["id"] for r in rows) != ids:
                wrong.append(len(rows))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(25):
        add(table, ids[number::2], source_version=f"w{number}", replaces=ids[number::2])
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong and len(seen) > 20 and max(seen) > 1


def test_concurrent_commits_of_one_holder_all_land(table: Table) -> None:
    def work(k: int) -> None:
        for n in range(5):
            add(table, names(10, prefix=f"t{k}-{n}"))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table.count_rows() == 200 and len(set(ids_of(table))) == 200


def test_commits_need_the_newest_token(table: Table) -> None:
    fragments = table.write([batch(names(5))])
    with pytest.raises(StoreError, match="fence"):
        table.commit(fragments, token=2, properties={})
    table.fence(2)
    with pytest.raises(LeaseLost, match="token is 1, the table's is 2"):
        table.commit(fragments, token=1, properties={})
    with pytest.raises(LeaseLost):
        table.fence(1)
    with pytest.raises(LeaseLost):
        table.delete_ids(["a"], token=1, properties={})
    table.fence(2)
    table.commit(fragments, token=2, properties={})
    assert ids_of(table) == names(5)


def _with_column(dataset: Any) -> tuple[list[Any], Any]:
    rows = dataset.to_table(columns=["_rowid"])
    merged = [f.merge(rows.append_column("score", rows.column("_rowid")), "_rowid") for f in dataset.get_fragments()]
    return [f for f, _ in merged], merged[0][1]


def test_what_was_prepared_before_a_fence_cannot_land_after_it(table: Table) -> None:
    """The zombie's worst case: it passed every check, was paused before the last call, and wakes after the takeover."""
    add(table, names(12))
    add(table, names(8, start=12))
    zombie = table.ref.open()
    plan = Compaction.plan(zombie, {"target_rows_per_fragment": 1000})
    compacted = [task.execute(zombie) for task in plan.tasks]
    assert compacted
    new = [lance.fragment.FragmentMetadata.from_json(f) for f in table.write([batch(["zombie"])])]
    prepared = {
        "append": lance.LanceOperation.Append(new),
        "replace": replacing(zombie, new, names(5)),
        "replace nothing": lance.LanceOperation.Update(new_fragments=new),
        "fence": committing.barrier(zombie),
        "new columns": lance.LanceOperation.Merge(*_with_column(zombie)),
        "replaced columns": lance.LanceOperation.Update(
            updated_fragments=[f.metadata for f in zombie.get_fragments()], fields_modified=[0]
        ),
    }
    landing: dict[str, Callable[[], object]] = {
        name: partial(committing.commit_operation, zombie, operation, {}) for name, operation in prepared.items()
    }
    landing["compaction"] = partial(Compaction.commit, zombie, compacted)
    table.fence(2)
    # Among them the file of the compaction: a commit that named it would make the table unreadable.
    assert table.clean_orphans(timedelta(0), token=2).files
    for name, land in landing.items():
        with pytest.raises(EngineError) as raised:
            land()
        assert is_conflict(raised.value), name
    add(table, ["heir"], token=2)
    assert ids_of(table) == sorted([*names(20), "heir"])


@pytest.mark.parametrize("change", ["append", "replace", "delete", "compact"])
def test_a_stale_fence_undoes_nothing_and_is_tried_again(
    table: Table, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit of the old holder between the moment a fence looks and the moment it lands."""
    for k in range(2):
        add(table, names(10, start=10 * k))
    real, late = committing.barrier, []

    def barrier(dataset: Any) -> Any:
        operation = real(dataset)
        if not late:
            late.append(change)
            if change == "compact":
                # As a zombie's does: its token is stale by now, but it was looked at before.
                table.ref.open().optimize.compact_files(target_rows_per_fragment=1000)
            else:
                new = [lance.fragment.FragmentMetadata.from_json(f) for f in table.write([batch(["late"])])]
                gone = names(3) if change != "append" else []
                new = new if change != "delete" else []
                late_one = replacing(dataset, new, gone) if gone else lance.LanceOperation.Append(new)
                committing.commit_operation(dataset, late_one, {})
        return operation

    monkeypatch.setattr(committing, "barrier", barrier)
    table.fence(2)
    expected = names(20)[3 if change in ("replace", "delete") else 0 :]
    assert ids_of(table) == sorted([*expected, *(["late"] if change in ("append", "replace") else [])])


def test_a_fence_of_a_table_without_rows(table: Table) -> None:
    held = table.schema
    table.fence(2)
    add(table, names(3), token=2)
    table.delete_ids(names(3), token=2, properties={})
    table.fence(3)
    add(table, names(5), token=3)
    assert table.schema.equals(held, check_metadata=True) and ids_of(table) == names(5)


def test_a_fence_keeps_rows_indexes_and_schema(table: Table) -> None:
    add(table, names(300))
    table.build_vector_index(IndexStep(kind="ivf_flat", recall_queries=5), token=1)
    before, held = table.ref.open(), table.schema
    row_ids = before.to_table(columns=["_rowid", "id"])
    table.fence(7)
    after = table.ref.open()
    assert after.to_table(columns=["_rowid", "id"]) == row_ids
    assert table.schema.equals(held, check_metadata=True) and ids_of(table) == names(300)
    assert {i.name for i in after.describe_indices()} == {i.name for i in before.describe_indices()} != set()
    assert after.has_stable_row_ids
    assert [after.stats.index_stats(i)["num_unindexed_rows"] for i in ("id_idx", "latent_idx")] == [0, 0]


def test_upserts_of_the_same_keys_from_many_writers(tmp_path: Path) -> None:
    renders = Store.open(str(tmp_path / "s")).renders("faces")
    base = {f.name: None for f in RENDERS} | {"dataset": "faces", "fingerprint": "f", "parents": [], "operation": "{}"}
    base |= {"title": "t", "status": "done", "flags": [], "recipe": "r", "run_id": "r", "at": 0}

    def work(k: int) -> None:
        for _ in range(3):
            rows = [base | {"id": f"r{n}", "title": str(k)} for n in range(20)]
            renders.upsert(pa.Table.from_pylist(rows, RENDERS))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = [r for b in renders.scan(["id", "title"]) for r in b.to_pylist()]
    assert len(rows) == 20 == len({r["id"] for r in rows})


def test_upsert_updates_and_refuses_a_key_given_twice(tmp_path: Path) -> None:
    runs = Store.open(str(tmp_path / "s")).runs()
    row = dict.fromkeys(RUNS.names, "x") | {"run_id": "r1", "fingerprint": None, "started_at": 0, "ended_at": None}
    for state in ("running", "done"):
        assert runs.upsert(pa.Table.from_pylist([row | {"state": state}], RUNS)) == 1
    assert [b.to_pylist() for b in runs.scan(["run_id", "state"])] == [[{"run_id": "r1", "state": "done"}]]
    with pytest.raises(StoreError, match="same run_id"):
        runs.upsert(pa.Table.from_pylist([row, row], RUNS))


def test_upserts_keep_a_small_table_small(tmp_path: Path) -> None:
    runs = Store.open(str(tmp_path / "s")).runs()
    row = dict.fromkeys(RUNS.names, "x") | {"fingerprint": None, "started_at": 0, "ended_at": None}
    for n in range(140):
        runs.upsert(pa.Table.from_pylist([row | {"run_id": f"r{n % 3}"}], RUNS))
    assert runs.count_rows() == 3 and len(runs.ref.open().get_fragments()) < 70
