"""What a code set's trust region stands on: one pass over the dataset for its Gaussian, or for a sample of its latents."""

from pipeline.context import Context
from pipeline.measurements import store_non_finite
from pipeline.store.table import Table
from schemas.steps import CodeSetStep, Covariance, TrustRegion
from stages.code_sets.gaussian import Gaussian
from stages.code_sets.spread import CoordinateSpread, LatentSample
from stages.code_sets.trust import Neighbourhood, Region, Shell, Trust, ellipsoid
from stages.moments import Moments
from stages.sample import SampledRows

SAMPLE_ROWS = 4096
SAMPLE_VALUES = 2**21
"""Of a neighbourhood's sample: it travels to every worker, and every code is held against all of it."""
REGION = "trust region"


def trust_of(trust: TrustRegion | None, step: CodeSetStep, ctx: Context, latents: Table, version: int) -> Trust | None:
    """The region of the whole dataset, whatever rows the step selects. Raises JobError where the data cannot say."""
    if trust is None:
        return None
    dim, at = ctx.codec.latent.dim, str(step.name)
    match trust.by:
        case "typicality":
            region: Region = Shell(dim, trust.reach)
        case "mahalanobis":
            gaussian = gaussian_of(step, ctx, latents, version, where=None, covariance=trust.covariance, of=REGION)
            region = ellipsoid(gaussian, trust, at=at)
        case "neighbours":
            rows = max(trust.k + 1, min(SAMPLE_ROWS, SAMPLE_VALUES // dim))
            sample = sample_of_latents(step, ctx, latents, version, where=None, rows=rows, of=REGION)
            region = Neighbourhood.of(sample.latents, k=trust.k, limit=trust.reach, at=at)
    return Trust(region, clip=trust.outside == "clip")


def gaussian_of(
    step: CodeSetStep,
    ctx: Context,
    latents: Table,
    version: int,
    *,
    where: str | None,
    covariance: Covariance,
    of: str = "gaussian",
) -> Gaussian:
    """Mean and covariance of the rows that `where` selects, in one pass."""
    moments = moments_of(step, ctx, latents, version, where=where, full=covariance == "full", of=of)
    return Gaussian.of(moments, at=f"{step.name}.where")


def moments_of(
    step: CodeSetStep,
    ctx: Context,
    latents: Table,
    version: int,
    *,
    where: str | None = None,
    full: bool = False,
    of: str = "coordinates",
) -> Moments:
    """Moments of the rows that `where` selects. Rows without a finite latent are counted in the measurements."""
    splits = latents.splits(columns=["latent"], where=where, version=version)
    moments: Moments = ctx.executor.reduce(splits, CoordinateSpread(ctx.codec.latent.dim, full=full))
    store_non_finite(step, ctx, splits.rows - moments.n, of=of, n=moments.n, version=version)
    return moments


def sample_of_latents(
    step: CodeSetStep, ctx: Context, latents: Table, version: int, *, where: str | None, rows: int, of: str
) -> SampledRows:
    """At most `rows` rows that `where` selects, by hash of the id. Those that are not finite are counted likewise."""
    splits = latents.splits(columns=["id", "latent"], where=where, version=version)
    found = ctx.executor.reduce(splits, LatentSample(ctx.codec.latent.dim, rows))
    sample = found.sample.rows()
    store_non_finite(step, ctx, found.non_finite, of=of, n=len(sample), version=version)
    return sample
