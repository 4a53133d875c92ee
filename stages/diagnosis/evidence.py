"""What the findings are drawn from: the scan, the sample, the reference's draws, and what the decoder said."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from schemas.codec import LatentSpec
from stages.diagnosis.code_sample import SampledCodes
from stages.diagnosis.draws import aggregate_draws
from stages.diagnosis.probe import Probed
from stages.diagnosis.scan import Scanned
from stages.diagnosis.scores import Gaussian

Floats = npt.NDArray[np.float64]
Reference = str
PRIOR, GAUSSIAN = "prior", "gaussian"


@dataclass(frozen=True)
class Limits:
    """What flags are raised at. `active`: variance; `nats`: per dimension; `k`: neighbours."""

    active: float = 0.01
    nats: float = 0.01
    k: int = 5


@dataclass(frozen=True)
class Evidence:
    """`codes` (n, d): one draw from the posterior of each sampled row; `small`: the first of them, as many as `draws` (m, d).

    `reference`: what `draws` and `others` are draws of: the prior where the codec has one, else a Gaussian fitted to the codes.
    """

    latent: LatentSpec
    scanned: Scanned
    sample: SampledCodes
    codes: Floats
    mean: Floats
    covariance: Floats
    draws: Floats
    others: Floats
    reference: Reference
    limits: Limits
    seed: int
    probed: Probed | None = None

    def with_probe(self, probed: Probed) -> "Evidence":
        return replace(self, probed=probed)

    @property
    def small(self) -> Floats:
        return self.codes[: len(self.draws)]

    @property
    def dim(self) -> int:
        return self.latent.dim

    @property
    def aggregate_variance(self) -> Floats:
        """Of draws from all posteriors: Var E[z|x] + E Var[z|x] (d,)."""
        own = self.scanned.moments.z_variance
        sums = self.scanned.posterior
        return own if sums is None else own + sums.variance / self.scanned.n

    @property
    def gaussian(self) -> Gaussian:
        """Of the latents, for Mahalanobis distances: without the posterior's own width.

        From the sample: Σzzᵀ of every row costs 1.5 µs a row and core at d = 256 in float64 and .8 in float32, beside .25 for
        all else that the scan does. With fewer than two sampled rows a coordinate, coordinates are taken as independent, by
        the variances of all rows.
        """
        z = self.sample.latents.astype(np.float64)
        if len(z) < 2 * self.dim:
            return Gaussian.independent(self.scanned.moments.z_mean, self.scanned.moments.z_variance)
        return Gaussian.of(z.mean(0), covariance_of(z), len(z))


def gather(scanned: Scanned, latent: LatentSpec, *, limits: Limits, sample: int, seed: int) -> Evidence | None:
    """Everything but what the decoder says. None with fewer than two finite rows."""
    rows = scanned.sample.rows()
    if rows is None or len(rows) < 2:
        return None
    codes = aggregate_draws(rows)
    mean, covariance = codes.mean(0), covariance_of(codes)
    rng = np.random.default_rng([seed, latent.dim])
    count = min(sample, len(codes))
    draws, others = rng.normal(size=(2, count, latent.dim))
    reference = PRIOR
    if latent.prior == "none":
        reference = GAUSSIAN
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        draws, others = mean + draws @ root.T, mean + others @ root.T
    return Evidence(latent, scanned, rows, codes, mean, covariance, draws, others, reference, limits, seed)


def covariance_of(z: Floats) -> Floats:
    """(d, d), divided by n − 1, of rows (n, d)."""
    centred = z - z.mean(0)
    return np.asarray(centred.T @ centred / max(len(z) - 1, 1))


def probe_steps(evidence: Evidence, decodes: int) -> tuple[Floats, int]:
    """How far each coordinate is moved (d,), and for how many codes, so that about half of `decodes` pictures are made.

    One deviation of the prior, or of the data where there is no prior (the mean one for a coordinate that never varies). With
    more coordinates than half the pictures allow, some of them, by a seeded draw; the others have step 0.
    """
    room = decodes // 2
    dim = evidence.dim
    if evidence.reference == PRIOR:
        steps = np.ones(dim)
    else:
        deviations = np.sqrt(evidence.aggregate_variance)
        usual = float(deviations.mean()) or 1.0
        steps = np.where(deviations > 1e-3 * usual, deviations, usual)
    count = min(dim, max(room // 2, 1))
    if count < dim:
        left_out = np.random.default_rng([evidence.seed, dim]).permutation(dim)[count:]
        steps[left_out] = 0.0
    return steps, int(np.clip(room // (count + 1), 1, 64))
