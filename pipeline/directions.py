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


NOT_NEWER = "source.dataset_version >= target.dataset_version"
"""What a direction must be to be replaced. A run that was paused after it looked at its lease does not undo an heir's."""


def store_directions(ctx: Context, found: "Mapping[str, Direction]", *, version: int) -> None:
    """Writes directions by name; one of the same name, dataset and codec is replaced. `version`: of the latents.

    Raises LeaseLost when another run has taken the dataset over: its directions stay.
    """
    ctx.lease.confirm()
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
        part = pa.Table.from_pylist(rows[start : start + step], directions_schema())
        if ctx.store.directions().upsert(part, only_if=NOT_NEWER) < part.num_rows:
            # A newer version of latents that are gone, if the lease is still ours; an heir's work, if not.
            ctx.lease.confirm()
            ctx.store.directions().upsert(part)
