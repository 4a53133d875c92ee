"""Similarity queries on real latents: recall@10 and latency of Latentmill's indexes beside FAISS, one query after another.

The latents are 128 numbers of 50,000 pictures. Queries are rows of the table; exact answers come from FAISS's flat index,
which Latentmill's exact search must reproduce.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from benchmarks.corpus import FOLDER, jpegs
from benchmarks.results import Result, report
from pipeline.executors.local import LocalExecutor
from pipeline.run import run_job
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job
from schemas.steps import IndexStep

K = 10
Ask = Callable[[np.ndarray], list[int]]


@dataclass(frozen=True)
class Measured:
    recall: float
    p50: float
    p95: float

    def __str__(self) -> str:
        return f"recall@10 {self.recall:.3f}, p50 {self.p50:.2f} ms, p95 {self.p95:.2f} ms"


def encoded(count: int) -> Table:
    """A table of `count` latents, made once by an encode job with the exact codec."""
    store = FOLDER / f"query-{count}"
    if not store.exists():
        job = parse_job(
            {
                "dataset": "bench",
                "store": str(store),
                "source": {"images": f"{jpegs(count, 256)}/**/*.jpg"},
                "codec": {"family": "linear", "dim": 128, "preprocess": {"size": 32}},
                "steps": [{"stage": "encode"}],
            }
        )
        run_job(job, report=lambda event: None, executor=LocalExecutor(LocalSpec()))
    opened = Store.open(str(store))
    entry = opened.current("bench")
    assert entry is not None
    return opened.table(entry.table)


def measure(ask: Ask, queries: np.ndarray, truth: np.ndarray) -> Measured:
    """One query after another; recall counts how many of the true ten were found."""
    ask(queries[0])
    times, found = [], 0
    for query, expected in zip(queries, truth, strict=True):
        started = time.perf_counter()
        answer = ask(query)
        times.append((time.perf_counter() - started) * 1e3)
        found += len(set(answer) & set(expected.tolist()))
    return Measured(found / truth.size, float(np.percentile(times, 50)), float(np.percentile(times, 95)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=300)
    asked = parser.parse_args()
    table = encoded(asked.count)
    rows = list(table.scan(["id", "latent"]))
    ids = [i for batch in rows for i in batch.column("id").to_pylist()]
    vectors = (
        np.concatenate([b.column("latent").flatten().to_numpy() for b in rows]).reshape(len(ids), -1).astype(np.float32)
    )
    place = {image: n for n, image in enumerate(ids)}
    queries = vectors[np.random.default_rng(0).choice(len(ids), asked.queries, replace=False)]

    flat = faiss.IndexFlatL2(vectors.shape[1])
    flat.add(vectors)
    truth = flat.search(queries, K)[1]
    inverted = faiss.index_factory(vectors.shape[1], f"IVF{int(np.sqrt(len(ids)))},Flat")
    inverted.train(vectors)
    inverted.add(vectors)
    inverted.nprobe = 16

    def ours(**options: bool) -> Ask:
        return lambda q: [place[i] for i in table.search(q, k=K, columns=["id"], **options).column("id").to_pylist()]

    measured = {
        "FAISS flat": measure(lambda q: flat.search(q[None], K)[1][0].tolist(), queries, truth),
        "FAISS IVF flat, 16 probes": measure(lambda q: inverted.search(q[None], K)[1][0].tolist(), queries, truth),
        "Latentmill exact": measure(ours(exact=True), queries, truth),
    }
    for kind in ("ivf_flat", "ivf_hnsw_sq"):
        table.build_vector_index(IndexStep(kind=kind), token=1)
        measured[f"Latentmill {kind}"] = measure(ours(), queries, truth)
    exact = measured["Latentmill exact"].recall
    assert exact > 0.999, f"exact search found {exact:.4f} of the true neighbours"
    base = measured["FAISS IVF flat, 16 probes"]
    results = [Result("exact search: recall@10 against FAISS flat", exact, ">=", 0.999)]
    for name, m in measured.items():
        results.append(Result(f"{name}: p50 ÷ FAISS IVF's", m.p50 / base.p50, None, None, str(m)))
    report("query", f"Similarity queries over {len(ids):,} × {vectors.shape[1]} latents", results)
    shutil.rmtree(Path(table.uri).parent)


if __name__ == "__main__":
    main()
