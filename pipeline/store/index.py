"""The index step's work on a table: a vector index with measured recall, and scalar indexes for filters.

Recall is measured on stored rows against exact search every time, because on data without structure every approximate
index is poor. When the number of probes is not given, it is doubled until the recall reaches the goal.
An index that still fits is extended by the rows added since, instead of being built again.

Lance's index commits conflict with no fence, so the token is looked at before each. One that lands behind a fence all the same
describes rows that are there; `clean` leaves its files alone.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.store.commit import check_token
from pipeline.store.engine import asking
from pipeline.store.query import FLAT, IndexSettings, save_settings, search, settings_of, vector_column
from pipeline.store.recall import exact_neighbours, matrix, recall
from pipeline.store.ref import TableRef
from pipeline.store.replace import rows_with
from pipeline.store.sample import sample_ids
from pipeline.store.splits import batch_rows_for, row_bytes
from pipeline.store.where import is_plain, label_path
from schemas.steps import IndexStep

AUTO_ROWS = 50_000
GOAL = 0.95
K = 10
FIRST_PROBES = 8
STALE_SHARE = 0.2
"""More unindexed rows than this share, and the index is built again: its partitions no longer follow the data."""
REFINE = {"ivf_flat": None, "ivf_pq": 16, "ivf_hnsw_sq": 4}


@dataclass(frozen=True)
class IndexReport:
    """What was built and how well it finds. `recall` is recall@10 over `queries` stored rows; 1 for exact search.

    `how`: built, extended, kept, or none (flat). `unindexed_labels` have names that the engine cannot index.
    """

    kind: str
    metric: str
    how: str
    rows: int
    seconds: float
    recall: float
    queries: int
    nprobes: int | None
    refine: int | None
    scalar: tuple[str, ...]
    unindexed_labels: tuple[str, ...]


def build_index(ref: TableRef, spec: IndexStep, *, token: int) -> IndexReport:
    """Builds or extends what `spec` asks for, measures it, and leaves the settings that searches then use.

    Raises LeaseLost for a stale token.
    """
    started = time.perf_counter()
    dataset = ref.open()
    rows = dataset.count_rows()
    scalar, left_out = _scalar_indexes(ref, token)
    kind = spec.kind if spec.kind != "auto" else ("flat" if rows < AUTO_ROWS else "ivf_hnsw_sq")
    how = _vector_index(ref, kind, spec.metric, rows, token)
    settings = IndexSettings(kind, spec.metric, spec.nprobes, REFINE.get(kind))
    measured, queries = 1.0, 0
    if kind != "flat" and rows:
        settings, measured, queries = _measured(ref.open(), settings, spec)
    with asking(ref.uri, "writing index settings of"):
        if settings_of(dataset := _held(ref, token)) != settings:
            save_settings(dataset, settings)
    return IndexReport(
        kind, spec.metric, how, rows, round(time.perf_counter() - started, 3), measured, queries,
        settings.nprobes, settings.refine, scalar, left_out,
    )  # fmt: skip


def _held(ref: TableRef, token: int) -> Any:
    """The table as it is now, which `token` may still change."""
    dataset = ref.open()
    check_token(dataset, ref, token)
    return dataset


def _vector_index(ref: TableRef, kind: str, metric: str, rows: int, token: int) -> str:
    """Leaves the table with a fresh index of this kind, or none for flat; returns how."""
    dataset = _held(ref, token)
    column = vector_column(dataset.schema)
    name = f"{column}_idx"
    held = settings_of(dataset)
    with asking(ref.uri, "indexing"):
        there = name in {i.name for i in dataset.describe_indices()}
        if kind == "flat" or not rows:
            if there:
                dataset.drop_index(name)
            return "none"
        if there and (held.kind, held.metric) == (kind, metric):
            missing = dataset.stats.index_stats(name)["num_unindexed_rows"]
            if missing <= STALE_SHARE * rows:
                if missing:
                    dataset.optimize.optimize_indices(index_names=[name])
                return "extended" if missing else "kept"
        save_settings(dataset, FLAT)  # until the new index is there and measured, searches are exact
        dim = dataset.schema.field(column).type.list_size
        extra = {"num_sub_vectors": sub_vectors(dim)} if kind == "ivf_pq" else {}
        _held(ref, token).create_index(column, kind.upper(), name=name, metric=metric, replace=True, **extra)
    return "built"


def sub_vectors(dim: int) -> int:
    """The largest divisor of `dim` that leaves at least four numbers to each sub-vector of a product quantiser."""
    return max((m for m in range(1, dim // 4 + 1) if dim % m == 0), default=1)


def _scalar_indexes(ref: TableRef, token: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """BTREE on id and numbers, BITMAP on bools and categories; existing ones are extended."""
    dataset = _held(ref, token)
    wanted = {"id": "BTREE"}
    left_out = []
    for field in dataset.schema.field("labels").type if "labels" in dataset.schema.names else ():
        if is_plain(field.name):
            number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
            wanted[label_path(field.name)] = "BTREE" if number else "BITMAP"
        else:
            left_out.append(field.name)
    with asking(ref.uri, "indexing"):
        there = {i.name for i in dataset.describe_indices()}
        if present := [f"{path}_idx" for path in wanted if f"{path}_idx" in there]:
            dataset.optimize.optimize_indices(index_names=present)
        for path, kind in wanted.items():
            if f"{path}_idx" not in there:
                _held(ref, token).create_scalar_index(path, kind, name=f"{path}_idx")
    return tuple(sorted(wanted)), tuple(left_out)


def _measured(dataset: Any, settings: IndexSettings, spec: IndexStep) -> tuple[IndexSettings, float, int]:
    """Settings with enough probes, the recall they reach, and over how many queries."""
    column = vector_column(dataset.schema)
    ids = sample_ids(dataset, spec.recall_queries, salt="recall")
    found = pa.Table.from_batches(list(rows_with(dataset, ids, ["id", column])))
    asked = matrix(found.column(column))
    finite = np.isfinite(asked).all(axis=1)
    own, queries = found.column("id").filter(pa.array(finite)).to_pylist(), asked[finite]
    width = row_bytes(dataset.schema, ["id", column])
    scan = dataset.scanner(columns=["id", column], batch_size=batch_rows_for(width, 8192), batch_readahead=2)
    truth = exact_neighbours(scan.to_batches(), queries, own, column=column, k=K, metric=settings.metric)

    def searcher(tried: IndexSettings) -> Callable[[int], list[str]]:
        def one(number: int) -> list[str]:
            near = search(dataset, queries[number].astype(np.float32), k=K + 1, settings=tried, columns=["id"])
            return [i for i in near.column("id").to_pylist() if i != own[number]]

        return one

    partitions = _partitions(dataset, f"{column}_idx")
    goal = spec.min_recall if spec.min_recall is not None else GOAL
    reached = 0.0
    for probes in _probes(settings.nprobes, partitions):
        settings = replace(settings, nprobes=probes)
        reached = recall(truth, searcher(settings))
        if reached >= goal:
            break
    return settings, reached, len(own)


def _probes(given: int | None, partitions: int) -> Iterator[int]:
    """The given number only; else 8, 16, 32, … up to all partitions."""
    if given is not None:
        yield given
        return
    probes = min(FIRST_PROBES, partitions)
    while probes < partitions:
        yield probes
        probes *= 2
    yield partitions


def _partitions(dataset: Any, name: str) -> int:
    stats = dataset.stats.index_stats(name)["indices"]
    return max((int(i.get("num_partitions", 1)) for i in stats), default=1)
