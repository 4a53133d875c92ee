"""The evaluate step: stored directions tried on selected rows; pictures are decoded and scored where the workers are.

Three kinds of pass: labels alone (which go together), latents and labels of all rows (linear scores, where those are the
scorer), and the one that costs: every edit of every selected row decoded and scored.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from pipeline.attribution import can_refit, evidence
from pipeline.context import Context
from pipeline.groups import few_groups, ungrouped
from pipeline.measurements import store_measurements
from pipeline.selection import no_row_left, selection_clause
from pipeline.steps.codes import stored_direction
from pipeline.steps.fit import drive
from schemas.errors import JobError, Problem
from schemas.job import did_you_mean
from schemas.measurements import OK, Measurement
from schemas.source import LabelType
from schemas.steps import EvaluateStep
from schemas.tables import label_types
from stages.attributes import Census, Column
from stages.directions.effect import effect_length
from stages.evaluation.attribution import blame, leaks, scorer_leaks
from stages.evaluation.bake_off import bake_off
from stages.evaluation.design import Design, Edit, Fidelity, Slice
from stages.evaluation.effects import Effects, Evaluation
from stages.evaluation.entanglement import LabelCorrelation, direction_cosines, label_correlations
from stages.evaluation.fidelity import fidelity
from stages.evaluation.models import CodecSource
from stages.evaluation.questions import questions
from stages.evaluation.readout import (
    MAX_DIM,
    Readout,
    directions_readout,
    least_squares_readout,
    logistic_readout,
    ridge_readout,
)
from stages.evaluation.replicates import Results
from stages.evaluation.scorer import scored_attributes
from stages.evaluation.slices import slices

MAX_SLICES = 64
SHOWN_VALUES = 10
SPLIT_PICTURES = 4096
"""Pictures decoded for one split: some seconds of work, and no more lost when a worker dies."""


def evaluate(step: EvaluateStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns how many images were evaluated, how many left, and where the time went."""
    latents = ctx.latents
    version = latents.version
    schema = latents.schema
    known = label_types(schema.field("labels").type) if "labels" in schema.names else {}
    edits = tuple(_edit(name, step, ctx) for name in step.directions)
    own = step.scorer != "reencode"
    readout = None if own else _readout(step, ctx, edits, known, version)
    attributes = (
        scored_attributes(step.scorer, step.scorer_options, allow_code=ctx.job.allow_code)
        if readout is None
        else readout.attributes
    )
    design = Design(
        edits=edits,
        strengths=tuple(sorted(s for s in step.strengths if s)),
        unit=step.unit,
        attributes=attributes,
        readout=readout,
        slices=_slices(step, ctx, known, version),
        group=step.group,
        identity=step.identity,
        replicates=step.replicates,
        seed=step.seed,
    )
    where = selection_clause(step, latents, version)
    splits = latents.splits(
        columns=["id", "latent", *(["labels"] if known else [])],
        where=where,
        version=version,
        rows=max(1, SPLIT_PICTURES // design.pictures),
    )
    if not splits.rows:
        raise no_row_left(step, to=" to evaluate")
    if said := ungrouped(latents, step.group, where, version=version):
        ctx.notice(f"{step.name}: {said}")
    if said := few_groups(latents, step.group, where, version=version):
        ctx.notice(f"{step.name}: {said}")
    scored = {j: c for j, name in enumerate(attributes) if (c := _column(name, known)) is not None}
    design = replace(design, gradient=can_refit(design, scored), fidelity=_fidelity(step, splits.rows))
    source = CodecSource(ctx.codec.spec, ctx.codec.load, ctx.codec.allow_code)
    stage = Evaluation(design, source, scorer=step.scorer if own else None, scorer_options=step.scorer_options)
    ctx.started_step(step, total=splits.rows)
    state: Effects = ctx.executor.reduce(splits, stage)
    found = list(_measured(step, ctx, design, state, scored, version, where, readout))
    store_measurements(step, ctx, found, version=version)
    left = state.non_finite + state.not_decoded + state.not_scored
    ctx.progress(step, computed=splits.rows, committed=splits.rows, failed=left, total=splits.rows)
    if left:
        ctx.notice(f"{step.name}: {left} of {splits.rows} images left out, see the measurement `left_out`")
    spent = {kind: round(seconds, 3) for kind, seconds in state.seconds.items()}
    return {
        "rows": state.rows,
        "left_out": left,
        "pictures": state.rows * design.pictures,
        "measurements": len(found),
        "spent": spent,
    }


def _measured(
    step: EvaluateStep,
    ctx: Context,
    design: Design,
    state: Effects,
    scored: dict[int, Column],
    version: int,
    where: str | None,
    readout: Readout | None,
) -> Iterator[Measurement]:
    for reason, count in (
        ("non_finite", state.non_finite),
        ("not_decoded", state.not_decoded),
        ("not_scored", state.not_scored),
        ("not_featured", state.not_featured),
    ):
        yield Measurement("left_out", float(count), target=reason, n=state.rows, status=reason if count else OK)
    for attribute, why in readout.missing.items() if readout else ():
        reason = "its labels give no linear score, so it is not measured"
        yield Measurement("score_sigma", target=attribute, status=why, message=reason)
    yield from readout.knows if readout else ()
    told = evidence(step, ctx, design, state, scored, version)
    yield from told.left
    results = Results(design, state, step.confidence)
    rate = step.false_discoveries
    yield from chain(
        questions(results, false_discoveries=rate),
        fidelity(results),
        direction_cosines(design.edits),
        leaks(results),
        scorer_leaks(results, told.response),
        blame(results, told.response, told.refits),
        slices(results, false_discoveries=rate),
        bake_off(results),
    )
    columns = tuple(scored.values())
    if len(columns) > 1:
        splits = ctx.latents.splits(columns=["id", "labels"], where=where, version=version)
        stage = LabelCorrelation(columns, design.replicates, design.seed, design.group)
        sums = ctx.executor.reduce(splits, stage)
        yield from label_correlations(sums, columns, confidence=step.confidence)


def _fidelity(step: EvaluateStep, rows: int) -> Fidelity | None:
    if step.extractor is None:
        return None
    return Fidelity(step.extractor, step.extractor_options, step.fidelity_images).over(rows)


def _edit(name: str, step: EvaluateStep, ctx: Context) -> Edit:
    row = stored_direction(name, ctx)
    sigma = float(row["sigma"] or 0.0)
    if step.unit == "sigma" and not sigma > 0:
        reason = f"along it the data's standard deviation is {sigma:g}."
        raise JobError.one(f"{step.name}.unit", name, reason, "use unit: latent")
    effect = effect_length(row["estimator"], row["raw_norm"])
    if step.unit == "effect" and effect is None:
        raise JobError.one(f"{step.name}.unit", name, "it has no score to change.", "use unit: sigma")
    return Edit(
        name=name,
        attribute=row["attribute"] or "",
        estimator=row["estimator"],
        vector=np.array(row["vector"], np.float64),
        mean=np.array(row["mean"], np.float64),
        sigma=sigma,
        auc=row["auc"],
        mask=step.masks.get(name),
        effect=effect,
    )


def _readout(
    step: EvaluateStep, ctx: Context, edits: tuple[Edit, ...], known: dict[str, LabelType], version: int
) -> Readout:
    first = {edit.attribute: edit for edit in reversed(edits)}
    if step.readout == "direction":
        read = {n: (e.vector, e.mean) for n, e in first.items() if n in (step.attributes or first)}
        if not read:
            fix = f"name some of {', '.join(first)}, or leave `attributes` out"
            reason = "readout: direction reads the directions' own attributes, and none of these is one."
            raise JobError.one(f"{step.name}.attributes", list(step.attributes or ()), reason, fix)
        return directions_readout(read)
    # Directions that no labels made have names of their own: what they move is asked of all labels.
    named = tuple(name for name in dict.fromkeys(e.attribute for e in edits) if _column(name, known) is not None)
    wanted = step.attributes or named or tuple(name for name in known if _column(name, known) is not None)
    columns = [_needed_column(name, step, known) for name in wanted]
    _check_values(columns, step, ctx, version)
    splits = ctx.latents.splits(columns=["id", "latent", "labels"], version=version)
    dim = ctx.codec.latent.dim
    if step.readout == "ols" and dim <= MAX_DIM:
        found: Readout = drive(least_squares_readout(columns, dim=dim, group=step.group), ctx.executor, splits)
    else:
        types = {column.label: known[column.label] for column in columns}
        fitted = ridge_readout if step.readout == "ols" else logistic_readout
        found = drive(fitted(types, known, dim=dim), ctx.executor, splits).only(wanted)
        if dim <= MAX_DIM:
            found = found.beside(drive(least_squares_readout(columns, dim=dim, group=step.group), ctx.executor, splits))
    if not found.attributes:
        said = ", ".join(f"{name}: {why}" for name, why in found.missing.items())
        raise JobError.one(f"{step.name}.attributes", list(wanted), f"none can be scored ({said}).")
    return found


def _needed_column(name: str, step: EvaluateStep, known: dict[str, LabelType]) -> Column:
    column = _column(name, known)
    if column is None and known.get(name) == "category":
        fix = f"name one value, such as `{name}=red`"
        raise JobError.one(f"{step.name}.attributes", name, "is a category, and a score is of one value of it.", fix)
    if column is None:
        reason = "is no label, so no score can be fitted to it."
        fix = f"{did_you_mean(name, known)} Or use readout: direction, or a scorer of your own"
        raise JobError.one(f"{step.name}.attributes", name, reason, fix)
    return column


def _check_values(columns: list[Column], step: EvaluateStep, ctx: Context, version: int) -> None:
    """A value that no row has is a slip of the pen, not a score of one class. Raises JobError with the values there are."""
    asked = [column for column in columns if column.value is not None]
    if not asked:
        return
    splits = ctx.latents.splits(columns=["labels"], version=version)
    counts = ctx.executor.reduce(splits, Census(tuple(dict.fromkeys(column.label for column in asked))))
    wrong = []
    for column in asked:
        values = counts[column.label]
        if values is None or column.value in values:  # None: too many values to count
            continue
        fix = did_you_mean(str(column.value), values) or "name a value that rows have"
        reason = f"no row has this value; `{column.label}` is {', '.join(sorted(values)[:SHOWN_VALUES]) or 'missing everywhere'}."
        wrong.append(Problem(f"{step.name}.attributes", column.name, reason, fix))
    if wrong:
        raise JobError(wrong)


def _column(name: str, known: dict[str, LabelType]) -> Column | None:
    """`smiling`, or one value of a category against the others: `hair=red`."""
    label, _, value = name.partition("=")
    if known.get(label) == "category" and value:
        return Column(name, label, "category", value)
    return Column(name, name, known[name]) if known.get(name, "category") != "category" else None


def _slices(step: EvaluateStep, ctx: Context, known: dict[str, LabelType], version: int) -> tuple[Slice, ...]:
    categories = tuple(name for name in step.slices if known[name] == "category")
    values: dict[str, Iterable[str]] = {}
    if categories:
        splits = ctx.latents.splits(columns=["labels"], version=version)
        counts = ctx.executor.reduce(splits, Census(categories))
        values = {name: sorted(counts[name] or ()) for name in categories}
    found = []
    for name in step.slices:
        if known[name] == "bool":
            column = Column(name, name, "bool")
            found += [Slice(f"{name}=true", column), Slice(f"{name}=false", column, holds=False)]
        else:
            found += [Slice(f"{name}={v}", Column(f"{name}={v}", name, "category", v)) for v in values[name]]
    if len(found) > MAX_SLICES or any(not values[name] for name in categories):
        reason = f"these labels make {len(found)} slices, or none; at most {MAX_SLICES} are compared."
        raise JobError.one(f"{step.name}.slices", list(step.slices), reason, "slice by fewer, coarser labels")
    return tuple(found)
