"""The fit step: streams latents and labels through the estimators' passes and stores one direction an attribute."""

from typing import Any

from pipeline.context import Context
from pipeline.directions import store_directions
from pipeline.executors.base import Executor, Splits
from pipeline.measurements import store_measurements
from pipeline.selection import selection_clause
from schemas.errors import JobError
from schemas.job import did_you_mean
from schemas.source import LabelType
from schemas.steps import FitStep
from schemas.tables import label_types
from stages.stage import Passes

ROWS_PER_BATCH = 8192


def fit_directions(step: FitStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns how many directions are good and which are not."""
    from stages.directions.fit import fit

    latents = ctx.latents
    version = latents.version
    known = label_types(latents.schema.field("labels").type)
    attributes = choose_attributes(step, known)
    splits = latents.splits(
        columns=["id", "latent", "labels"], where=selection_clause(step, latents, version), version=version
    )
    ctx.started_step(step, total=splits.rows)
    directions = drive(fit(step, attributes, dim=ctx.codec.latent.dim, labels=known), ctx.executor, splits)
    if not directions:
        raise JobError.one(f"{step.name}.attributes", list(attributes), "no direction came out of it.")
    store_directions(ctx, {direction_name(step, d.attribute): d for d in directions}, version=version)
    store_measurements(step, ctx, [one for d in directions for one in d.intervals], version=version)
    ctx.progress(step, computed=splits.rows, committed=splits.rows, failed=0, total=splits.rows)
    odd = {d.attribute: d.status for d in directions if d.status != "ok"}
    for attribute, status in odd.items():
        ctx.notice(f"direction {attribute}: {status}")
    return {"directions": len(directions) - len(odd), "odd": odd, "rows": splits.rows}


def choose_attributes(step: FitStep, known: dict[str, LabelType]) -> dict[str, LabelType]:
    """The attributes to fit and to balance, with their types. Raises JobError for an unknown one, with the nearest name."""
    wanted = tuple(known) if step.attributes == "all" else step.attributes
    for name in (*wanted, *(step.controls or ())):
        if name not in known:
            raise JobError.one(f"{step.name}.attributes", name, "no such label.", did_you_mean(name, known))
    return {name: known[name] for name in wanted}


def drive(passes: Passes[Any, Any], executor: Executor, splits: Splits) -> Any:
    """Runs a computation's passes one after another, each as a distributed reduce."""
    try:
        stage = next(passes)
        while True:
            stage = passes.send(executor.reduce(splits, stage))
    except StopIteration as finished:
        return finished.value


def direction_name(step: FitStep, attribute: str) -> str:
    """`smiling`, or `myfit.smiling` when the step was given a name of its own."""
    return attribute if step.name in (None, "fit") else f"{step.name}.{attribute}"
