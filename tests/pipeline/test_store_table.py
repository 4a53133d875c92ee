"""Opening stores and tables, reading them, and what is said when something is wrong."""

import pickle
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from store_rows import FINGERPRINT, add, batch, child, fenced, ids_of, line, names, schema

from pipeline.store.address import ascii_name, store_uri
from pipeline.store.create import make
from pipeline.store.engine import EngineError
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.errors import JobError, StoreError
from schemas.tables import PRIMARY_KEY, latent_spec


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "store"))


@pytest.fixture
def table(store: Store) -> Table:
    table = fenced(store)
    add(table, names(100))
    add(table, names(50, start=100))
    return table


def test_paths_become_absolute_and_other_schemes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_uri("out/store/") == store_uri(f"file://{tmp_path}/out/store") == f"{tmp_path}/out/store"
    assert store_uri("s3://bucket/a/") == "s3://bucket/a"
    for bad in ("http://host/x", "db://cloud", ""):
        with pytest.raises(StoreError, match="Fix:"):
            store_uri(bad)


def test_table_names_fit_lancedb_and_never_meet() -> None:
    store = Store("/x")
    datasets = ["faces", "a.b", "a", "visages_été", "faces.latents.0123456789abcdef"]
    tables = [
        t for d in datasets for t in (store.latents(d, FINGERPRINT), store.failures(d, FINGERPRINT), store.renders(d))
    ]
    assert len({t.name for t in tables}) == len(tables)
    assert all(t.name.isascii() and set("/\\ ").isdisjoint(t.name) for t in tables)
    assert ascii_name("faces") == "faces"


def test_open_writes_nothing_and_create_false_wants_a_store(tmp_path: Path) -> None:
    uri = tmp_path / "none"
    store = Store.open(str(uri))
    assert not uri.exists() and not Store.is_there(str(uri)) and store.datasets() == []
    assert not store.runs().exists() and store.current("faces") is None
    with pytest.raises(StoreError, match=str(uri)):
        Store.open(str(uri), create=False)
    with store.lease("faces", run_id="r"):
        pass
    assert Store.open(str(uri), create=False) == store


def test_a_file_where_the_store_should_be(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(StoreError, match=str(tmp_path)):
        fenced(Store.open(str(tmp_path / "store")))


def test_lancedb_opens_the_tables_by_name(store: Store, table: Table) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lancedb

        opened = lancedb.connect(store.uri).open_table(table.name)
    assert opened.count_rows("labels.smiling = true") == table.count_rows("labels.smiling = true") == 75
    assert opened.to_arrow().column("id").to_pylist() == names(150)


def test_the_schema_comes_back_whole(table: Table) -> None:
    held = table.schema
    assert held.equals(schema(), check_metadata=False)
    assert held.metadata[b"fingerprint"] == b"ab"
    assert latent_spec(held.field("latent")).space == "z"
    assert held.field("id").metadata == PRIMARY_KEY


def test_create_again_checks_the_columns(table: Table) -> None:
    table.create(schema())
    with pytest.raises(StoreError, match=r"latent \(.*8.*there.*16.*wanted"):
        table.create(schema(16))


def test_making_a_table_never_replaces_one(table: Table) -> None:
    """What Lance's own `create` does when another process was faster: it overwrites the table."""
    with pytest.raises(EngineError):
        make(table.ref, schema())
    assert ids_of(table) == names(150)


def test_many_make_the_same_table_at_once(tmp_path: Path) -> None:
    stores = [Store.open(str(tmp_path / f"s{n}")) for n in range(15)] + [Store.open("memory://many_make")]
    for store in stores:
        start = threading.Barrier(4)

        def work(k: int, store: Store = store, start: threading.Barrier = start) -> None:
            start.wait()
            add(fenced(store), names(3, prefix=f"t{k}"))

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ids_of(store.latents("faces", FINGERPRINT)) == [i for k in range(4) for i in names(3, prefix=f"t{k}")]


def test_scan_by_version_limit_and_filter(table: Table) -> None:
    first = table.version - 1
    assert ids_of(table, first) == names(100) and ids_of(table) == names(150)
    assert sum(b.num_rows for b in table.scan(["id"], limit=7)) == 7
    batches = list(table.scan(["id", "labels.smiling"], where="labels.smiling = true", batch_rows=16))
    assert sum(b.num_rows for b in batches) == 75 and max(b.num_rows for b in batches) <= 16
    assert next(table.scan()).schema.names == schema().names
    with pytest.raises(StoreError, match="version 99"):
        table.scan(version=99)


def test_take_keeps_order_and_names_what_is_missing(table: Table) -> None:
    asked = ["img/00120.jpg", "img/00003.jpg", "img/00120.jpg"]
    taken = table.take(asked, ["id", "latent"])
    assert taken.column("id").to_pylist() == asked
    wanted = [list(batch([i]).column("latent")[0].as_py()) for i in asked]
    np.testing.assert_array_equal(np.array(taken.column("latent").to_pylist()), np.array(wanted))
    assert table.take([], ["id"]).num_rows == 0
    with pytest.raises(JobError, match="no/such"):
        table.take(["img/00003.jpg", "no/such.jpg"], ["id"])
    with pytest.raises(JobError, match="did you mean `latent`"):
        table.take(["img/00003.jpg"], ["latnt"])


def test_row_ids_are_stable_and_can_be_taken(table: Table) -> None:
    rows = {
        r["id"]: r["_rowid"] for b in table.scan(["id", "_rowid"], where="labels.smiling = true") for r in b.to_pylist()
    }
    split = table.splits(columns=["_rowid", "id"], where="labels.smiling = true")
    assert {r["id"]: r["_rowid"] for b in split.read(0) for r in b.to_pylist()} == rows
    version = table.version
    add(table, names(20), replaces=names(20))
    asked = ["img/00140.jpg", "img/00030.jpg", "img/00140.jpg"]
    assert table.take_rows([rows[i] for i in asked], ["id"]).column("id").to_pylist() == asked
    assert table.take_rows([rows["img/00002.jpg"]], ["id"], version).column("id").to_pylist() == ["img/00002.jpg"]


def test_take_of_very_many_ids(table: Table) -> None:
    many = names(6000, prefix="many")
    add(table, many)
    assert table.take(many[::-1], ["id"]).column("id").to_pylist() == many[::-1]


def test_ids_with_quotes(table: Table) -> None:
    odd = ["it's.jpg", 'say "x".jpg', "semi;colon -- .jpg"]
    add(table, odd)
    assert table.take(odd, ["id"]).column("id").to_pylist() == odd
    table.delete_ids(odd[:1], token=1, properties={})
    assert ids_of(table) == sorted(names(150) + odd[1:])


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("labels.smilng = true", "did you mean `labels.smiling`"),
        ("smiling = true", "write labels.smiling"),
        ("widht > 3", "did you mean `width`"),
        ("labels.5_o_Clock_Shadow = true", "write labels.`5_o_Clock_Shadow`"),
        ("labels.smiling = ", "labels.smiling = "),
        ("labels.age < 'abc'", "labels.age < 'abc'"),
        ("labels.age", "does not return a boolean"),
        ("labels.smiling = true) OR (true", "not closed"),
        ("labels.smiling = true; DROP", "not closed"),
        ("id = 'it", "not closed"),
        ("", "not a filter"),
    ],
)
def test_a_wrong_filter_is_a_job_error_that_names_it(table: Table, where: str, said: str) -> None:
    for ask in (table.count_rows, table.clause, lambda w: table.scan(where=w)):
        with pytest.raises(JobError) as raised:
            ask(where)
        assert said in str(raised.value) and raised.value.problems[0].field == "where"
        assert ".rs:" not in str(raised.value)


def test_filters_over_labels_and_sizes(table: Table) -> None:
    assert table.count_rows("id != 'a);(b' AND (labels.`5_o_Clock_Shadow` OR id = 'it''s (')") == 51
    assert table.count_rows("labels.`5_o_Clock_Shadow` = true AND width = 64") == 34 + 17
    assert table.count_rows("labels.hair = 'r' OR labels.age IS NULL") == 75


@pytest.mark.parametrize("rows", [1, 7, 64, 10_000])
@pytest.mark.parametrize("where", [None, "labels.smiling = true", "labels.smiling = true OR width > 1000"])
def test_splits_cover_every_row_once(table: Table, rows: int, where: str | None) -> None:
    table.delete_ids(["img/00004.jpg", "img/00007.jpg", "img/00149.jpg"], token=1, properties={})
    splits = table.splits(columns=["id", "latent"], where=where, rows=rows)
    again = table.splits(columns=["id", "latent"], where=where, rows=rows)
    assert splits == again and pickle.loads(pickle.dumps(splits)) == splits
    read = [i for k in range(len(splits)) for b in splits.read(k) for i in b.column("id").to_pylist()]
    assert read == [i for b in table.scan(["id"], where=where) for i in b.column("id").to_pylist()]
    assert splits.rows == len(read)
    assert len(splits) <= 150 // rows + 4


def test_splits_stay_at_their_version(table: Table) -> None:
    splits = pickle.loads(pickle.dumps(table.splits(columns=["id"], rows=40)))
    table.delete_ids(names(100), token=1, properties={})
    assert sum(b.num_rows for k in range(len(splits)) for b in splits.read(k)) == 150 == splits.rows
    assert [b.to_pydict() for b in splits.read(1)] == [b.to_pydict() for b in splits.read(1)]


def test_splits_of_an_empty_table(store: Store) -> None:
    splits = fenced(store).splits(columns=["id"])
    assert len(splits) == 0 and splits.rows == 0


def test_sample_is_stable_and_grows(table: Table) -> None:
    few, more = table.sample_ids(10, salt="s"), table.sample_ids(40, salt="s")
    assert more[:10] == few and len(set(more)) == 40
    assert table.sample_ids(10, salt="t") != few
    assert sorted(table.sample_ids(1000, salt="s")) == names(150)
    smiling = table.sample_ids(5, salt="s", where="labels.smiling = true")
    assert set(smiling) <= {i for b in table.scan(["id"], where="labels.smiling = true") for i in b["id"].to_pylist()}


def test_memory_stores_work_in_one_process_only(tmp_path: Path) -> None:
    store = Store.open("memory://test_store_table")
    with store.lease("faces", run_id="r") as lease:
        table = fenced(store, lease.token)
        add(pickle.loads(pickle.dumps(table)), names(3), token=lease.token)
    assert ids_of(table) == names(3)
    (tmp_path / "table").write_bytes(pickle.dumps(table))
    code = "import pickle, sys\ntable = pickle.load(open(sys.argv[1], 'rb'))\ntry: table.exists()\nexcept Exception as e: print(e)"
    with child(code, tmp_path / "table") as other:
        assert "memory of another process" in line(other)


def test_the_engine_writes_nothing_to_the_terminal(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pipeline.store.store import Store\nfrom store_rows import *\n"
        "store = Store.open(sys.argv[1])\n"
        "with store.lease('faces', run_id='r') as lease:\n"
        "    table = fenced(store, lease.token); add(table, names(5), token=lease.token); table.exists()\n"
    )
    with child(code, tmp_path / "store") as process:
        assert process.communicate() == ("", "")


def test_secrets_stay_out_of_texts() -> None:
    store = Store("s3://bucket/x", {"aws_secret_access_key": "hush"})
    assert "hush" not in repr(store) + repr(store.runs()) + str(store.runs().ref)


def test_a_table_that_is_not_there_says_so(store: Store) -> None:
    missing = store.latents("faces", FINGERPRINT)
    assert not missing.exists()
    for ask in (missing.count_rows, lambda: missing.version, lambda: missing.write([batch(["a"])])):
        with pytest.raises(StoreError, match=missing.name):
            ask()
