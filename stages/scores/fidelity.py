"""Fidelity of sets of pictures against reconstructions, as measurements: Fréchet and kernel distance, precision to coverage.

Every number stands beside the floor: what reconstructions of other images score, as many of them as of the set. Distances of
few pictures are high by chance, so the larger of the two is cut to the size of the smaller, as far as its sample reaches.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import numpy as np

from schemas.measurements import Measurement
from stages.code_sets.codes import UNSIGNED
from stages.moments import Floats, Moments
from stages.scores.coverage import coverage_of
from stages.scores.coverage_without import SHARES
from stages.scores.fidelity_intervals import Rows, frechet_interval, share_intervals
from stages.scores.frechet import frechet_distance
from stages.scores.interval import Interval, NoInterval
from stages.scores.kernel_distance import KernelDistance, grouped_kernel_distance, kernel_distance
from stages.scores.path_length import Space, path_length
from stages.scores.picture_features import LIKE, REFERENCE, FeatureSet, SetName

TOO_FEW = "too_few"


@dataclass(frozen=True, slots=True)
class _Scored:
    """Scores of one set by their metric. `sampled` rows made all but the Fréchet distance, which is of `n`."""

    values: dict[str, float]
    kernel: Interval
    sampled: int
    n: int


def measure_fidelity(
    sets: Mapping[SetName, FeatureSet], *, neighbours: int, extractor: str, grouped: bool = False
) -> Iterator[Measurement]:
    """Six measures a set. A set, or a reference, of too few rows has the status `too_few` and no value.

    `grouped`: images belong together, so the kernel distance is of pairs from different groups.
    """
    reference, like = sets.get(REFERENCE), sets.get(LIKE)
    real = None if reference is None else _rows(reference, reference, neighbours)
    for name in sorted(set(sets) - {REFERENCE, LIKE}, key=lambda n: (n.code_set, n.title, n.strength or 0.0)):
        few = min(one.moments.n if one else 0 for one in (reference, like, sets[name]))
        if reference is None or real is None or like is None or few <= neighbours + 1:
            message = (
                f"{few} pictures in a set or in a half of the reconstructions; more than {neighbours + 1} are needed"
            )
            yield _missing(name, extractor, sets[name], message)
            continue
        if grouped and min(map(_dealt, (reference, like, sets[name]))) < 2:
            yield _missing(name, extractor, sets[name], "the pictures of a set, or of a half, are of one group")
            continue
        n = min(sets[name].moments.n, like.moments.n)
        found, floor = (_scored(reference, one, n, neighbours, grouped) for one in (sets[name], like))
        made = _rows(reference, sets[name], neighbours, found.n)
        intervals = _intervals(found, real, made, grouped=grouped)
        yield from _measurements(found, floor, intervals, name, reference.moments.n, extractor)


def measure_path_length(lengths: Floats, distance: str, *, space: Space) -> Measurement:
    """The score of lengths (n,), finite, of paths in `space`; below two of them a status."""
    detail = json.dumps({"space": space, "paths": len(lengths)})
    about = Measurement("path_length", target=distance, n=len(lengths), detail=detail)
    if len(lengths) < 2:
        message = f"{len(lengths)} pairs of finite latents; a path length needs at least 2"
        return replace(about, status=TOO_FEW, message=message)
    found = path_length(lengths)
    return replace(about, value=found.value, low=found.low, high=found.high, n=found.n)


def _dealt(one: FeatureSet) -> int:
    """Into how many groups the sample is dealt."""
    return len(np.unique(one.sample.rows().classes))


def _missing(name: SetName, extractor: str, one: FeatureSet, message: str) -> Measurement:
    about = Measurement("frechet_distance", None, _subject(name), extractor, n=one.moments.n)
    return replace(about, status=TOO_FEW, message=message, detail=json.dumps(asdict(name)))


def _scored(reference: FeatureSet, candidate: FeatureSet, n: int, neighbours: int, grouped: bool) -> _Scored:
    """Of at most n rows of the candidate."""
    real, made = reference.sample.rows().latents, candidate.sample.rows().latents
    kept = made[:n]
    # The moments are those of all rows, unless the set is larger than what it is compared with and the sample can stand in.
    smaller = candidate.moments.n > n and len(made) >= n
    moments = Moments.of(kept.astype(np.float64), full=True) if smaller else candidate.moments
    kernel = _kernel(reference, candidate, n) if grouped else kernel_distance(real, kept)
    near = coverage_of(real, kept, k=neighbours)
    values = {"frechet_distance": frechet_distance(reference.moments, moments), "kernel_distance": kernel.value}
    values |= {share: getattr(near, share) for share in SHARES}
    none = NoInterval.TOO_FEW_GROUPS if grouped else NoInterval.ONE_BLOCK
    blocks = Interval(kernel.low, kernel.high, none if kernel.low is None else None)
    return _Scored(values, blocks, min(len(real), len(kept)), moments.n)


def _rows(reference: FeatureSet, one: FeatureSet, neighbours: int, n: int | None = None) -> Rows:
    """The set's sample, of at most n rows, round the reference's mean: neighbours lose no digits there."""
    kept = one.sample.rows()
    features = kept.latents[:n].astype(np.float64) - reference.moments.z_mean
    return Rows(features, kept.classes[:n, 0], one.moments.n if n is None else n, neighbours)


def _kernel(reference: FeatureSet, candidate: FeatureSet, n: int) -> KernelDistance:
    real, made = reference.sample.rows(), candidate.sample.rows()
    return grouped_kernel_distance(real.latents, real.classes[:, 0], made.latents[:n], made.classes[:n, 0])


def _intervals(found: _Scored, reference: Rows, candidate: Rows, *, grouped: bool) -> dict[str, Interval]:
    distance = frechet_interval(found.values["frechet_distance"], reference, candidate)
    both = {"frechet_distance": distance, "kernel_distance": found.kernel}
    return both | share_intervals(found.values, reference, candidate, alone=not grouped)


def _measurements(
    found: _Scored, floor: _Scored, intervals: dict[str, Interval], name: SetName, n_reference: int, extractor: str
) -> Iterator[Measurement]:
    about = asdict(name) | {"n_reference": n_reference, "n_floor": floor.n, "sampled": found.sampled}
    for metric, value in found.values.items():
        interval = intervals[metric]
        why = {} if interval.why is None else {"no_interval": str(interval.why)}
        yield Measurement(
            metric,
            value,
            _subject(name),
            extractor,
            low=interval.low,
            high=interval.high,
            n=found.n if metric == "frechet_distance" else found.sampled,
            threshold=floor.values[metric],
            message=interval.said,
            detail=json.dumps(about | why),
        )


def _subject(name: SetName) -> str:
    """`traverse/smiling +1 sigma`, `traverse/smiling quantile 0.05`: no sign where zero is no middle."""
    if name.strength is None:
        return f"{name.code_set}/{name.title}"
    at = f"{name.unit} {name.strength:g}" if name.unit in UNSIGNED else f"{name.strength:+g} {name.unit}"
    return f"{name.code_set}/{name.title} {at}".rstrip()
