"""The fit step: streams latents and labels through the estimators' passes and stores one direction an attribute."""

from collections.abc import Callable
from typing import Any

from pipeline.context import Context
from pipeline.directions import store_directions
from pipeline.executors.base import Executor, Splits
from pipeline.groups import few_groups, ungrouped
from pipeline.measurements import named, store_measurements
from pipeline.selection import selection_clause
from schemas.errors import JobError
from schemas.job import did_you_mean
from schemas.source import LabelType
from schemas.steps import FitStep
from schemas.tables import label_types
from stages.stage import Passes, ReduceStage

COLUMNS = ["id", "latent", "labels"]


def fit_directions(step: FitStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns how many directions are good and which are not."""
    from stages.directions.fit import fit

    latents = ctx.latents
    version = latents.version
    known = label_types(latents.schema.field("labels").type)
    attributes = choose_attributes(step, known)
    where = selection_clause(step, latents, version)
    splits = latents.splits(columns=COLUMNS, where=where, version=version)
    ctx.started_step(step, total=splits.rows)
    if said := ungrouped(latents, step.group, where, version=version):
        ctx.notice(f"{step.name}: {said}")
    if step.bootstrap and (said := few_groups(latents, step.group, where, version=version)):
        ctx.notice(f"{step.name}: {said}")
    passes = fit(step, attributes, dim=ctx.codec.latent.dim, labels=known)
    read: int | None = None
    if step.refresh == "off":
        directions = drive(passes, ctx.executor, splits)
    else:
        from pipeline.refresh import Refreshing

        refreshing = Refreshing(step, ctx, where=where, version=version, columns=COLUMNS)
        directions = drive(passes, ctx.executor, splits, reduce=refreshing.reduce)
        read = refreshing.read
    if not directions:
        raise JobError.one(f"{step.name}.attributes", list(attributes), "no direction came out of it.")
    store_directions(ctx, {direction_name(step, d.attribute): d for d in directions}, version=version)
    store_measurements(step, ctx, [one for d in directions for one in d.intervals], version=version)
    ctx.progress(step, computed=splits.rows, committed=splits.rows, failed=0, total=splits.rows)
    odd = {d.attribute: d.status for d in directions if d.status != "ok"}
    for d in directions:
        if d.status != "ok":
            why = f": {d.message}" if d.message else ""
            ctx.notice(f"direction {direction_name(step, d.attribute)}: {d.status}{why}")
    counts = {"directions": len(directions) - len(odd), "odd": odd, "rows": splits.rows}
    return counts if read is None else counts | {"read": read}


def choose_attributes(step: FitStep, known: dict[str, LabelType]) -> dict[str, LabelType]:
    """The attributes to fit and to balance, with their types. Raises JobError for an unknown one, with the nearest name."""
    wanted = tuple(known) if step.attributes == "all" else step.attributes
    for name in (*wanted, *(step.controls or ())):
        if name not in known:
            raise JobError.one(f"{step.name}.attributes", name, "no such label.", did_you_mean(name, known))
    return {name: known[name] for name in wanted}


def drive(
    passes: Passes[Any, Any],
    executor: Executor,
    splits: Splits,
    *,
    reduce: Callable[[Executor, Any, ReduceStage[Any]], Any] | None = None,
) -> Any:
    """Runs a computation's passes one after another, each as a distributed reduce; `reduce` may know a shorter way."""
    try:
        stage = next(passes)
        while True:
            stage = passes.send(reduce(executor, splits, stage) if reduce else executor.reduce(splits, stage))
    except StopIteration as finished:
        return finished.value


def direction_name(step: FitStep, attribute: str) -> str:
    """`smiling`, or `myfit.smiling` when the step was given a name of its own."""
    return named(step.name, attribute)
