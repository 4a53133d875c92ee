"""Features of all pictures of some images, kept for fidelity: a bounded sample by hash of the id, the same on any split.

The pictures are decoded anyway; what costs is the extractor, so it looks at the sample alone, and a few images more.
"""

import numpy as np

from schemas.errors import JobError, Problem
from schemas.steps import EvaluateStep
from stages.attributes import Bools, Floats
from stages.evaluation.design import Design, Fidelity
from stages.row_hash import Hashes, fractions, salted
from stages.sample import Sample, SampledRows
from stages.scores.extractors import feature_count
from stages.scores.grouped import dealt

MAX_VALUES = 2**25
"""Numbers of features that are kept: 128 MiB."""
SALT = "sample"


def features_problem(step: EvaluateStep, pictures: int, *, at: str) -> Problem | None:
    """Whether the sample would not fit, as far as that can be told before the first picture: `pictures` an image."""
    assert step.extractor is not None
    count = feature_count(step.extractor, step.extractor_options)
    return None if count is None else _too_many(step.fidelity_images, pictures, count, at=at)


def _too_many(images: int, pictures: int, features: int, *, at: str) -> Problem | None:
    if (size := images * pictures * features) <= MAX_VALUES:
        return None
    reason = f"{pictures} pictures an image, of {features} features each, would hold {size:,} numbers; at most {MAX_VALUES:,}."
    fix = f"use {MAX_VALUES // (pictures * features)} or less, fewer directions or strengths at a time, or extractor: null"
    return Problem(f"{at}.fidelity_images", images, reason, fix)


def sampled(asked: Fidelity, hashes: Hashes) -> Bools:
    """(rows,), which images may be in the sample: a few more than it keeps."""
    return np.asarray(fractions(hashes, SALT) < asked.share)


def offer(
    sample: Sample | None, design: Design, features: Floats, hashes: Hashes, groups: Hashes
) -> tuple[Sample | None, int]:
    """features (n, 1 + k·a, F) of sampled images; returns the sample and how many images had features that are not finite."""
    asked = design.fidelity
    assert asked is not None
    n, pictures, count = features.shape
    good = np.isfinite(features).all(axis=(1, 2))
    if sample is None:
        if problem := _too_many(asked.images, pictures, count, at="evaluate"):
            raise JobError([problem])
        sample = Sample(pictures * count, 1, asked.images)
    flat = features.reshape(n, -1).astype(np.float32)[good]
    # The one class column of a sample carries the group an image is dealt into.
    sample.offer(SampledRows(salted(hashes, SALT)[good], np.zeros(len(flat), bool), flat, dealt(groups)[good, None]))
    return sample, int((~good).sum())


def merged(a: Sample | None, b: Sample | None) -> Sample | None:
    """The sample of both sets of rows; neither is changed."""
    return b if a is None else a if b is None else a.merged(b)
