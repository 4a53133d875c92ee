"""The components step: streams latents through an estimator that needs no labels, and stores what it finds as directions."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.codec import CodecRef, opened_on
from pipeline.context import Context
from pipeline.directions import forget_components, store_directions
from pipeline.measurements import store_measurements
from pipeline.selection import selection_clause
from pipeline.steps.fit import drive
from schemas.errors import JobError, Problem
from schemas.steps import ComponentsStep
from stages.stage import Passes

if TYPE_CHECKING:
    from stages.components.found import Found

MAX_VALUES = 2**24
"""Numbers of all stored components together: they are held at once."""
WIDE, MAX_OF_WIDE = 4096, 512
"""Above this width components come one by one, and more than these would take hours."""


def find_components(step: ComponentsStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns how many components there are and what is odd about the others."""
    latents = ctx.latents
    version = latents.version
    splits = latents.splits(columns=["id", "latent"], where=selection_clause(step, latents, version), version=version)
    ctx.started_step(step, total=splits.rows)
    found: Found = drive(_passes(step, ctx), ctx.executor, splits)
    store_directions(ctx, {d.attribute: d for d in found.directions}, version=version)
    gone = forget_components(ctx, str(step.name), count=len(found.directions), version=version)
    if gone:
        ctx.notice(f"{step.name}: {gone} components of an earlier run that found more are taken out")
    store_measurements(step, ctx, found.measurements, version=version)
    ctx.progress(step, computed=splits.rows, committed=splits.rows, failed=0, total=splits.rows)
    odd = {d.attribute: d.status for d in found.directions if d.status != "ok"}
    for status in sorted(set(odd.values())):
        ctx.notice(
            f"{step.name}: {sum(s == status for s in odd.values())} of {len(found.directions)} components: {status}"
        )
    return {"directions": len(found.directions) - len(odd), "odd": odd, "rows": splits.rows}


def component_names(step: ComponentsStep, dim: int | None) -> list[str]:
    """What the step will store; `dim` may not be known before the codec is trained."""
    count = step.count if dim is None else min(step.count, dim)
    return [f"{step.name}.{i}" for i in range(count)]


def check_components(step: ComponentsStep, at: str, codec: CodecRef | None) -> Iterator[Problem]:
    """What makes the step impossible, as far as it can be known now; reads the weights, and no rows."""
    if codec is None:
        return
    dim = codec.latent.dim
    most = min(MAX_VALUES // dim, MAX_OF_WIDE if dim > WIDE else dim)
    if min(step.count, dim) > most:
        yield Problem(f"{at}.count", step.count, f"too many for latents of {dim:,} numbers.", f"use at most {most}")
    if step.estimator == "sefa":
        from stages.components.sefa import style_tensors  # loads torch: only for jobs that factorise weights

        yield from _problems(lambda: style_tensors(codec.load(), step, codec.spec, dim=dim))
    if step.estimator == "ganspace":
        from stages.components.ganspace import source_of

        yield from _problems(lambda: source_of(step, partial(opened_on, codec)).width())


def _problems(check: Callable[[], object]) -> Iterator[Problem]:
    try:
        check()
    except JobError as error:
        yield from error.problems


def _passes(step: ComponentsStep, ctx: Context) -> "Passes[Any, Found]":
    from stages.components.over_latents import OverLatents
    from stages.components.pca import pca
    from stages.components.principal import Limits

    dim = ctx.codec.latent.dim
    names = component_names(step, dim)
    match step.estimator:
        case "pca" | "whitening":
            return pca(step, names, OverLatents, dim=dim, limits=Limits())
        case "sefa":
            from stages.components.sefa import sefa, style_matrix, style_tensors

            weights = ctx.codec.load()
            tensors = style_tensors(weights, step, ctx.codec.spec, dim=dim)
            assert weights is not None
            return sefa(step, names, OverLatents, style_matrix(weights, tensors, dim=dim))
        case "ganspace":
            from stages.components.ganspace import ganspace, source_of

            source = source_of(step, partial(opened_on, ctx.codec))
            return ganspace(step, names, source, dim=dim, limits=Limits())
        case "jacobian":
            from stages.components.pullback import jacobian

            return jacobian(step, names, partial(opened_on, ctx.codec), dim=dim)
