"""What each step needs of the labels, the codec and the store: checked while planning, before anything runs.

A check yields problems; it raises nothing and touches nothing. Steps are checked in order, and what a step will leave
(a fit its directions) is there for those below it.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.codec import CodecRef
from pipeline.filters import Filters
from pipeline.steps.compare import MAX_COMPARED, other_codec, ported_name
from pipeline.steps.components import check_components, component_names
from pipeline.steps.fit import direction_name
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.errors import JobError, Problem
from schemas.job import Job, did_you_mean
from schemas.steps import (
    CODE_SETS,
    AnalogyStep,
    Around,
    CompareStep,
    ComponentsStep,
    ComposeStep,
    Covariance,
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
    TrustRegion,
    WalkStep,
)
from schemas.tables import label_types
from stages.code_sets.flow import flow_problems
from stages.code_sets.gaussian import FULL_DIM
from stages.code_sets.token_problems import discrete_problems


@dataclass
class Known:
    """What is known while planning. `stored`: directions of the dataset, name → fingerprints of the codecs they are for.

    `directions`: names a step may use: those of this codec, and those that steps above will have made.
    """

    job: Job
    codec: CodecRef | None
    labels: dict[str, Any]
    store: Store | None
    has_rows: bool
    stored: dict[str, set[str]] = field(default_factory=dict)
    directions: set[str] = field(default_factory=set)


def check_steps(
    job: Job, codec: CodecRef | None, labels: dict[str, Any], store: Store | None, *, has_rows: bool
) -> Iterator[Problem]:
    """Every problem of every step."""
    known = Known(job, codec, labels, store, has_rows, stored=_stored_directions(job, store))
    known.directions = {n for n, prints in known.stored.items() if codec is not None and codec.fingerprint in prints}
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
    match step:
        case EncodeStep():
            yield from _encode(step, known)
        case FitStep():
            yield from _fit(step, at, known)
        case ComponentsStep():
            yield from check_components(step, at, known.codec)
            known.directions |= set(component_names(step, known.codec.latent.dim if known.codec else None))
        case ProjectStep():
            from pipeline.steps.project import check_project  # loads scikit-learn: only for jobs that draw maps

            yield from check_labels([step.by] if step.by else [], f"{at}.by", known)
            yield from check_project(step, at, known.labels)
        case DisentanglementStep():
            yield from _factors(step, f"{at}.factors", known)
        case ComposeStep():
            yield from check_directions((*step.directions, *step.against), f"{at}.directions", known)
            from pipeline.steps.compose import composed_names  # scipy and torch: only for jobs that compose

            known.directions |= set(composed_names(step))
        case FidelityStep():
            yield from _code_sets(step, at, known)
        case TraverseStep():
            yield from check_directions(step.directions, f"{at}.directions", known)
            yield from check_coordinates(step.coordinates, f"{at}.coordinates", known)
            yield from _trust(step.trust, at, known)
        case EvaluateStep():
            yield from _evaluate(step, at, known)
        case CompareStep():
            yield from _compare(step, at, known)
        case InterpolateStep() if known.codec is not None:
            yield from _interpolate(step, at, known.codec, known.job)
        case EditStep():
            yield from _edit(step, at, known)
        case AnalogyStep():
            yield from _prior(step.around, f"{at}.around", known)
            yield from _trust(step.trust, at, known)
        case WalkStep():
            yield from _walk(step, at, known)
        case SampleStep():
            yield from _sample(step, at, known)
        case _:
            pass


def _compare(step: CompareStep, at: str, known: Known) -> Iterator[Problem]:
    if known.store is None or known.codec is None:
        yield Problem(
            at, None, "there is nothing to compare with: the store is empty.", "encode with the other codec first"
        )
        return
    try:
        other = other_codec(step, known.store, known.job, here=known.codec)
    except JobError as error:
        yield from (Problem(f"{at}.{p.field}", p.value, p.reason, p.fix) for p in error.problems)
        return
    if known.codec.latent.dim + other.latent.dim > MAX_COMPARED:
        both = f"{known.codec.latent.dim} + {other.latent.dim}"
        reason = f"latents of {both} numbers; together at most {MAX_COMPARED} can be held against each other."
        yield Problem(f"{at}.fingerprint", other.fingerprint[:16], reason, "compare codecs with smaller latents")
    theirs = {name for name, prints in known.stored.items() if other.fingerprint in prints}
    for name in () if step.directions == "all" else step.directions:
        if name not in theirs:
            reason = f"codec {other.fingerprint[:16]} has no such direction."
            yield Problem(f"{at}.directions", name, reason, did_you_mean(name, theirs))
    wanted = theirs if step.directions == "all" else step.directions
    known.directions |= {ported_name(step, name) for name in wanted}


def _evaluate(step: EvaluateStep, at: str, known: Known) -> Iterator[Problem]:
    yield from check_directions(step.directions, f"{at}.directions", known)
    yield from _evaluated_features(step, at, known)
    yield from check_labels([*step.slices, *([step.group] if step.group else [])], at, known)
    for name in step.slices:
        if known.labels.get(name) in ("int", "float"):
            fix = "declare it bool or category in source.labels.types, or slice by another label"
            yield Problem(f"{at}.slices", name, f"a slice needs classes, and this is {known.labels[name]}.", fix)
    if step.scorer != "reencode":
        from stages.evaluation.scorer import scored_attributes  # loads torch: only for jobs that evaluate

        try:
            scored_attributes(step.scorer, step.scorer_options, allow_code=known.job.allow_code)
        except JobError as error:
            yield from (Problem(f"{at}.{p.field}", p.value, p.reason, p.fix) for p in error.problems)
        if step.attributes is not None:
            fix = "leave `attributes` out"
            yield Problem(f"{at}.attributes", list(step.attributes), "your scorer names its own attributes.", fix)
        return
    yield from check_labels([name.split("=")[0] for name in step.attributes or ()], f"{at}.attributes", known)
    for name in step.attributes or ():
        if step.readout == "logistic" and known.labels.get(name) in ("int", "float"):
            fix = "use readout: ols, or declare it bool or category in source.labels.types"
            yield Problem(f"{at}.attributes", name, f"logistic needs classes, and this is {known.labels[name]}.", fix)


def _evaluated_features(step: EvaluateStep, at: str, known: Known) -> Iterator[Problem]:
    if step.extractor is None:
        return
    yield from _own_code(step.extractor, f"{at}.extractor", known)
    from stages.evaluation.kept_features import features_problem  # loads torch: only for jobs that evaluate

    pictures = 1 + len(step.directions) * sum(1 for strength in step.strengths if strength)
    if problem := features_problem(step, pictures, at=at):
        yield problem


def _interpolate(step: InterpolateStep, at: str, codec: CodecRef, job: Job) -> Iterator[Problem]:
    from stages.code_sets.interpolate import interpolate_problems

    stored = all(s.store_logvar for s in job.steps if isinstance(s, EncodeStep))
    yield from interpolate_problems(step, codec.latent, has_logvar=codec.has_logvar and stored, at=at)


def _fit(step: FitStep, at: str, known: Known) -> Iterator[Problem]:
    wanted = tuple(known.labels) if step.attributes == "all" else step.attributes
    if not wanted:
        yield Problem(f"{at}.attributes", None, "the source has no labels.", "give source.labels")
    named = {*wanted, *(step.controls or ())}
    yield from check_labels((*wanted, *(step.controls or ())), f"{at}.attributes", known)
    if wanted and named <= known.labels.keys():
        from stages.directions.checks import check_fit  # loads torch: only for jobs that fit

        yield from check_fit(step, known.labels, wanted)
    known.directions |= {direction_name(step, a) for a in wanted}


def _code_sets(step: FidelityStep, at: str, known: Known) -> Iterator[Problem]:
    above = known.job.steps[: [s.name for s in known.job.steps].index(step.name)]
    sets = [str(s.name) for s in above if s.stage in CODE_SETS]
    if not sets:
        fix = f"put one of {', '.join(CODE_SETS)} above it"
        yield Problem(f"{at}.of", None, "there are no code sets above this step.", fix)
    for name in step.of if sets else ():
        if name not in sets:
            yield Problem(f"{at}.of", name, "no code set above has this name.", did_you_mean(name, sets))
    for place, entry in (("extractor", step.extractor), ("path_distance", step.path_distance)):
        yield from _own_code(entry, f"{at}.{place}", known)


def _own_code(entry: str, at: str, known: Known) -> Iterator[Problem]:
    """A `module:Class` of the user's must be there, and allowed."""
    if ":" in entry:
        from stages.entry import import_entry

        try:
            import_entry(entry, field=at, allow_code=known.job.allow_code)
        except JobError as error:
            yield from error.problems


def _factors(step: DisentanglementStep, at: str, known: Known) -> Iterator[Problem]:
    if not (known.labels if step.factors == "all" else step.factors):
        yield Problem(at, None, "there are no labels to be factors.", "give source.labels")
    yield from check_labels(() if step.factors == "all" else step.factors, at, known)


def check_labels(names: Iterable[str], at: str, known: Known) -> Iterator[Problem]:
    """Names that must be labels of the dataset."""
    for name in names:
        if name not in known.labels:
            yield Problem(at, name, "no such label.", did_you_mean(name, known.labels))


def check_directions(names: Iterable[str], at: str, known: Known) -> Iterator[Problem]:
    """Names that must be directions of this codec, stored or made above. One of another codec is said so (design §5.5)."""
    for name in names:
        if name in known.directions or name.split("=")[0] in known.directions:
            continue
        if name in known.stored and known.codec is not None:
            other = sorted(known.stored[name])[0][:16]
            here = known.codec.fingerprint[:16]
            reason = f"was fitted for codec {other}; this job's codec is {here}. Spaces never mix."
            yield Problem(at, name, reason, "put a `fit` step above, or use that codec")
        else:
            yield Problem(at, name, "no such direction.", did_you_mean(name, known.directions))


def check_coordinates(indexes: Iterable[int], at: str, known: Known) -> Iterator[Problem]:
    """Indexes into the flattened latent."""
    for j in indexes:
        if known.codec and not 0 <= j < known.codec.latent.dim:
            dim = known.codec.latent.dim
            yield Problem(at, j, f"the latent has {dim} coordinates.", f"use 0 to {dim - 1}")


def _edit(step: EditStep, at: str, known: Known) -> Iterator[Problem]:
    from stages.code_sets.places import place_problems

    for i, change in enumerate(step.changes):
        here = f"{at}.changes.{i}"
        if change.direction is not None:
            yield from check_directions([change.direction], f"{here}.direction", known)
        if change.coordinate is not None:
            yield from check_coordinates([change.coordinate], f"{here}.coordinate", known)
        if known.codec:
            yield from place_problems(known.codec.latent, at=here, **change.within)
    yield from _trust(step.trust, at, known)


def _walk(step: WalkStep, at: str, known: Known) -> Iterator[Problem]:
    if step.start == "prior":
        yield from _prior("prior", f"{at}.start", known)
    if step.method == "pcn":
        yield from _prior(step.around, f"{at}.around", known)
        if known.codec and known.codec.latent.prior == "none" and step.around != "prior":
            yield from _covariance(step.covariance, f"{at}.covariance", known)
    yield from _trust(step.trust, at, known)


def _sample(step: SampleStep, at: str, known: Known) -> Iterator[Problem]:
    if step.method == "prior":
        yield from _prior("prior", f"{at}.method", known, fix="use method: gaussian or gmm")
    elif step.method == "flow":
        yield from flow_problems(known.codec.latent.dim if known.codec else None, at=at)
    else:
        components = step.components if step.method == "gmm" else 1
        yield from _covariance(step.covariance, f"{at}.covariance", known, count=components)
    yield from _trust(step.trust, at, known)


def _prior(around: Around, at: str, known: Known, *, fix: str = "use `data`") -> Iterator[Problem]:
    if around == "prior" and known.codec and known.codec.latent.prior == "none":
        yield Problem(at, around, f"the {known.codec.spec.family} codec has no prior to draw from.", fix)


def _covariance(covariance: Covariance, at: str, known: Known, *, count: int = 1) -> Iterator[Problem]:
    """`count` matrices have to fit where one of the largest would."""
    if covariance == "full" and known.codec and known.codec.latent.dim**2 * count > FULL_DIM**2:
        most = math.isqrt(FULL_DIM**2 // count)
        reason = f"a latent has {known.codec.latent.dim} numbers; {count} full covariance(s) end at {most}."
        yield Problem(at, covariance, reason, "use covariance: diagonal")


def _trust(trust: TrustRegion | None, at: str, known: Known) -> Iterator[Problem]:
    if trust is None or known.codec is None:
        return
    if trust.by == "typicality" and known.codec.latent.prior == "none":
        reason = f"the {known.codec.spec.family} codec has no prior N(0, I) to be typical of."
        yield Problem(f"{at}.trust.by", trust.by, reason, "use by: mahalanobis or by: neighbours")
    if trust.by == "mahalanobis":
        yield from _covariance(trust.covariance, f"{at}.trust.covariance", known)


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
        fix = (
            "keep the label columns and types as they were (labels.columns, labels.types), or use another dataset name"
        )
        yield Problem("source.labels", ", ".join(changed), "these labels are not those of the table.", fix)


def _latents(known: Known) -> Table | None:
    if known.store is None or known.codec is None:
        return None
    table = known.store.latents(known.job.dataset, known.codec.fingerprint)
    return table if table.exists() else None


def _stored_directions(job: Job, store: Store | None) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    if store is not None and store.directions().exists():
        for batch in store.directions().scan(["name", "fingerprint"], where=f"dataset = '{job.dataset}'"):
            for row in batch.to_pylist():
                found.setdefault(row["name"], set()).add(row["fingerprint"])
    return found
