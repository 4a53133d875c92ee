"""Code sets of discrete codecs: what they need of the table, and the codebook, which comes with the codec in the worker."""

import numpy as np

from pipeline.context import Context
from pipeline.selection import id_in
from pipeline.store.table import Table
from schemas.errors import JobError
from schemas.steps import EditStep, SampleStep, TokenChange
from stages.code_sets.discrete_edits import Array
from stages.code_sets.parents import CODES
from stages.code_sets.token_draws import TokenDraw
from stages.code_sets.token_edits import TokenReplacement
from stages.code_sets.token_priors import CountTokens, TokenCounts
from stages.code_sets.tokens import TokenStage
from stages.columns import matrix_of


def replacement_of(step: EditStep, change: TokenChange, ctx: Context, latents: Table, version: int) -> TokenStage:
    """The edit that puts tokens in. Raises JobError for ids the table lacks."""
    spec = ctx.codec.latent
    if change.histogram is not None:
        shares = _shares(step, change, ctx, latents, version)
        return TokenStage(step, spec, TokenReplacement(step, change, spec, shares=shares))
    if change.of is None:
        donor = np.full(spec.token_shape, change.code, np.int64)
        return TokenStage(step, spec, TokenReplacement(step, change, spec, donor=donor))
    row = latents.take([change.of], list(CODES), version=version).column(CODES[0]).combine_chunks()
    donor = matrix_of(row).astype(np.int64).reshape(spec.token_shape)
    return TokenStage(step, spec, TokenReplacement(step, change, spec, donor=donor))


def token_draw_of(step: SampleStep, ctx: Context, latents: Table, version: int, clause: str | None) -> TokenStage:
    """Sequences as likely as in the selected rows, counted in one pass."""
    counts = _counted(ctx, latents, version, clause, bigram=step.method == "bigram")
    if not counts.single.any() and not step.smoothing:
        raise JobError.one(
            f"{step.name}.where", step.where, "no token was counted.", "loosen it, or set smoothing above 0"
        )
    return TokenStage(step, ctx.codec.latent, TokenDraw(step, ctx.codec.latent, counts))


def _shares(step: EditStep, change: TokenChange, ctx: Context, latents: Table, version: int) -> Array:
    """How often each code occurs in the reference, (K,), summing to 1."""
    clause = None
    if isinstance(change.histogram, tuple):
        latents.take(change.histogram, ["id"], version=version)  # names the ids that are missing
        clause = id_in(change.histogram)
    single = _counted(ctx, latents, version, clause, bigram=False).single
    if not single.any():
        raise JobError.one(
            f"{step.name}.tokens.histogram", change.histogram, "no token was counted.", "name other images"
        )
    return np.asarray(single / single.sum())


def _counted(ctx: Context, latents: Table, version: int, clause: str | None, *, bigram: bool) -> TokenCounts:
    splits = latents.splits(columns=list(CODES), where=clause, version=version)
    stage = CountTokens(int(ctx.codec.latent.codebook or 0), bigram)
    return ctx.executor.reduce(splits, stage)
