"""A table of labelled latents made by arithmetic, for benchmarks that begin after encoding."""

import shutil
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from benchmarks.corpus import FOLDER
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.codec import LatentSpec
from schemas.tables import labels_type, latents_schema

CHUNK = 50_000


def labelled(rows: int, dim: int, attributes: int) -> Table:
    """`rows` float16 latents with `attributes` correlated two-class labels, made once and kept in build/bench.

    A label is a noisy threshold of one of a few shared factors; it moves the latents along a direction of its own by .3 to 1.5
    of their standard deviation, so that held-out AUCs lie between about .65 and .97. Latents are correlated and off centre.
    """
    folder = FOLDER / f"latents-{rows}-{dim}-{attributes}"
    if folder.exists() and not (folder / ".done").exists():
        shutil.rmtree(folder)
    store = Store.open(str(folder))
    table = store.latents("bench", "bench")
    if (folder / ".done").exists():
        return table
    spec = LatentSpec(shape=(dim,), space="z")
    types = labels_type({f"a{i:02d}": "bool" for i in range(attributes)})
    schema = latents_schema(spec, dtype="float16", labels=types, logvar=False, metadata={"fingerprint": "bench"})
    table.create(schema)
    fixed = np.random.default_rng(0)
    shape = {
        "mix": fixed.standard_normal((8, attributes)) * 0.5,
        "threshold": fixed.uniform(-0.5, 1.5, attributes),
        "effect": _unit(fixed.standard_normal((attributes, dim))) * fixed.uniform(0.3, 1.5, (attributes, 1)),
        "spread": np.eye(dim) + 0.4 * fixed.standard_normal((dim, dim)) / np.sqrt(dim),
    }
    starts = range(0, rows, CHUNK)
    fragments = [f for start in starts for f in table.write([_rows(start, min(start + CHUNK, rows), shape, schema)])]
    with store.lease("bench", run_id="bench") as lease:
        table.fence(lease.token)
        table.commit(fragments, token=lease.token, properties={"attempt": "bench"})
    (folder / ".done").touch()
    return table


def _rows(start: int, stop: int, shape: dict[str, np.ndarray], schema: pa.Schema) -> pa.RecordBatch:
    n, rng = stop - start, np.random.default_rng(start + 1)
    factors = rng.standard_normal((n, len(shape["mix"])))
    labels = factors @ shape["mix"] + rng.standard_normal((n, shape["mix"].shape[1])) > shape["threshold"]
    latents = rng.standard_normal((n, len(shape["spread"]))) @ shape["spread"] + labels @ shape["effect"] + 1.0
    return pa.RecordBatch.from_pydict(
        {
            "id": [f"faces/{i:07d}.jpg" for i in range(start, stop)],
            "uri": [""] * n,
            "source_version": ["1"] * n,
            "content_hash": [""] * n,
            "latent": pa.FixedSizeListArray.from_arrays(
                pa.array(latents.astype(np.float16).reshape(-1)), type=schema.field("latent").type
            ),
            "width": np.full(n, 64, np.int32),
            "height": np.full(n, 64, np.int32),
            "labels": pa.StructArray.from_arrays(
                [pa.array(c) for c in labels.T], fields=list(schema.field("labels").type)
            ),
            "run_id": ["bench"] * n,
            "encoded_at": pa.array([datetime.now(UTC)] * n, schema.field("encoded_at").type),
        },
        schema,
    )


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
