"""Columns computed for rows that are there: all or none, exactly once, and encoding goes on beside them."""

import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from store_rows import FINGERPRINT, add, batch, child, fenced, ids_of, line, names, schema

from pipeline.executors.local import LocalExecutor
from pipeline.store.column_spill import ColumnSpill
from pipeline.store.column_values import Computed
from pipeline.store.engine import lance
from pipeline.store.splits import ADDRESS
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.errors import LeaseLost, StoreError
from schemas.executor import LocalExecutor as LocalSpec
from schemas.steps import IndexStep
from schemas.tables import computed_field

SCORE = computed_field("anomaly", pa.float32(), by="diagnose")
RANK = computed_field("rank", pa.int64(), by="diagnose")


def number_of(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The digits of the id: a value that says which row it belongs to."""
    digits = pc.cast(pc.utf8_slice_codeunits(batch.column("id"), 4, 9), pa.int64())
    return pa.record_batch({"anomaly": pc.cast(digits, pa.float32()), "rank": digits})


def twice(batch: pa.RecordBatch) -> pa.RecordBatch:
    return pa.record_batch({"anomaly": pc.multiply(number_of(batch).column("anomaly"), 2)})


def score(compute: Any = number_of, fields: tuple[pa.Field, ...] = (SCORE,)) -> Computed:
    return Computed(fields, ("id",), compute)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Three fragments, with deleted rows in two of them and one whole fragment gone."""
    table = fenced(Store.open(str(tmp_path / "store")))
    for k in range(4):
        add(table, names(10, start=10 * k))
    table.delete_ids([*names(3, start=5), *names(2, start=18), *names(10, start=20)], token=1, properties={})
    return table


def held(table: Table, version: int | None = None) -> dict[str, Any]:
    return {r["id"]: r["anomaly"] for b in table.scan(["id", "anomaly"], version=version) for r in b.to_pylist()}


def expected(table: Table, times: float = 1) -> dict[str, float]:
    return {i: times * int(i[4:9]) for i in ids_of(table)}


def test_every_row_gets_its_own_value_in_one_version(table: Table) -> None:
    before, ids, latents = table.version, ids_of(table), _latents(table)
    assert table.put_columns(score(), token=1, properties={}) == before + 1
    assert held(table) == expected(table) and ids_of(table) == ids and len(ids) == 25
    assert _latents(table) == latents
    assert "anomaly" not in table.ref.open(before).schema.names
    assert table.computed_at() == ["anomaly"]
    assert table.count_rows("anomaly > 30.5") == 9


def _latents(table: Table) -> dict[str, Any]:
    return {r["id"]: (r["latent"], r["labels"]) for b in table.scan(["id", "latent", "labels"]) for r in b.to_pylist()}


@pytest.mark.parametrize("cores", [1, 2])
def test_workers_write_the_same(table: Table, cores: int) -> None:
    executor = LocalExecutor(LocalSpec(threads=cores))
    table.put_columns(score(), token=1, properties={}, fold=executor.reduce)
    assert held(table) == expected(table)


def test_again_replaces(table: Table) -> None:
    table.put_columns(score(), token=1, properties={})
    before = table.version
    table.put_columns(score(twice), token=1, properties={})
    assert held(table) == expected(table, 2) and held(table, before) == expected(table)
    assert table.version == before + 1


def test_a_column_that_is_there_and_one_that_is_not(table: Table) -> None:
    table.put_columns(score(twice), token=1, properties={})
    table.put_columns(score(fields=(SCORE, RANK)), token=1, properties={})
    assert held(table) == expected(table)
    assert table.count_rows("rank = anomaly") == 25


def test_a_type_that_is_not_the_tables_is_refused(table: Table) -> None:
    table.put_columns(score(), token=1, properties={})
    wrong = computed_field("anomaly", pa.string(), by="diagnose")
    with pytest.raises(StoreError, match="of type float; string was to be written"):
        table.put_columns(score(fields=(wrong,)), token=1, properties={})
    with pytest.raises(StoreError, match="not marked as computed"):
        table.put_columns(score(fields=(pa.field("other", pa.float32()),)), token=1, properties={})


def test_encoding_goes_on_beside_a_computed_column(table: Table) -> None:
    early = table.write([batch(["written before"])])
    table.put_columns(score(), token=1, properties={})
    table.create(schema())  # encode's check of the columns
    table.commit(early, token=1, properties={})
    add(table, ["written after"])
    add(table, names(2), source_version="v2", replaces=names(2))
    values = held(table)
    assert {i for i, v in values.items() if v is None} == {"written before", "written after", *names(2)}
    assert values[names(3)[2]] == 2
    table.put_columns(score(lambda b: pa.record_batch({"anomaly": pa.array([7.0] * len(b))})), token=1, properties={})
    assert set(held(table).values()) == {7.0}


def test_compacting_indexing_and_searching_keep_the_column(table: Table) -> None:
    table.put_columns(score(), token=1, properties={})
    add(table, names(5, start=90))
    table.build_vector_index(IndexStep(kind="flat"), token=1)
    table.put_columns(score(), token=1, properties={})
    assert table.compact(token=1) and held(table) == expected(table)
    table.put_columns(score(twice), token=1, properties={})
    assert held(table) == expected(table, 2)
    add(table, ["after a compaction that moved indexes"])
    found = table.search(np.zeros(8), k=3, where="anomaly > 170")
    assert len(found) == 3 and min(found.column("anomaly").to_pylist()) > 170


@dataclass(frozen=True)
class Some:
    """Other labels for chosen rows."""

    ids: tuple[str, ...]
    fields: tuple[pa.Field, ...] = (schema().field("labels"),)

    def of(self, fragment: Any) -> Iterator[pa.RecordBatch]:
        for rows in fragment.scanner(columns=["id"], with_row_address=True).to_batches():
            rows = rows.filter(pc.is_in(rows.column("id"), pa.array(self.ids)))
            if rows.num_rows:
                labels = [{"smiling": None, "age": 0.25, "hair": "green", "5_o_Clock_Shadow": True}] * rows.num_rows
                yield pa.record_batch(
                    {ADDRESS: rows.column(ADDRESS), "labels": pa.array(labels, self.fields[0].type)},
                )


def test_some_rows_of_a_column_are_replaced_and_its_indexes_know(table: Table) -> None:
    table.build_vector_index(IndexStep(kind="ivf_flat", recall_queries=5), token=1)
    before, version = _latents(table), table.version
    chosen = (names(1)[0], *names(2, start=31))
    table.put_columns(Some(chosen), token=1, properties={})
    assert table.version == version + 1
    after = _latents(table)
    assert {i for i in after if after[i][1]["hair"] == "green"} == set(chosen)
    assert {i: v for i, v in after.items() if i not in chosen} == {i: v for i, v in before.items() if i not in chosen}
    assert [after[i][0] for i in chosen] == [before[i][0] for i in chosen]
    assert table.count_rows("labels.hair = 'green'") == 3 and table.count_rows("labels.smiling IS NULL") == 3
    smiling = sum(v[1]["smiling"] is True for v in after.values())
    assert table.count_rows("labels.smiling = true") == smiling
    stats = table.ref.open().stats.index_stats("latent_idx")
    assert (stats["num_indexed_rows"], stats["num_unindexed_rows"]) == (25, 0), "the vector index forgets nothing"


def test_the_same_attempt_lands_once(table: Table) -> None:
    attempt = {"attempt": uuid.uuid4().hex}
    first = table.put_columns(score(), token=1, properties=attempt)
    assert table.put_columns(score(twice), token=1, properties=attempt) == first
    assert held(table) == expected(table)


def test_a_stale_token_writes_nothing(table: Table) -> None:
    table.fence(2)
    with pytest.raises(LeaseLost):
        table.put_columns(score(), token=1, properties={})

    def overtaken(batch: pa.RecordBatch) -> pa.RecordBatch:
        table.fence(4)
        return number_of(batch)

    for compute in (score(overtaken), score(overtaken, (SCORE, RANK))):
        with pytest.raises(LeaseLost):
            table.put_columns(compute, token=2, properties={})
    assert table.computed_at() == []


def test_rows_that_change_meanwhile_are_noticed(table: Table) -> None:
    def beside(batch: pa.RecordBatch) -> pa.RecordBatch:
        if table.count_rows("id = 'beside'") == 0:
            add(table, ["beside"])
        return number_of(batch)

    with pytest.raises(StoreError, match="changed while columns were computed"):
        table.put_columns(score(beside), token=1, properties={})
    assert table.computed_at() == []


@pytest.mark.parametrize("new", [True, False])
def test_rows_that_moved_since_their_addresses_were_read_are_noticed(table: Table, new: bool) -> None:
    """Another client compacts the table between reading where rows lie and writing: nothing would match, and nobody would say so."""
    if not new:
        table.put_columns(score(twice), token=1, properties={})
    version = table.version
    with ColumnSpill((SCORE,)) as spill:
        for batch in table.scan(["id", ADDRESS]):
            spill.add(number_of(batch).append_column(ADDRESS, batch.column(ADDRESS)))
        table.ref.open().optimize.compact_files()
        with pytest.raises(StoreError, match="changed while columns were computed"):
            table.put_columns(spill, token=1, properties={}, version=version, rows=spill.rows)
        with pytest.raises(StoreError, match=r"25 values were computed .* but 0 of them have a row"):
            table.put_columns(spill, token=1, properties={}, rows=spill.rows)
    assert table.computed_at() == ([] if new else ["anomaly"])
    assert new or held(table) == expected(table, 2)


def test_addresses_still_hold_after_an_index_was_built(table: Table) -> None:
    table.put_columns(score(twice), token=1, properties={})
    version = table.version
    with ColumnSpill((SCORE, RANK)) as spill:
        for batch in table.scan(["id", ADDRESS], batch_rows=3):  # several batches for one fragment
            spill.add(number_of(batch).append_column(ADDRESS, batch.column(ADDRESS)))
        table.build_vector_index(IndexStep(kind="flat"), token=1)
        table.put_columns(spill, token=1, properties={}, version=version, rows=spill.rows)
    assert held(table) == expected(table) and table.count_rows("rank = anomaly") == 25


def test_what_the_computation_raises_comes_through(table: Table) -> None:
    def short(batch: pa.RecordBatch) -> pa.RecordBatch:
        return number_of(batch).slice(1)

    with pytest.raises(StoreError, match=r"10 rows were given, but 9|7 rows were given, but 6"):
        table.put_columns(score(short), token=1, properties={})
    assert table.computed_at() == []


def test_an_empty_table_stays_as_it_is(tmp_path: Path) -> None:
    table = fenced(Store.open(str(tmp_path / "store")))
    before = table.version
    assert table.put_columns(score(), token=1, properties={}) == before


WRITER = """
import sys, time
from store_rows import *
from test_store_columns import score, number_of
store = Store.open(sys.argv[1])
table = store.latents("faces", FINGERPRINT)
from pipeline.store import columns
def stop(*_):
    print("written", flush=True)
    time.sleep(600)
columns.persist = stop
table.put_columns(score(), token=1, properties={})
"""


@pytest.mark.fault
def test_a_writer_killed_before_its_commit_leaves_nothing_to_see(table: Table, tmp_path: Path) -> None:
    before, data = table.version, Path(table.uri) / "data"
    files = set(data.iterdir())
    with child(WRITER, table.ref.store) as writer:
        assert line(writer) == "written"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert table.version == before and table.computed_at() == [] and len(set(data.iterdir()) - files) == 3
    again = Store.open(table.ref.store).latents("faces", FINGERPRINT)
    again.fence(2)
    assert again.clean_orphans(timedelta(0), token=2).files == 3
    again.put_columns(score(), token=2, properties={})
    assert held(again) == expected(again)
    assert again.clean_orphans(timedelta(0), token=2).files == 0


def test_an_answer_that_is_lost_is_found_again(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store accepts the commit, and the connection breaks before it says so."""
    real, broken = lance.LanceDataset.commit, []

    def commit(*args: Any, **kwargs: Any) -> Any:
        done = real(*args, **kwargs)
        if not broken:
            broken.append(done.version)
            raise OSError("LanceError(IO): connection reset")
        return done

    monkeypatch.setattr(lance.LanceDataset, "commit", staticmethod(commit))
    version = table.put_columns(score(), token=1, properties={})
    assert version == broken[0] == table.version and held(table) == expected(table)
