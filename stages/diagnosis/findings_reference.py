"""Findings about codes beside draws of the reference: is the aggregate the prior, where are holes, what comes back."""

import json
from collections.abc import Iterator

import numpy as np

from schemas.measurements import Measurement
from stages.diagnosis import aggregate
from stages.diagnosis.evidence import PRIOR, Evidence
from stages.diagnosis.findings import spread
from stages.diagnosis.neighbours import FEWEST_DRAWS, Overlap, coverage_map, overlap
from stages.diagnosis.probe import CODE, DRAW

NATS_A_DIMENSION = 0.1
KS, W1, SLICED_W2 = 0.1, 0.25, 0.15
MMD_VALUE, MMD_P = 0.01, 0.005
C2ST = 0.65
SHARE_OF_EXPECTED = 0.5
CYCLE_RATIO = 2.0
NOISE_ALLOWED = 1.5
"""Times what draws of the prior itself read with as many rows: below that a distance is chance."""
TWO_SAMPLE_ROWS = 2000
MMD_ROWS = 1000
WORST = 12


def about_prior(evidence: Evidence) -> Iterator[Measurement]:
    """Distances of the aggregate from N(0, I). One measurement that says so where the codec has no prior."""
    if evidence.reference != PRIOR:
        yield Measurement("prior_match", status="no_prior", message="this codec has no prior to compare with.")
        return
    dim = evidence.dim
    diagonal = float(aggregate.diagonal_kl(evidence.scanned.moments.z_mean, evidence.aggregate_variance).sum())
    yield _held("aggregate_kl_diagonal", diagonal, NATS_A_DIMENSION * dim, n=evidence.scanned.n, unit="nats")
    full = aggregate.full_kl(evidence.mean, evidence.covariance, len(evidence.codes))
    if full is None:
        yield Measurement("aggregate_kl_full", status="singular", n=len(evidence.codes), unit="nats",
                          message="the covariance of the sample is singular.")  # fmt: skip
    else:
        yield _held("aggregate_kl_full", full, NATS_A_DIMENSION * dim, n=len(evidence.codes), unit="nats")
    yield from _marginals(evidence, diagonal)
    sliced = aggregate.sliced_w2(evidence.codes, seed=evidence.seed)
    chance = NOISE_ALLOWED * _shrunk(evidence) * aggregate.sliced_w2(evidence.others, seed=evidence.seed)
    yield _held("sliced_w2", sliced, max(SLICED_W2, chance), n=len(evidence.codes), unit="σ")
    yield from _two_samples(evidence)


def _marginals(evidence: Evidence, gaussian: float) -> Iterator[Measurement]:
    n, dim = evidence.codes.shape
    ks, w1 = aggregate.marginals(evidence.codes)
    bound = max(KS, aggregate.ks_bound(n, dim))
    blind = (
        f" The Gaussian KL reads {gaussian:.2g} nats and cannot see this." if gaussian < NATS_A_DIMENSION * dim else ""
    )
    chance = NOISE_ALLOWED * _shrunk(evidence) * float(aggregate.marginals(evidence.others)[1].max())
    for name, values, threshold in (("ks", ks, bound), ("w1", w1, max(W1, chance))):
        worst = int(values.argmax())
        high = values[worst] > threshold
        yield Measurement(
            f"{name}_greatest",
            float(values[worst]),
            subject=f"coordinate {worst}",
            target=PRIOR,
            n=n,
            threshold=threshold,
            status="not_prior" if high else "ok",
            message=f"{int((values > threshold).sum())} of {dim} coordinates are further than {threshold:.3g} from N(0, 1); "
            f"coordinate {worst} is at {values[worst]:.3g}.{blind}"
            if high
            else "",
            detail=json.dumps({"per_dimension": spread(values)}),
        )


def _shrunk(evidence: Evidence) -> float:
    """How much smaller chance is with the rows of `codes` than with those of `others`."""
    return float(np.sqrt(len(evidence.others) / len(evidence.codes)))


def _two_samples(evidence: Evidence) -> Iterator[Measurement]:
    rows = min(MMD_ROWS, len(evidence.draws))
    if rows < 20:
        yield Measurement("mmd", status="too_few_points", n=rows, message="fewer than 20 codes.")
        return
    found = aggregate.mmd(evidence.small[:rows], evidence.draws[:rows], seed=evidence.seed)
    high = found.value > MMD_VALUE and found.p < MMD_P
    yield Measurement(
        "mmd",
        found.value,
        target=PRIOR,
        n=rows,
        threshold=MMD_VALUE,
        status="not_prior" if high else "ok",
        message=f"MMD² is {found.value:.3g} (p {found.p:.2g} by permutation); {MMD_VALUE:g} is allowed."
        if high
        else f"p {found.p:.2g} by permutation",
    )
    rows = min(TWO_SAMPLE_ROWS, len(evidence.draws))
    told = aggregate.two_sample(evidence.small[:rows], evidence.draws[:rows], seed=evidence.seed)
    apart = told.low > C2ST
    yield Measurement(
        "two_sample_accuracy",
        told.accuracy,
        target=PRIOR,
        low=told.low,
        high=told.high,
        n=told.n,
        threshold=C2ST,
        status="not_prior" if apart else "ok",
        message=f"a classifier tells codes from draws of the prior in {100 * told.accuracy:.1f} % of cases (.5: it cannot); "
        f"the interval lies above {C2ST:g}."
        if apart
        else "",
    )


def about_holes(evidence: Evidence) -> Iterator[Measurement]:
    """Precision, recall, density and coverage of draws against codes, beside what draws against draws give; the map."""
    k = min(evidence.limits.k, len(evidence.draws) - 1)
    found = overlap(evidence.small, evidence.draws, k=k)
    same = overlap(evidence.others, evidence.draws, k=k)
    for name, status, told in (
        ("precision", "holes", "of the draws fall near an image's code"),
        ("recall", "uncovered", "of the images lie where draws fall"),
        ("density", "ok", ""),
        ("coverage", "uncovered", "of the images have a draw nearer than their neighbours"),
    ):
        yield _against_expected(evidence, found, same, name, status, told)
    yield from _map(evidence, found)
    yield from _cycle(evidence)


def _against_expected(
    evidence: Evidence, found: Overlap, same: Overlap, name: str, status: str, told: str
) -> Measurement:
    value, expected = getattr(found, name), getattr(same, name)
    low, high = found.interval(value) if name != "density" else (None, None)
    threshold = SHARE_OF_EXPECTED * expected
    bad = status != "ok" and (high if high is not None else value) < threshold
    return Measurement(
        name,
        value,
        target=evidence.reference,
        low=low,
        high=high,
        n=found.n,
        threshold=threshold if status != "ok" else None,
        status=status if bad else "ok",
        message=f"{100 * value:.1f} % {told}; two sets of draws give {100 * expected:.1f} %, and less than half of that is a sign of "
        f"{'holes' if status == 'holes' else 'images out of reach'}."
        if bad
        else f"two sets of draws give {expected:.3g}",
    )


def _map(evidence: Evidence, found: Overlap) -> Iterator[Measurement]:
    seen = coverage_map(evidence.small, evidence.draws)
    holes = int(seen.holes.sum())
    cells = int((seen.draws >= FEWEST_DRAWS).sum())
    worst = np.argsort(found.gap)[::-1][:WORST]
    yield Measurement(
        "hole_cells",
        holes,
        target=evidence.reference,
        n=cells,
        unit="cells",
        message=f"among {cells} cells with {FEWEST_DRAWS} draws or more; the two axes carry {100 * seen.explained:.0f} % of the variance",
        detail=json.dumps(
            {
                "codes": seen.codes.tolist(),
                "draws": seen.draws.tolist(),
                "edges": [[float(f"{e:.5g}") for e in axis] for axis in seen.edges],
                "worst": [
                    {
                        "draw": int(i),
                        "gap": round(float(found.gap[i]), 3),
                        "nearest": evidence.sample.ids[int(found.nearest_code[i])],
                    }
                    for i in worst
                ],
            }
        ),
    )


def _cycle(evidence: Evidence) -> Iterator[Measurement]:
    probed = evidence.probed
    if probed is None:
        return
    size = float(np.sqrt(evidence.aggregate_variance.sum())) or 1.0
    medians = {}
    for kind, name in ((CODE, "images"), (DRAW, evidence.reference)):
        rows, errors = probed.errors(kind)
        if not len(rows):
            yield Measurement("cycle_error", target=name, status="not_measured", message="no code came back.")
            continue
        medians[kind] = float(np.median(errors)) / size
        low, high = (float(np.quantile(errors, q)) / size for q in (0.25, 0.75))
        yield Measurement("cycle_error", medians[kind], target=name, low=low, high=high, n=len(rows),
                          unit="of the codes' spread", message="median and middle half of ‖E(D(z)) − z‖")  # fmt: skip
    # Draws lie between the codes of a discrete codec, and come back as codes: how far off says nothing of holes.
    if len(medians) == 2 and evidence.latent.codebook is None:
        yield _cycle_ratio(evidence, of_draws=medians[DRAW], of_images=medians[CODE])
    if probed.failed:
        yield Measurement("codec_failures", probed.failed, status="codec_error",
                          message=f"the codec failed on {probed.failed} codes, or returned NaN.")  # fmt: skip


def _cycle_ratio(evidence: Evidence, *, of_draws: float, of_images: float) -> Measurement:
    ratio = of_draws / max(of_images, 1e-12)
    # Both may be rounding errors: only an error that matters is a hole.
    bad = ratio > CYCLE_RATIO and of_draws > 0.05
    return Measurement(
        "cycle_ratio",
        ratio,
        target=evidence.reference,
        threshold=CYCLE_RATIO,
        status="off_manifold" if bad else "ok",
        message=f"draws come back {ratio:.3g} times as far off as codes of images; {CYCLE_RATIO:g} times is allowed."
        if bad
        else "",
    )


def _held(name: str, value: float, threshold: float, *, n: int, unit: str) -> Measurement:
    high = value > threshold
    return Measurement(
        name,
        value if np.isfinite(value) else None,
        target=PRIOR,
        n=n,
        unit=unit,
        threshold=threshold,
        status="not_prior" if high else "ok",
        message=f"{value:.3g} {unit} from N(0, I); {threshold:.3g} are allowed." if high else "",
    )
