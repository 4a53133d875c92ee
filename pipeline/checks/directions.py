"""Checks of the steps that leave directions: what they are fitted to, and the codec that they are carried over from."""

from collections.abc import Iterator

from pipeline.checks.known import Known, check_labels
from pipeline.steps.compare import MAX_COMPARED, other_codec, ported_name
from pipeline.steps.fit import direction_name
from schemas.errors import JobError, Problem
from schemas.job import did_you_mean
from schemas.steps import CompareStep, FitStep


def check_fit(step: FitStep, at: str, known: Known) -> Iterator[Problem]:
    wanted = tuple(known.labels) if step.attributes == "all" else step.attributes
    if not wanted:
        yield Problem(f"{at}.attributes", None, "the source has no labels.", "give source.labels")
    named = {*wanted, *(step.controls or ())}
    yield from check_labels(wanted, f"{at}.attributes", known)
    yield from check_labels(step.controls or (), f"{at}.controls", known)
    if wanted and named <= known.labels.keys():
        from stages.directions.checks import check_fit  # loads torch: only for jobs that fit

        yield from check_fit(step, known.labels, wanted)
    known.directions |= {direction_name(step, a) for a in wanted}


def check_compare(step: CompareStep, at: str, known: Known) -> Iterator[Problem]:
    if known.store is None or known.codec is None:
        yield Problem(
            at, None, "there is nothing to compare with: the store is empty.", "encode with the other codec first"
        )
        return
    try:
        other = other_codec(step, known.store, known.job, here=known.codec)
    except JobError as error:
        yield from error.under(at)
        return
    if known.codec.latent.dim + other.latent.dim > MAX_COMPARED:
        both = f"{known.codec.latent.dim} + {other.latent.dim}"
        reason = f"latents of {both} numbers; together at most {MAX_COMPARED} can be held against each other."
        yield Problem(f"{at}.fingerprint", other.fingerprint[:16], reason, "compare codecs with smaller latents")
    statuses = {n: found[other.fingerprint] for n, found in known.stored.items() if other.fingerprint in found}
    theirs = {name for name, status in statuses.items() if status == "ok"}
    for name in () if step.directions == "all" else step.directions:
        if name in statuses and name not in theirs:
            yield Problem(f"{at}.directions", name, f"its fit ended as `{statuses[name]}`.", "name another one")
        elif name not in theirs:
            reason = f"codec {other.fingerprint[:16]} has no such direction."
            yield Problem(f"{at}.directions", name, reason, did_you_mean(name, theirs))
    wanted = theirs if step.directions == "all" else step.directions
    known.directions |= {ported_name(step, name) for name in wanted}
