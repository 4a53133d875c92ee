"""Checks of the steps that measure: evaluations, fidelity, disentanglement."""

from collections.abc import Iterator

from pipeline.checks.known import Known, check_directions, check_entry, check_labels
from schemas.errors import JobError, Problem
from schemas.job import did_you_mean
from schemas.steps import CODE_SETS, DisentanglementStep, EvaluateStep, FidelityStep


def check_evaluate(step: EvaluateStep, at: str, known: Known) -> Iterator[Problem]:
    yield from check_directions(step.directions, f"{at}.directions", known)
    yield from _features(step, at, known)
    yield from check_labels(step.slices, f"{at}.slices", known)
    yield from check_labels([step.group] if step.group else [], f"{at}.group", known)
    for name in step.slices:
        if known.labels.get(name) in ("int", "float"):
            fix = "declare it bool or category in source.labels.types, or slice by another label"
            yield Problem(f"{at}.slices", name, f"a slice needs classes, and this is {known.labels[name]}.", fix)
    if step.scorer != "reencode":
        from stages.evaluation.scorer import scored_attributes  # loads torch: only for jobs that evaluate

        try:
            scored_attributes(step.scorer, step.scorer_options, allow_code=known.job.allow_code)
        except JobError as error:
            yield from error.under(at)
        if step.attributes is not None:
            fix = "leave `attributes` out"
            yield Problem(f"{at}.attributes", list(step.attributes), "your scorer names its own attributes.", fix)
        return
    yield from check_labels([name.split("=")[0] for name in step.attributes or ()], f"{at}.attributes", known)
    for name in step.attributes or ():
        if known.labels.get(name) == "category":
            fix = f"name one value, such as `{name}=VALUE`"
            yield Problem(f"{at}.attributes", name, "is a category, and a score is of one value of it.", fix)
        if step.readout == "logistic" and known.labels.get(name) in ("int", "float"):
            fix = "use readout: ols, or declare it bool or category in source.labels.types"
            yield Problem(f"{at}.attributes", name, f"logistic needs classes, and this is {known.labels[name]}.", fix)


def _features(step: EvaluateStep, at: str, known: Known) -> Iterator[Problem]:
    if step.extractor is None:
        return
    yield from check_entry(step.extractor, f"{at}.extractor", known)
    from stages.evaluation.kept_features import features_problem  # loads torch: only for jobs that evaluate

    pictures = 1 + len(step.directions) * sum(1 for strength in step.strengths if strength)
    if problem := features_problem(step, pictures, at=at):
        yield problem


def check_fidelity(step: FidelityStep, at: str, known: Known) -> Iterator[Problem]:
    above = known.job.steps[: [s.name for s in known.job.steps].index(step.name)]
    sets = [str(s.name) for s in above if s.stage in CODE_SETS]
    if not sets:
        fix = f"put one of {', '.join(CODE_SETS)} above it"
        yield Problem(f"{at}.of", None, "there are no code sets above this step.", fix)
    for name in step.of if sets else ():
        if name not in sets:
            yield Problem(f"{at}.of", name, "no code set above has this name.", did_you_mean(name, sets))
    yield from _group(step.group, at, known)
    for place, entry in (("extractor", step.extractor), ("path_distance", step.path_distance)):
        yield from check_entry(entry, f"{at}.{place}", known)


def check_disentanglement(step: DisentanglementStep, at: str, known: Known) -> Iterator[Problem]:
    if not (known.labels if step.factors == "all" else step.factors):
        yield Problem(f"{at}.factors", None, "there are no labels to be factors.", "give source.labels")
    yield from check_labels(() if step.factors == "all" else step.factors, f"{at}.factors", known)
    yield from _group(step.group, at, known)


def _group(group: str | None, at: str, known: Known) -> Iterator[Problem]:
    if group is not None:
        from stages.directions.checks import check_group  # loads torch: only for jobs that group

        yield from check_group(group, known.labels, at=f"{at}.group")
