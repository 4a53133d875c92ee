"""Analogies, walks and samples: which images or how many draws, and the distributions they need, each from one pass."""

from collections.abc import Sequence

import numpy as np

from pipeline.code_set import on_codec
from pipeline.context import Context
from pipeline.measurements import store_measurements
from pipeline.selection import selection_clause
from pipeline.steps.token_codes import token_draw_of
from pipeline.steps.trust import gaussian_of, sample_of_latents, trust_of
from pipeline.store.table import Table
from schemas.measurements import OK
from schemas.steps import TOKEN_DRAWS, AnalogyStep, Around, Covariance, SampleStep, WalkStep
from stages.code_sets.analogy import Analogy, analogy_method
from stages.code_sets.draw import Draw
from stages.code_sets.flow import Flow, fit_flow
from stages.code_sets.gaussian import Gaussian
from stages.code_sets.likelihoods import likelihoods
from stages.code_sets.mixture import Distribution, Mixture, fit_mixture
from stages.code_sets.pairing import random_triples
from stages.code_sets.parents import CodeStage
from stages.code_sets.walk import Walk
from stages.sample import MAX_ROWS, MAX_VALUES, SampledRows

Chosen = Sequence[Sequence[str]] | int | None
"""Whom a code set is made from: the parents of each row; how many draws; None for every selected row by itself."""


def analogy_of(step: AnalogyStep, ctx: Context, latents: Table, version: int) -> tuple[CodeStage, Chosen]:
    """The stage and its triples."""
    clause, mean = selection_clause(step, latents, version), None
    if analogy_method(step, ctx.codec.latent) == "lol":
        mean = _around(step.around, step, ctx, latents, version).mean
    trust = trust_of(step.trust, step, ctx, latents, version)
    triples: Sequence[Sequence[str]] = step.triples if step.triples != "random" else ()
    if step.triples == "random":
        scan = latents.scan(["id"], where=clause, version=version)
        ids = (i for batch in scan for i in batch.column("id").to_pylist())
        triples = random_triples(ids, count=step.count, seed=step.seed)
    return Analogy(step, ctx.codec.latent, mean=mean, trust=trust), list(dict.fromkeys(map(tuple, triples)))


def walk_of(step: WalkStep, ctx: Context, latents: Table, version: int) -> tuple[CodeStage, Chosen]:
    """The stage, and how many walks begin at draws."""
    gaussian = Gaussian.standard(ctx.codec.latent.dim)
    if step.method == "pcn":
        gaussian = _around(step.around, step, ctx, latents, version, covariance=step.covariance)
    trust = trust_of(step.trust, step, ctx, latents, version)
    stage = Walk(step, ctx.codec.latent, gaussian=gaussian, trust=trust)
    return stage, step.count if step.start == "prior" else None


def sample_of(step: SampleStep, ctx: Context, latents: Table, version: int) -> tuple[CodeStage, Chosen]:
    """The stage and how many draws; a mixture or a flow is fitted here, on a sample of the rows."""
    dim, clause = ctx.codec.latent.dim, selection_clause(step, latents, version)
    if step.method in TOKEN_DRAWS:
        return on_codec(token_draw_of(step, ctx, latents, version, clause), ctx.codec), step.count
    source: Distribution
    centre = np.zeros(dim)
    if step.method == "gaussian":
        gaussian = gaussian_of(step, ctx, latents, version, where=clause, covariance=step.covariance)
        source, centre = Mixture.of(gaussian), gaussian.mean
    else:
        if any(psi != 1 for psi in step.truncation):
            centre = gaussian_of(step, ctx, latents, version, where=clause, covariance="diagonal").mean
        source = Mixture.of(Gaussian.standard(dim))
        if step.method == "gmm":
            source = _mixture(step, ctx, latents, version, clause)
        elif step.method == "flow":
            source = _flow(step, ctx, latents, version, clause)
    trust = trust_of(step.trust, step, ctx, latents, version)
    stage = Draw(step, ctx.codec.latent, source=source, centre=centre, trust=trust)
    return on_codec(stage, ctx.codec), step.count


def _mixture(step: SampleStep, ctx: Context, latents: Table, version: int, clause: str | None) -> Mixture:
    sample = _sample(step, ctx, latents, version, clause, of="mixture")
    fitted = fit_mixture(
        sample.latents, components=step.components, covariance=step.covariance, seed=step.seed, at=str(step.name)
    )
    if not fitted.converged:
        ctx.notice(f"{step.name}: the mixture of {step.components} Gaussians did not converge on {fitted.rows:,} rows")
    return fitted.mixture


def _flow(step: SampleStep, ctx: Context, latents: Table, version: int, clause: str | None) -> Flow:
    """The flow; whether it was worth it is stored."""
    sample = _sample(step, ctx, latents, version, clause, of="flow")
    fitted = fit_flow(sample.latents, sample.hashes, seed=step.seed, at=str(step.name))
    found = likelihoods(fitted)
    if ctx.pinned is None:  # a page that is drawn again stores nothing
        store_measurements(step, ctx, found, version=version)
    for odd in (m for m in found if m.status != OK):
        ctx.notice(f"{step.name}: {odd.message}")
    return fitted.flow


def _sample(
    step: SampleStep, ctx: Context, latents: Table, version: int, clause: str | None, *, of: str
) -> SampledRows:
    """What `of` is fitted to."""
    rows = max(1, min(MAX_ROWS, MAX_VALUES // ctx.codec.latent.dim))
    return sample_of_latents(step, ctx, latents, version, where=clause, rows=rows, of=of)


def _around(
    around: Around,
    step: AnalogyStep | WalkStep,
    ctx: Context,
    latents: Table,
    version: int,
    *,
    covariance: Covariance = "diagonal",
) -> Gaussian:
    """The prior's Gaussian, or the data's."""
    if around == "prior" or (around == "auto" and ctx.codec.latent.prior != "none"):
        return Gaussian.standard(ctx.codec.latent.dim)
    return gaussian_of(step, ctx, latents, version, where=None, covariance=covariance)
