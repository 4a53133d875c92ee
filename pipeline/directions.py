"""Directions as rows of the store's directions table, whichever step found them."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, get_args

import pyarrow as pa

from pipeline.context import Context
from schemas.steps import ComponentEstimator
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


def forget_components(ctx: Context, step: str, *, count: int, version: int) -> int:
    """Takes out `STEP.N` with N ≥ `count`, which an earlier run of the step found when it was to find more; returns how many.

    Only components, of this dataset and codec, and none of a newer version of the latents: a fit's attribute may be a number too.
    """
    ctx.lease.confirm()
    estimators = ", ".join(f"'{name}'" for name in get_args(ComponentEstimator))
    mine = f"dataset = '{ctx.job.dataset}' AND fingerprint = '{ctx.codec.fingerprint}' AND dataset_version <= {version}"
    where = f"{mine} AND estimator IN ({estimators}) AND starts_with(name, '{step}.')"
    table = ctx.store.directions()
    held = [name for batch in table.scan(["name"], where=where) for name in batch.column("name").to_pylist()]
    numbers = {name: name.removeprefix(f"{step}.") for name in held}
    gone = [name for name, number in numbers.items() if number.isdecimal() and int(number) >= count]
    if not gone:
        return 0
    return table.remove(f"{where} AND name IN ({', '.join(map(_quoted, gone))})")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
