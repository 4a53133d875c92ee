"""`latentmill power`: the power planner over a dataset as its readers see it, in this process."""

from dataclasses import replace

from pipeline.executors.local import LocalExecutor
from pipeline.readers import open_dataset
from pipeline.steps.fit import drive
from schemas.errors import JobError
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import did_you_mean
from schemas.tables import label_types
from stages.attributes import Column
from stages.directions.checks import check_group
from stages.directions.direction import FitStatus
from stages.directions.power import ESTIMATORS, plan_labels
from stages.directions.power_fits import WITH_CONTROLS
from stages.directions.power_law import Plan
from stages.grouping import with_groups


def plan_power(
    store: str,
    options: dict[str, str],
    dataset: str | None,
    *,
    attribute: str,
    target_cosine: float,
    estimator: str = "mean_difference",
    controls: tuple[str, ...] | None = None,
    where: str | None = None,
    group: str | None = None,
    confidence: float = 0.95,
) -> Plan:
    """One scan of the table or two. Raises JobError for what cannot be planned: an unknown or numeric attribute, one class, no labels.

    `controls`: attributes that ols and balanced_mean_difference are fitted with; default: all other labels of two classes.
    """
    if estimator not in ESTIMATORS:
        fix = f"plan with one of {', '.join(ESTIMATORS)}"
        raise JobError.one("--estimator", estimator, "the planner does not know it.", fix)
    if controls is not None and estimator not in WITH_CONTROLS:
        fix = f"remove it, or use --estimator {' or '.join(WITH_CONTROLS)}"
        raise JobError.one("--controls", ",".join(controls), f"{estimator} looks at no other attribute.", fix)
    for field, value in (("--target-cosine", target_cosine), ("--confidence", confidence)):
        if not 0 < value < 1:
            raise JobError.one(field, value, "is not between 0 and 1.", "ask for 0.9")
    view = open_dataset(store, options, dataset)
    schema = view.table.schema
    known = label_types(schema.field("labels").type) if "labels" in schema.names else {}
    column = _column("--attribute", attribute, dict(known))
    others = _others(column, controls, dict(known)) if estimator in WITH_CONTROLS else ()
    splits = view.table.splits(columns=["id", "latent", "labels"], where=where, version=view.version)
    if problems := check_group(group, known, at="--group"):
        raise JobError(list(problems))
    passes = plan_labels(
        column,
        dim=view.latent.dim,
        cosine=target_cosine,
        confidence=confidence,
        estimator=estimator,
        controls=others,
    )
    plan: Plan = drive(with_groups(passes, group), LocalExecutor(LocalSpec()), splits)
    if plan.rows == 0:
        raise JobError.one("--where", where, "no row is left.", "loosen the filter")
    match plan.status:
        case FitStatus.NO_LABELS:
            reason, fix = f"all {plan.rows:,} rows lack this label.", "label some rows of each class first"
        case FitStatus.SINGLE_CLASS | FitStatus.TOO_FEW:
            reason = f"has {plan.n_positive:,} rows with it and {plan.n_negative:,} without."
            fix = "label at least two rows of each class"
        case FitStatus.COLLINEAR:  # what helps a fit, a penalty, is none of this command's options
            told = f"its labels follow from those of {', '.join(plan.controls)}; name fewer with --controls"
            return replace(plan, message=told)
        case _:
            return plan
    raise JobError.one("--attribute", attribute, reason, fix)


def _others(column: Column, controls: tuple[str, ...] | None, known: dict[str, str]) -> tuple[Column, ...]:
    """The attributes that `column` is fitted with."""
    names = [name for name, kind in known.items() if kind == "bool"] if controls is None else controls
    found = [_column("--controls", name, known) for name in dict.fromkeys(names) if name != column.name]
    if clash := [one.name for one in found if one.label == column.label]:
        reason = f"is a value of {column.label}, like {column.name}: each follows from the others."
        raise JobError.one("--controls", clash[0], reason, "leave it out")
    return tuple(found)


def _column(field: str, attribute: str, known: dict[str, str]) -> Column:
    """`smiling`, or `hair=red` for one value of a category against the rest."""
    label, equals, value = attribute.partition("=")
    kind = known.get(label)
    if kind is None:
        raise JobError.one(field, attribute, "no such label.", did_you_mean(label, known))
    if kind == "category" and not equals:
        fix = f"name one value: {field} {label}=VALUE"
        raise JobError.one(field, attribute, "is a category, and two classes are needed.", fix)
    if kind in ("int", "float"):
        fix = "name a bool label, or one value of a category"
        raise JobError.one(field, attribute, f"is {kind}, and two classes are needed.", fix)
    return Column(attribute, label, "category", value) if equals else Column(attribute, label, "bool")
