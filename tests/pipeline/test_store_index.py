"""Indexes that are measured, searches that find what was added later, and exact neighbours to measure against."""

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_rows import add, batch, fenced, names

from pipeline.store import index
from pipeline.store.index import sub_vectors
from pipeline.store.query import FLAT, search, settings_of
from pipeline.store.recall import distances, exact_neighbours, recall
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.errors import JobError, LeaseLost, SpaceMismatch
from schemas.steps import IndexStep

DIM = 16


def clustered(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(40, DIM)) * 4
    return (centres[rng.integers(0, 40, count)] + rng.normal(size=(count, DIM))).astype(np.float32)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    table = fenced(Store.open(str(tmp_path / "store")), dim=DIM)
    add(table, names(3000), vectors=clustered(3000))
    return table


def truth(table: Table, vector: np.ndarray, k: int, metric: str = "l2", where: str | None = None) -> list[str]:
    rows = pa.Table.from_batches(list(table.scan(["id", "latent"], where=where)))
    vectors = np.array(rows.column("latent").to_pylist())
    near = distances(vector[None].astype(float), vectors, metric)[0]
    return [rows.column("id")[int(i)].as_py() for i in np.argsort(near, kind="stable")[:k]]


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("kind", ["ivf_flat", "ivf_hnsw_sq", "ivf_pq"])
def test_recall_is_measured_and_searches_use_what_was_measured(table: Table, kind: str, metric: str) -> None:
    report = table.build_vector_index(IndexStep(kind=kind, metric=metric, recall_queries=40), token=1)
    assert (report.kind, report.metric, report.how, report.rows, report.queries) == (kind, metric, "built", 3000, 40)
    assert report.recall > 0.9 and report.seconds > 0
    settings = settings_of(table.ref.open())
    assert (settings.kind, settings.nprobes, settings.refine) == (kind, report.nprobes, report.refine)
    query = clustered(1, seed=5)[0]
    found = table.search(query, k=10)
    assert found.column("_distance").to_pylist() == sorted(found.column("_distance").to_pylist())
    assert len(set(found.column("id").to_pylist()) & set(truth(table, query, 10, metric))) >= 7
    exact = table.search(query, k=10, exact=True)
    assert exact.column("id").to_pylist() == truth(table, query, 10, metric)


def test_auto_is_flat_on_small_tables_and_flat_is_exact(table: Table) -> None:
    report = table.build_vector_index(IndexStep(), token=1)
    assert (report.kind, report.how, report.recall, report.queries) == ("flat", "none", 1.0, 0)
    query = clustered(1, seed=3)[0]
    assert table.search(query, k=5).column("id").to_pylist() == truth(table, query, 5)
    np.testing.assert_allclose(
        table.search(query, k=1).column("_distance")[0].as_py(),
        ((np.array(table.take(truth(table, query, 1), ["latent"]).column(0)[0].as_py()) - query) ** 2).sum(),
        rtol=1e-5,
    )


def test_rows_added_after_the_index_are_found(table: Table) -> None:
    table.build_vector_index(IndexStep(kind="ivf_hnsw_sq", recall_queries=10), token=1)
    late = clustered(20, seed=8)
    add(table, names(20, prefix="late"), vectors=late)
    for k in (0, 7, 19):
        assert table.search(late[k], k=1).column("id").to_pylist() == [f"late/{k:05d}.jpg"]
    assert table.count_rows("id = 'late/00007.jpg'") == 1


def test_a_second_index_step_keeps_extends_or_builds(table: Table) -> None:
    step = IndexStep(kind="ivf_flat", recall_queries=10)
    assert [table.build_vector_index(step, token=1).how for _ in range(2)] == ["built", "kept"]
    add(table, names(100, prefix="late"), vectors=clustered(100, seed=1))
    assert table.build_vector_index(step, token=1).how == "extended"
    stats = table.ref.open().stats
    assert (
        stats.index_stats("latent_idx")["num_unindexed_rows"] == stats.index_stats("id_idx")["num_unindexed_rows"] == 0
    )
    assert table.build_vector_index(step.model_copy(update={"metric": "cosine"}), token=1).how == "built"
    add(table, names(2000, prefix="many"), vectors=clustered(2000, seed=2))
    assert table.build_vector_index(step.model_copy(update={"metric": "cosine"}), token=1).how == "built"
    assert table.build_vector_index(IndexStep(kind="flat"), token=1).how == "none"
    held = table.ref.open()
    assert settings_of(held) == FLAT and "latent_idx" not in {i.name for i in held.describe_indices()}


def test_searches_after_replacing_rows_see_the_new_vectors_only(table: Table) -> None:
    table.build_vector_index(IndexStep(kind="ivf_flat", recall_queries=10), token=1)
    moved = np.full((5, DIM), 100, np.float32)
    old = np.array(table.take(names(1), ["latent"]).column(0)[0].as_py())
    add(table, names(5), vectors=moved, replaces=names(5))
    assert sorted(table.search(moved[0], k=5).column("id").to_pylist()) == names(5)
    assert table.search(old, k=3000).column("id").to_pylist().count(names(1)[0]) == 1
    assert table.search(old, k=1).column("id").to_pylist() != names(1)


def test_indexes_outlive_compaction(table: Table) -> None:
    for k in range(4):
        add(table, names(100, prefix=f"p{k}"), vectors=clustered(100, seed=10 + k))
    table.build_vector_index(IndexStep(kind="ivf_hnsw_sq", recall_queries=10), token=1)
    query = clustered(1, seed=12)[0]
    before = table.search(query, k=30)
    assert table.compact(token=1) == 5
    held = table.ref.open()
    assert held.stats.index_stats("latent_idx")["num_unindexed_rows"] == 0
    assert table.search(query, k=30).select(["id", "_distance"]).equals(before.select(["id", "_distance"]))
    assert table.count_rows("id = 'p3/00007.jpg' AND labels.age < 0.08") == 1


def test_filters_apply_before_the_search(table: Table) -> None:
    table.build_vector_index(IndexStep(kind="ivf_flat", recall_queries=10), token=1)
    query = clustered(1, seed=4)[0]
    where = "labels.smiling = true AND labels.age < 0.02"
    found = table.search(query, k=25, where=where)
    assert found.column("id").to_pylist() == truth(table, query, 25, where=where)
    assert all(r["smiling"] and r["age"] < 0.02 for r in found.column("labels").to_pylist())
    with pytest.raises(JobError, match="where"):
        table.search(query, k=3, where="labels.smilng = true")


def test_labels_are_indexed_but_for_names_the_engine_chokes_on(table: Table) -> None:
    report = table.build_vector_index(IndexStep(), token=1)
    assert report.scalar == ("id", "labels.age", "labels.hair", "labels.smiling")
    assert report.unindexed_labels == ("5_o_Clock_Shadow",)
    held = table.ref.open()
    assert "labels.age_idx" in held.scanner(filter="labels.age < 0.5").explain_plan(True)
    assert "labels.hair_idx" in held.scanner(filter="labels.hair = 'r'").explain_plan(True)
    assert "id_idx" in held.scanner(filter="id = 'img/00001.jpg'").explain_plan(True)
    assert table.count_rows("labels.`5_o_Clock_Shadow`") == 1000


def test_metric_other_than_the_indexs_is_exact(table: Table) -> None:
    table.build_vector_index(IndexStep(kind="ivf_pq", recall_queries=5, nprobes=1), token=1)
    query = clustered(1, seed=6)[0]
    assert table.search(query, k=10, metric="cosine").column("id").to_pylist() == truth(table, query, 10, "cosine")


def test_probes_are_those_asked_for_and_a_low_goal_takes_few(table: Table) -> None:
    assert table.build_vector_index(IndexStep(kind="ivf_flat", recall_queries=5, nprobes=3), token=1).nprobes == 3
    assert table.build_vector_index(IndexStep(kind="ivf_flat", recall_queries=5, min_recall=0.0), token=1).nprobes in (
        1,
        8,
    )


def test_vectors_that_cannot_be_searched(table: Table) -> None:
    with pytest.raises(SpaceMismatch, match=f"8 numbers.*{DIM}"):
        table.search(np.zeros(8), k=3)
    with pytest.raises(JobError, match="NaN"):
        table.search(np.full(DIM, np.nan), k=3)
    with pytest.raises(JobError, match="at least 1"):
        table.search(np.zeros(DIM), k=0)


@pytest.mark.parametrize("rows", [0, 1, 9])
def test_tiny_tables_are_indexed_too(tmp_path: Path, rows: int) -> None:
    table = fenced(Store.open(str(tmp_path / "store")), dim=DIM)
    add(table, names(rows), vectors=clustered(rows))
    for kind in ("ivf_flat", "ivf_hnsw_sq", "ivf_pq", "flat", "auto"):
        report = table.build_vector_index(IndexStep(kind=kind), token=1)
        assert report.recall == 1.0 and report.rows == rows
        assert table.search(np.zeros(DIM), k=20).num_rows == rows


def test_searching_an_older_version(table: Table) -> None:
    before = table.version
    table.build_vector_index(IndexStep(kind="ivf_flat", recall_queries=5), token=1)
    add(table, ["here"], vectors=np.zeros((1, DIM)))
    assert table.search(np.zeros(DIM), k=1).column("id").to_pylist() == ["here"]
    assert table.search(np.zeros(DIM), k=1, version=before).column("id").to_pylist() != ["here"]


def test_float16_latents(tmp_path: Path) -> None:
    from store_rows import FINGERPRINT, schema

    table = Store.open(str(tmp_path / "s")).latents("faces", FINGERPRINT)
    table.create(schema(DIM, "float16"))
    table.fence(1)
    add(table, names(500), vectors=clustered(500))
    report = table.build_vector_index(IndexStep(kind="ivf_hnsw_sq", recall_queries=20), token=1)
    assert report.recall > 0.95
    assert table.search(clustered(500)[3], k=1).column("id").to_pylist() == [names(500)[3]]


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 12), st.sampled_from(["l2", "cosine"]))
def test_exact_neighbours_equal_brute_force_whatever_the_batches(seed: int, n: int, step: int, metric: str) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.integers(-2, 3, size=(n, DIM)).astype(np.float32)
    rows = batch(names(n), vectors=vectors)
    own = [names(n)[int(i)] for i in rng.integers(0, n, 3)]
    queries = vectors[[names(n).index(i) for i in own]].astype(float)
    batches = [rows.slice(s, step) for s in range(0, n, step)]
    found = exact_neighbours(batches, queries, own, column="latent", k=4, metric=metric)
    for query, me, ids in zip(queries, own, found.ids, strict=True):
        near = distances(query[None], vectors.astype(float), metric)[0]
        others = [(near[j], i) for j, i in enumerate(names(n)) if i != me]
        last = sorted(others)[min(4, len(others)) - 1][0] if others else 0
        least = {i for d, i in others if d < last - 1e-9}
        assert least <= ids <= {i for d, i in others if d <= last + 1e-6} and len(ids) >= min(4, len(others))


def test_recall_of_a_perfect_a_half_and_a_tied_search() -> None:
    rows = batch(names(40), vectors=np.repeat(np.arange(20), 2)[:, None] * np.ones((1, DIM)))
    own = names(2)
    queries = np.zeros((2, DIM))
    found = exact_neighbours([rows], queries, own, column="latent", k=3, metric="l2")
    assert found.ids[0] == {names(4)[1], *names(2, start=2)}
    assert recall(found, lambda q: sorted(found.ids[q])) == 1
    assert recall(found, lambda q: [sorted(found.ids[q])[0], "x", "y"]) == pytest.approx(1 / 3)


def test_sub_vectors_divide_the_dimension() -> None:
    for dim in (1, 2, 7, 16, 20, 128, 1024):
        assert dim % sub_vectors(dim) == 0 and dim // sub_vectors(dim) >= min(dim, 4)


def uncommitted(dataset: Any) -> Any:
    """A vector index that is built, but that no version names."""
    numbers = [f.fragment_id for f in dataset.get_fragments()]
    return dataset.create_index_uncommitted(
        "latent", "IVF_FLAT", name="latent_idx", metric="l2", num_partitions=4, fragment_ids=numbers
    )


def test_an_index_that_lands_behind_a_fence_keeps_its_files(table: Table) -> None:
    """The zombie's build was done before the fence, its commit comes after the heir has cleaned: searches go on."""
    zombie = table.ref.open()
    built = uncommitted(zombie)
    orphan = table.write([batch(names(5, prefix="orphan"), vectors=clustered(5))])
    table.fence(2)
    assert table.clean_orphans(timedelta(0), token=2).files == len(orphan)
    zombie.commit_existing_index_segments("latent_idx", "latent", [built])
    query = clustered(1, seed=5)[0]
    assert table.search(query, k=10).column("id").to_pylist() == truth(table, query, 10)
    settings = replace(FLAT, kind="ivf_flat", nprobes=4)
    assert search(table.ref.open(), query, k=10, settings=settings).num_rows == 10


def test_files_of_an_index_nobody_refers_to_go_after_a_day(table: Table) -> None:
    uncommitted(table.ref.open())
    files = [p for p in (Path(table.uri) / "_indices").rglob("*") if p.is_file()]
    assert files and table.clean_orphans(timedelta(0), token=1).files == 0
    for path in files:
        os.utime(path, (time.time() - 90_000,) * 2)
    assert table.clean_orphans(timedelta(0), token=1).files == len(files)


@pytest.mark.parametrize("moment", ["before", "between the indexes", "before the settings"])
def test_a_stale_token_commits_no_index(table: Table, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if moment == "before":
        table.fence(2)
    at = {"between the indexes": "_vector_index", "before the settings": "_measured"}.get(moment)
    if at:
        real = getattr(index, at)

        def overtaken(*args: Any) -> Any:
            # `_measured` only reads; what commits comes after it.
            done = real(*args) if at == "_measured" else None
            table.fence(2)
            return done or real(*args)

        monkeypatch.setattr(index, at, overtaken)
    with pytest.raises(LeaseLost):
        table.build_vector_index(IndexStep(kind="ivf_flat", recall_queries=5), token=1)
    there = {i.name for i in table.ref.open().describe_indices()}
    assert ("id_idx" in there, "latent_idx" in there) == (moment != "before", moment == "before the settings")
    assert settings_of(table.ref.open()) == FLAT
