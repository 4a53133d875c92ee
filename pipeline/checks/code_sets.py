"""Checks of the steps that define codes: where they start, where they may lead, and what a covariance may cost."""

import math
from collections.abc import Iterator

from pipeline.checks.known import Known, check_coordinates, check_directions
from pipeline.codec import CodecRef
from schemas.errors import Problem
from schemas.job import Job
from schemas.steps import Around, Covariance, EditStep, EncodeStep, InterpolateStep, SampleStep, TrustRegion, WalkStep
from stages.code_sets.flow import flow_problems
from stages.code_sets.gaussian import FULL_DIM


def check_interpolate(step: InterpolateStep, at: str, codec: CodecRef, job: Job) -> Iterator[Problem]:
    from stages.code_sets.interpolate import interpolate_problems

    stored = all(s.store_logvar for s in job.steps if isinstance(s, EncodeStep))
    yield from interpolate_problems(step, codec.latent, has_logvar=codec.has_logvar and stored, at=at)


def check_edit(step: EditStep, at: str, known: Known) -> Iterator[Problem]:
    from stages.code_sets.places import place_problems

    for i, change in enumerate(step.changes):
        here = f"{at}.changes.{i}"
        if change.direction is not None:
            yield from check_directions([change.direction], f"{here}.direction", known)
        if change.coordinate is not None:
            yield from check_coordinates([change.coordinate], f"{here}.coordinate", known)
        if known.codec:
            yield from place_problems(known.codec.latent, at=here, **change.within)
    yield from check_trust(step.trust, at, known)


def check_walk(step: WalkStep, at: str, known: Known) -> Iterator[Problem]:
    if step.start == "prior":
        yield from check_prior("prior", f"{at}.start", known, fix="use start: rows")
    if step.method == "pcn":
        yield from check_prior(step.around, f"{at}.around", known)
        if known.codec and known.codec.latent.prior == "none" and step.around != "prior":
            yield from _covariance(step.covariance, f"{at}.covariance", known)
    yield from check_trust(step.trust, at, known)


def check_sample(step: SampleStep, at: str, known: Known) -> Iterator[Problem]:
    if step.method == "prior":
        yield from check_prior("prior", f"{at}.method", known, fix="use method: gaussian or gmm")
    elif step.method == "flow":
        yield from flow_problems(known.codec.latent.dim if known.codec else None, at=at)
    else:
        components = step.components if step.method == "gmm" else 1
        yield from _covariance(step.covariance, f"{at}.covariance", known, count=components)
    yield from check_trust(step.trust, at, known)


def check_prior(around: Around, at: str, known: Known, *, fix: str = "use `data`") -> Iterator[Problem]:
    if around == "prior" and known.codec and known.codec.latent.prior == "none":
        yield Problem(at, around, f"the {known.codec.spec.family} codec has no prior to draw from.", fix)


def _covariance(covariance: Covariance, at: str, known: Known, *, count: int = 1) -> Iterator[Problem]:
    """`count` matrices have to fit where one of the largest would."""
    if covariance == "full" and known.codec and known.codec.latent.dim**2 * count > FULL_DIM**2:
        most = math.isqrt(FULL_DIM**2 // count)
        reason = f"a latent has {known.codec.latent.dim} numbers; {count} full covariance(s) end at {most}."
        yield Problem(at, covariance, reason, "use covariance: diagonal")


def check_trust(trust: TrustRegion | None, at: str, known: Known) -> Iterator[Problem]:
    if trust is None or known.codec is None:
        return
    if trust.by == "typicality" and known.codec.latent.prior == "none":
        reason = f"the {known.codec.spec.family} codec has no prior N(0, I) to be typical of."
        yield Problem(f"{at}.trust.by", trust.by, reason, "use by: mahalanobis or by: neighbours")
    if trust.by == "mahalanobis":
        yield from _covariance(trust.covariance, f"{at}.trust.covariance", known)
