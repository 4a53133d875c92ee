"""What makes a fit impossible before any row is read: which estimator takes which labels and which options."""

from collections.abc import Iterator, Mapping, Sequence

from schemas.errors import Problem
from schemas.problems import did_you_mean
from schemas.source import LabelType
from schemas.steps import FitStep
from stages.grouping import BY_ID

REFRESHED = ("mean_difference", "balanced_mean_difference", "ols", "ridge", "lda")
"""Estimators whose statistic new rows add to and gone rows leave."""
NUMBERS = ("ols", "ridge")
"""Estimators that take numbers as well as classes."""
OPTIONS = {
    "controls": (("balanced_mean_difference",), "has no controls"),
    "l2": (("ols", "ridge", "logistic", "svm"), "has no penalty"),
    "folds": (("ridge",), "chooses nothing by cross-validation"),
    "missing": (("ols",), "takes each label on the rows that know it"),
    "pattern": (("ridge", "lda", "logistic", "svm"), "has no classifier's filter"),
    "extremes": (("mean_difference", "lda", "logistic", "svm"), "takes numbers as they are, or classes alone"),
    "shrinkage": (("lda",), "has no covariance to shrink"),
}
"""Options that only some estimators have, and what is said of the others."""
DEFAULT_FOLDS = 5
DEFAULT_SVM_L2 = 1.0


def check_fit(step: FitStep, labels: Mapping[str, LabelType], attributes: Sequence[str]) -> list[Problem]:
    """What makes the step impossible for these attributes, given every label's type; nothing is read."""
    at, controls = str(step.name), step.controls or ()
    named = [*((f"{at}.attributes", name) for name in attributes), *((f"{at}.controls", name) for name in controls)]
    problems = [
        Problem(f, name, "no such label.", did_you_mean(name, labels)) for f, name in named if name not in labels
    ]
    problems.extend(_check_types(step, labels, attributes))
    problems.extend(check_group(step.group, labels, at=f"{step.name}.group"))
    problems.extend(_check_refresh(step))
    for option, (estimators, said) in OPTIONS.items():
        value = getattr(step, option)
        if value not in (None, False, 0.0) and step.estimator not in estimators:
            fix = f"remove it, or use estimator: {' or '.join(estimators)}"
            value = list(value) if isinstance(value, tuple) else value
            problems.append(Problem(f"{at}.{option}", value, f"{step.estimator} {said}.", fix))
    if step.folds is not None and step.l2 is not None:
        reason = "a given l2 leaves nothing to choose."
        problems.append(Problem(f"{at}.folds", step.folds, reason, "remove one of the two"))
    if step.estimator == "svm" and step.l2 == 0:
        reason = "a margin without a penalty has no single best plane."
        problems.append(
            Problem(f"{at}.l2", 0.0, reason, "set l2 above 0 (LinearSVC's C = 1/l2), or leave it out for 1")
        )
    return problems


def folds_of(step: FitStep) -> int:
    """Parts of the training rows: more than one only where a penalty is chosen by them."""
    return (step.folds or DEFAULT_FOLDS) if step.estimator == "ridge" and step.l2 is None else 1


def _check_types(step: FitStep, labels: Mapping[str, LabelType], attributes: Sequence[str]) -> Iterator[Problem]:
    numbers = [name for name in attributes if labels.get(name) in ("int", "float")]
    if step.extremes is not None and not numbers:
        fix = "remove it, or fit an attribute that is a number"
        yield Problem(f"{step.name}.extremes", step.extremes, "none of the attributes is a number.", fix)
    for name in [] if step.extremes is not None else attributes:
        if step.estimator not in NUMBERS and labels.get(name) in ("int", "float"):
            left_out = "list the `attributes` to fit without it, " if len(attributes) > 1 else ""
            fix = f"{left_out}use estimator: {' or '.join(NUMBERS)}, declare it bool or category in source.labels.types, or set extremes (its top and bottom share)"
            yield Problem(
                f"{step.name}.attributes", name, f"{step.estimator} needs classes, and this is {labels[name]}.", fix
            )
    for name in step.controls or ():
        if labels.get(name) == "float":
            fix = "name controls that are bool, int or category, or use estimator: ols"
            yield Problem(f"{step.name}.controls", name, "a cell needs few distinct values, and this is float.", fix)


def check_group(group: str | None, labels: Mapping[str, LabelType], *, at: str) -> list[Problem]:
    """What is wrong with a group (stages/grouping.py) named in the field `at`."""
    if group == BY_ID:
        fix = "write id:/ to group by folder, or id:_ by what is before the last _"
        return [Problem(at, group, "no separator.", fix)]
    if group is None or group.startswith(BY_ID):
        return []
    if group not in labels:
        return [Problem(at, group, "no such label.", did_you_mean(group, labels) or "name a label, or write id:/")]
    if labels[group] == "float":
        return [Problem(at, group, "a group needs a name that repeats, and this is float.", "name another label")]
    return []


def _check_refresh(step: FitStep) -> Iterator[Problem]:
    if step.refresh == "off":
        return
    if step.estimator not in REFRESHED:
        fix = f"remove it, or use estimator: {', '.join(REFRESHED)}"
        yield Problem(f"{step.name}.refresh", step.refresh, f"{step.estimator} has no statistic to keep.", fix)
    if step.limit is not None:
        reason = "a limit chooses other rows when rows come, so nothing could be kept."
        yield Problem(f"{step.name}.refresh", step.refresh, reason, "use `where`, or remove one of the two")
