"""Findings about codes themselves: norms, typicality, KL, active units, collapse, dimension. Each flag names its threshold."""

import json
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.stats import chi

from schemas.measurements import Measurement
from stages.diagnosis import posterior
from stages.diagnosis.evidence import PRIOR, Evidence
from stages.diagnosis.neighbours import participation_ratio, two_nn
from stages.diagnosis.norms import NORM_STD, NormHistogram, norm_deviations
from stages.diagnosis.scan import Scanned
from stages.diagnosis.scores import tail_share

Floats = npt.NDArray[np.float64]
SHELL_DEVIATIONS = 3.0
TAIL_SHARE = 0.05
COLLAPSED_SHARE = 0.1
SHOWN = 512
"""Coordinates listed in a measurement's detail; of more, every so many in order of size."""
NOISE = 1 / 12
"""Squared grey levels: the variance of rounding to whole grey levels."""


def about_rows(scanned: Scanned) -> Iterator[Measurement]:
    """How many rows there are, and how many were left out."""
    total = scanned.n + scanned.non_finite
    yield Measurement("rows", scanned.n, n=total)
    bad = scanned.non_finite
    yield Measurement(
        "non_finite_rows",
        bad,
        n=total,
        threshold=0,
        status="non_finite" if bad else "ok",
        message=f"{bad:,} of {total:,} rows hold NaN or infinity and were left out." if bad else "",
    )


def about_norms(evidence: Evidence) -> Iterator[Measurement]:
    """Norms against √d, typicality, Mahalanobis."""
    scanned, dim = evidence.scanned, evidence.dim
    norms = scanned.drawn_norms or scanned.norms
    has_prior = evidence.reference == PRIOR
    median = norms.quantile(0.5)
    deviations = float(norm_deviations(np.asarray(median), dim))
    off = has_prior and abs(deviations) > SHELL_DEVIATIONS
    yield Measurement(
        "norm",
        norms.mean,
        n=norms.n,
        low=norms.quantile(0.025),
        high=norms.quantile(0.975),
        detail=json.dumps(_histogram(norms, dim, prior=has_prior)),
        message=f"mean and middle 95 %; standard deviation {norms.std:.4g}; √d = {math.sqrt(dim):.4g}",
    )
    if not has_prior:
        return
    yield Measurement(
        "norm_deviation",
        deviations,
        target=PRIOR,
        n=norms.n,
        unit="σ",
        threshold=SHELL_DEVIATIONS,
        status="off_shell" if off else "ok",
        message=f"the median norm {median:.4g} is {abs(deviations):.3g} σ from √d = {math.sqrt(dim):.4g}; "
        f"{SHELL_DEVIATIONS:g} σ (of {NORM_STD:.3f}) are allowed."
        if off
        else "",
    )
    beyond = norms.beyond(dim, 3.0)
    tail = beyond > TAIL_SHARE
    yield Measurement(
        "atypical_share",
        beyond,
        target=PRIOR,
        n=norms.n,
        threshold=TAIL_SHARE,
        status="atypical" if tail else "ok",
        message=f"{100 * beyond:.1f} % of the rows have |typicality| above 3; {100 * TAIL_SHARE:.0f} % are allowed, 0.3 % expected."
        if tail
        else "",
    )


def about_spread(evidence: Evidence) -> Iterator[Measurement]:
    """Mahalanobis tails, participation ratio, intrinsic dimension of the latents."""
    z = evidence.sample.latents.astype(np.float64)
    gaussian = evidence.gaussian
    share = tail_share(gaussian.squared_distance(z, among=np.ones(len(z), np.bool_)), gaussian)
    heavy = share > TAIL_SHARE
    yield Measurement(
        "mahalanobis_tail",
        share,
        n=len(z),
        threshold=TAIL_SHARE,
        status="heavy_tails" if heavy else "ok",
        message=f"{100 * share:.1f} % of the rows have a Mahalanobis distance 3 σ above its mean; {100 * TAIL_SHARE:.0f} % are allowed."
        if heavy
        else ""
        if gaussian.n
        else f"coordinates taken as independent: {len(z):,} rows sampled for {evidence.dim:,} coordinates",
    )
    yield Measurement("participation_ratio", participation_ratio(evidence.covariance), n=len(z), unit="dimensions")
    found = two_nn(z[: len(evidence.draws)])
    if found is None:
        yield Measurement(
            "intrinsic_dimension", status="too_few_points", message="fewer than 20 different codes.", n=len(z)
        )
        return
    yield Measurement(
        "intrinsic_dimension",
        found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        unit="dimensions",
        message=f"{found.duplicates:,} codes lie on another." if found.duplicates else "",
    )


def about_use(evidence: Evidence) -> Iterator[Measurement]:
    """KL, active units, posterior width, collapse."""
    scanned, limits, dim = evidence.scanned, evidence.limits, evidence.dim
    variances = scanned.moments.z_variance
    units = posterior.active_units(variances, limits.active)
    fragile = abs(units.high - units.low) > max(COLLAPSED_SHARE * dim, 1)
    still = not variances.any()
    yield Measurement(
        "active_units",
        units.count,
        low=units.low,
        high=units.high,
        n=scanned.n,
        threshold=limits.active,
        status="collapsed" if still else "threshold_sensitive" if fragile else "ok",
        message="every image has the same code: no coordinate varies."
        if still
        else f"{units.count} of {dim} coordinates have Var E[z|x] above {limits.active:g}"
        + (f"; the count runs from {units.low} to {units.high} for three times and a third of it." if fragile else "."),
        detail=json.dumps({"curve": units.curve, "variances": spread(variances)}),
    )
    kl = posterior.kl_per_dimension(scanned)
    total, widths = posterior.total_kl(scanned), posterior.posterior_std(scanned)
    if kl is not None and total is not None and widths is not None:
        silent = total[0] / dim < limits.nats
        yield Measurement(
            "kl",
            total[0],
            low=total[0] - 1.96 * total[1],
            high=total[0] + 1.96 * total[1],
            n=scanned.n,
            unit="nats",
            threshold=limits.nats * dim,
            status="collapsed" if silent else "ok",
            message=f"{total[0]:.3g} nats over {dim} coordinates are {total[0] / dim:.2g} a coordinate; "
            f"under {limits.nats:g} the code says nothing about the image."
            if silent
            else "",
            detail=json.dumps({"per_dimension": spread(kl)}),
        )
        yield Measurement(
            "posterior_std", float(widths.mean()), n=scanned.n, detail=json.dumps({"per_dimension": spread(widths)})
        )
    yield from _collapse(evidence, kl, variances)


def _collapse(evidence: Evidence, kl: Floats | None, variances: Floats) -> Iterator[Measurement]:
    limits, probed, dim = evidence.limits, evidence.probed, evidence.dim
    # Without a posterior, what a coordinate says is taken from its variance: ½ log(1 + variance over the active threshold).
    said = kl if kl is not None else 0.5 * np.log1p(variances / (limits.active * max(float(variances.mean()), 1e-300)))
    yield Measurement(
        "silent_dimensions", int((said < limits.nats).sum()), n=dim, unit="dimensions", threshold=limits.nats
    )
    if probed is None or not (probed.times > 0).any():
        yield Measurement("collapsed_dimensions", status="not_measured", message="the decoder was not asked.", n=dim)
        return
    nats = posterior.sensitivity_nats(probed.mean_change, noise=NOISE)
    measured = np.isfinite(nats)
    yield Measurement(
        "decoder_sensitivity",
        float(nats[measured].mean()),
        low=float(nats[measured].min()),
        high=float(nats[measured].max()),
        n=int(measured.sum()),
        unit="nats",
        message="mean, least and greatest over coordinates",
        detail=json.dumps({"per_dimension": spread(nats[measured])}),
    )
    dead = posterior.collapsed(said, nats, nats=limits.nats)
    count, asked = int(dead.sum()), int(measured.sum())
    many = count > COLLAPSED_SHARE * asked
    yield Measurement(
        "collapsed_dimensions",
        count,
        n=asked,
        unit="dimensions",
        threshold=COLLAPSED_SHARE * asked,
        status="collapsed" if many else "ok",
        message=f"{count} of {asked} coordinates say less than {limits.nats:g} nats and the decoder does not hear them; "
        f"{100 * COLLAPSED_SHARE:.0f} % are allowed."
        if many
        else "",
        detail=json.dumps({"dimensions": np.flatnonzero(dead)[:SHOWN].tolist()}),
    )
    idle = int((measured & (said < limits.nats) & ~dead).sum())
    yield Measurement("heard_but_silent_dimensions", idle, n=asked, unit="dimensions")


def spread(values: Floats) -> list[float]:
    """Values from the greatest down; of more than `SHOWN`, every so many, first and last among them."""
    ordered = np.sort(values[np.isfinite(values)])[::-1]
    if len(ordered) > SHOWN:
        ordered = ordered[np.linspace(0, len(ordered) - 1, SHOWN).round().astype(int)]
    return [float(f"{v:.4g}") for v in ordered]


def _histogram(norms: NormHistogram, dim: int, *, prior: bool) -> dict[str, object]:
    """Bars of the middle 99.8 % of norms (and the prior's shell, where there is a prior), and what N(0, I) puts in each."""
    low, high = norms.quantile(0.001), norms.quantile(0.999)
    if prior:
        low = min(low, math.sqrt(dim) - 4 * NORM_STD)
        high = max(high, math.sqrt(dim) + 4 * NORM_STD)
    low, high = max(low * 0.99, 0.0), high * 1.01
    edges, rows = norms.bars(low, high, 60)
    found: dict[str, object] = {"edges": [float(e) for e in edges], "rows": rows.tolist(), "root_d": math.sqrt(dim)}
    if prior:
        found["expected"] = (np.diff(chi.cdf(edges, dim)) * norms.n).round(2).tolist()
    return found
