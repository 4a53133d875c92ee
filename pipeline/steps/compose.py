"""The compose step: reads stored directions, makes new ones of them, and stores those as `<step>.<direction>`."""

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.context import Context
from pipeline.directions import store_directions
from pipeline.measurements import store_measurements
from pipeline.selection import selection_clause
from pipeline.steps.codes import stored_direction
from pipeline.steps.fit import drive
from schemas.steps import ComposeStep

if TYPE_CHECKING:
    from stages.directions.composed import Composed, Parent


def compose_directions(step: ComposeStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns how many directions are good and which are not."""
    from stages.directions.composed import compose

    latents = ctx.latents
    version = latents.version
    splits = latents.splits(columns=["id", "latent"], where=selection_clause(step, latents, version), version=version)
    ctx.started_step(step, total=splits.rows)
    targets, against = ([_parent(name, ctx) for name in names] for names in (step.directions, step.against))
    found: Composed = drive(compose(step, targets, against), ctx.executor, splits)
    named = dict(zip(composed_names(step), found.directions, strict=True))
    store_directions(ctx, named, version=version)
    store_measurements(step, ctx, found.measurements, version=version)
    ctx.progress(step, computed=splits.rows, committed=splits.rows, failed=0, total=splits.rows)
    odd = {name: d.status for name, d in named.items() if d.status != "ok"}
    for name, status in odd.items():
        ctx.notice(f"direction {name}: {status}: {named[name].message}")
    return {"directions": len(named) - len(odd), "odd": odd, "rows": splits.rows}


def composed_names(step: ComposeStep) -> list[str]:
    """What the step will store."""
    return [f"{step.name}.{name}" for name in step.directions]


def _parent(name: str, ctx: Context) -> "Parent":
    from stages.directions.composed import Parent

    row = stored_direction(name, ctx)
    norm, intercept = row["raw_norm"], row["intercept"]
    return Parent(
        name=name,
        attribute=row["attribute"],
        vector=np.array(row["vector"], np.float64),
        offset=None if intercept is None or not norm else intercept / norm,
        n=row["n"] or 0,
        n_positive=row["n_positive"],
        n_negative=row["n_negative"],
    )
