"""What each step needs of the labels, the codec and the store: checked while planning, before anything runs.

A check yields problems; it raises nothing and touches nothing. Steps are checked in order, and what a step will leave
(a fit its directions) is there for those below it.
"""

from collections.abc import Iterator
from typing import Any

from pipeline.checks.abilities import check_abilities
from pipeline.checks.code_sets import check_edit, check_interpolate, check_prior, check_sample, check_trust, check_walk
from pipeline.checks.directions import check_compare, check_fit
from pipeline.checks.known import Known, check_coordinates, check_directions, check_labels
from pipeline.checks.measures import check_disentanglement, check_evaluate, check_fidelity
from pipeline.codec import CodecRef
from pipeline.filters import Filters
from pipeline.steps.components import check_components, component_names
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.errors import Problem
from schemas.job import Job
from schemas.steps import (
    AnalogyStep,
    CompareStep,
    ComponentsStep,
    ComposeStep,
    DisentanglementStep,
    EditStep,
    EncodeStep,
    EvaluateStep,
    FidelityStep,
    FitStep,
    InterpolateStep,
    ProjectStep,
    SampleStep,
    Step,
    TraverseStep,
    WalkStep,
)
from schemas.tables import label_types
from stages.code_sets.token_problems import discrete_problems

SOME = 4
"""Labels whose types are told where many differ."""


def check_steps(
    job: Job, codec: CodecRef | None, labels: dict[str, Any], store: Store | None, *, has_rows: bool
) -> Iterator[Problem]:
    """Every problem of every step."""
    known = Known(job, codec, labels, store, has_rows, stored=_stored_directions(job, store))
    if codec is not None:
        known.directions = {n for n, found in known.stored.items() if found.get(codec.fingerprint) == "ok"}
    filters = Filters(_latents(known), codec.latent if codec else None, labels)
    for i, step in enumerate(job.steps):
        at = f"steps.{i} ({step.stage})"
        yield from _check(step, at, known)
        if has_rows:  # else every label is unknown, and why has been said
            yield from filters.check(step, at)


def _check(step: Step, at: str, known: Known) -> Iterator[Problem]:
    if step.stage not in ("train", "encode", "report") and not known.has_rows:
        reason = f"dataset {known.job.dataset} has no latents of this codec."
        yield Problem(at, None, reason, "put an `encode` step above it")
    if known.codec is not None and (problems := list(discrete_problems(step, known.codec.latent, at=at))):
        yield from problems
        return
    if known.codec is not None:
        yield from check_abilities(step, at, known.codec.can)
    match step:
        case EncodeStep():
            yield from _encode(step, known)
        case FitStep():
            yield from check_fit(step, at, known)
        case ComponentsStep():
            yield from check_components(step, at, known.codec)
            known.directions |= set(component_names(step, known.codec.latent.dim if known.codec else None))
        case ProjectStep():
            from pipeline.steps.project import check_project  # loads scikit-learn: only for jobs that draw maps

            yield from check_labels([step.by] if step.by else [], f"{at}.by", known)
            yield from check_project(step, at, known.labels)
        case DisentanglementStep():
            yield from check_disentanglement(step, at, known)
        case ComposeStep():
            yield from check_directions((*step.directions, *step.against), f"{at}.directions", known)
            from pipeline.steps.compose import composed_names  # scipy and torch: only for jobs that compose

            known.directions |= set(composed_names(step))
        case FidelityStep():
            yield from check_fidelity(step, at, known)
        case TraverseStep():
            yield from check_directions(step.directions, f"{at}.directions", known)
            yield from check_coordinates(step.coordinates, f"{at}.coordinates", known)
            yield from check_trust(step.trust, at, known)
        case EvaluateStep():
            yield from check_evaluate(step, at, known)
        case CompareStep():
            yield from check_compare(step, at, known)
        case InterpolateStep() if known.codec is not None:
            yield from check_interpolate(step, at, known.codec, known.job)
        case EditStep():
            yield from check_edit(step, at, known)
        case AnalogyStep():
            yield from check_prior(step.around, f"{at}.around", known)
            yield from check_trust(step.trust, at, known)
        case WalkStep():
            yield from check_walk(step, at, known)
        case SampleStep():
            yield from check_sample(step, at, known)
        case _:
            pass


def _encode(step: EncodeStep, known: Known) -> Iterator[Problem]:
    """An existing latents table must fit what this run would write."""
    table = _latents(known)
    if table is None:
        return
    schema = table.schema
    held = "float16" if str(schema.field("latent").type.value_type) == "halffloat" else "float32"
    if held != step.latent_dtype:
        fix = f"set latent_dtype: {held}, or use another dataset name"
        yield Problem(f"{step.name}.latent_dtype", step.latent_dtype, f"the table holds {held}.", fix)
    stored = label_types(schema.field("labels").type) if "labels" in schema.names else {}
    if stored != known.labels:
        changed = sorted({name for name, _ in set(stored.items()) ^ set(known.labels.items())})
        told = [f"{n}: {stored.get(n, 'none')} there, {known.labels.get(n, 'none')} here" for n in changed[:SOME]]
        told += ["…"] if len(changed) > SOME else []
        fix = (
            "keep the label columns and types as they were (labels.columns, labels.types), or use another dataset name"
        )
        reason = f"these labels are not those of the table ({'; '.join(told)})."
        yield Problem("source.labels", ", ".join(changed), reason, fix)


def _latents(known: Known) -> Table | None:
    if known.store is None or known.codec is None:
        return None
    table = known.store.latents(known.job.dataset, known.codec.fingerprint)
    return table if table.exists() else None


def _stored_directions(job: Job, store: Store | None) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    if store is not None and store.directions().exists():
        for batch in store.directions().scan(["name", "fingerprint", "status"], where=f"dataset = '{job.dataset}'"):
            for row in batch.to_pylist():
                found.setdefault(row["name"], {})[row["fingerprint"]] = row["status"]
    return found
