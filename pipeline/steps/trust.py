"""What a code set's trust region stands on: one pass over the dataset for its Gaussian, or for a sample of its latents."""

from pipeline.context import Context
from pipeline.store.table import Table
from schemas.steps import Covariance, TrustRegion
from stages.code_sets.gaussian import Gaussian
from stages.code_sets.spread import CoordinateSpread, LatentSample
from stages.code_sets.trust import Neighbourhood, Region, Shell, Trust, ellipsoid

SAMPLE_ROWS = 4096
SAMPLE_VALUES = 2**21
"""Of a neighbourhood's sample: it travels to every worker, and every code is held against all of it."""


def trust_of(trust: TrustRegion | None, step: str, ctx: Context, latents: Table, version: int) -> Trust | None:
    """The region of the whole dataset, whatever rows the step selects. Raises JobError where the data cannot say."""
    if trust is None:
        return None
    dim = ctx.codec.latent.dim
    match trust.by:
        case "typicality":
            region: Region = Shell(dim, trust.reach)
        case "mahalanobis":
            gaussian = gaussian_of(step, ctx, latents, version, where=None, covariance=trust.covariance)
            region = ellipsoid(gaussian, trust, at=step)
        case "neighbours":
            splits = latents.splits(columns=["id", "latent"], version=version)
            rows = max(trust.k + 1, min(SAMPLE_ROWS, SAMPLE_VALUES // dim))
            sample = ctx.executor.reduce(splits, LatentSample(dim, rows)).rows()
            region = Neighbourhood.of(sample.latents, k=trust.k, limit=trust.reach, at=step)
    return Trust(region, clip=trust.outside == "clip")


def gaussian_of(
    step: str, ctx: Context, latents: Table, version: int, *, where: str | None, covariance: Covariance
) -> Gaussian:
    """Mean and covariance of the rows that `where` selects, in one pass."""
    splits = latents.splits(columns=["latent"], where=where, version=version)
    moments = ctx.executor.reduce(splits, CoordinateSpread(ctx.codec.latent.dim, full=covariance == "full"))
    return Gaussian.of(moments, at=f"{step}.where")
