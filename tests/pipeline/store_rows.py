"""Rows, tables and processes the store's tests share."""

import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.codec import LatentSpec
from schemas.tables import labels_type, latents_schema

DIM = 8
FINGERPRINT = "ab" * 32
ROOT = Path(__file__).parent.parent.parent


def schema(dim: int = DIM, dtype: str = "float32") -> pa.Schema:
    labels = labels_type({"smiling": "bool", "age": "float", "hair": "category", "5_o_Clock_Shadow": "bool"})
    return latents_schema(
        LatentSpec(shape=(dim,), space="z"), dtype=dtype, labels=labels, logvar=False, metadata={"fingerprint": "ab"}
    )


def batch(ids: Sequence[str], *, source_version: str = "v1", vectors: np.ndarray | None = None) -> pa.RecordBatch:
    """Rows whose latent is `vectors`, or follows from the id."""
    if vectors is None:
        seeds = [zlib.crc32(i.encode()) for i in ids]
        vectors = np.stack([np.random.default_rng(s).normal(size=DIM) for s in seeds]) if ids else np.empty((0, DIM))
    n, dim = len(ids), vectors.shape[1]
    latent = pa.FixedSizeListArray.from_arrays(pa.array(vectors.astype(np.float32).ravel()), dim)
    labels = [
        {"smiling": k % 2 == 0, "age": k / n, "hair": "rb"[k % 2], "5_o_Clock_Shadow": k % 3 == 0} for k in range(n)
    ]
    columns = {
        "id": pa.array(ids, pa.string()),
        "uri": pa.array([f"file:///{i}" for i in ids], pa.string()),
        "source_version": pa.array([source_version] * n, pa.string()),
        "content_hash": pa.array(["0" * 32] * n, pa.string()),
        "latent": latent,
        "width": pa.array([64] * n, pa.int32()),
        "height": pa.array([64] * n, pa.int32()),
        "labels": pa.array(labels, schema().field("labels").type),
        "run_id": pa.array(["run"] * n, pa.string()),
        "encoded_at": pa.array([datetime.now(UTC)] * n, schema().field("encoded_at").type),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=schema(dim))


def names(count: int, prefix: str = "img", start: int = 0) -> list[str]:
    return [f"{prefix}/{k:05d}.jpg" for k in range(start, start + count)]


def fenced(store: Store, token: int = 1, dim: int = DIM) -> Table:
    """An empty latents table that `token` may commit to."""
    table = store.latents("faces", FINGERPRINT)
    table.create(schema(dim))
    table.fence(token)
    return table


def add(table: Table, ids: Sequence[str], *, token: int = 1, replaces: Sequence[str] = (), **rows: object) -> int:
    return table.commit(table.write([batch(ids, **rows)]), token=token, properties={}, replaces=replaces)


def ids_of(table: Table, version: int | None = None) -> list[str]:
    return sorted(i for b in table.scan(["id"], version=version) for i in b.column("id").to_pylist())


@contextmanager
def child(code: str, *args: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process of its own that runs `code` with the test's modules at hand; ended when the block ends."""
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line the child prints; its stderr when it ended instead."""
    assert process.stdout is not None and process.stderr is not None
    text = process.stdout.readline()
    assert text, process.stderr.read()
    return text.strip()


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
