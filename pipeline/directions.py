"""Directions as rows of the store's directions table, whichever step found them."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.context import Context
from schemas.tables import directions_schema

if TYPE_CHECKING:
    from stages.directions.direction import Direction

VALUES_AT_ONCE = 2**22
"""Numbers in one write: a hundred components of a wide latent are too much for one table in memory."""


def store_directions(ctx: Context, found: "Mapping[str, Direction]", *, version: int) -> None:
    """Writes directions by name; one of the same name, dataset and codec is replaced. `version`: of the latents."""
    shared = {
        "dataset": ctx.job.dataset,
        "space": ctx.codec.latent.space,
        "fingerprint": ctx.codec.fingerprint,
        "dataset_version": version,
        "run_id": ctx.run_id,
        "at": datetime.now(UTC),
    }
    rows = [
        asdict(direction) | shared | {"key": f"{ctx.job.dataset}:{ctx.codec.fingerprint}:{name}", "name": name}
        for name, direction in found.items()
    ]
    step = max(1, VALUES_AT_ONCE // ctx.codec.latent.dim)
    for start in range(0, len(rows), step):
        ctx.store.directions().upsert(pa.Table.from_pylist(rows[start : start + step], directions_schema()))
