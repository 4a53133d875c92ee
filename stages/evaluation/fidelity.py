"""Fidelity of edits: distances of edited pictures from those of the same images decoded unedited (latent-science §6).

By features of an injected extractor (`kept_features`); distances and their intervals are those of `stages.scores.paired`.
"""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from schemas.measurements import Measurement
from stages.evaluation.replicates import Results, clean
from stages.scores.grouped import FEWEST_GROUPS, JACKKNIFE_FEATURES
from stages.scores.paired import Distance, Unedited

FEW_FOR_FEATURES = "fewer_images_than_features"


def fidelity(found: Results) -> Iterator[Measurement]:
    """`frechet_distance` and `kernel_distance` of each edit (subject) at each strength (target)."""
    design = found.design
    asked = design.fidelity
    if asked is None:
        return
    pictures = design.pictures
    rows = found.state.features.rows() if found.state.features is not None else None
    features = None if rows is None else rows.latents.astype(np.float64).reshape(len(rows), pictures, -1)
    unedited = None if features is None or rows is None else Unedited(features[:, 0], rows.classes[:, 0])
    for i, edit in enumerate(design.edits):
        for a, strength in enumerate(design.strengths):
            about: dict[str, Any] = {"subject": edit.name, "target": f"{strength:+g} {design.unit}"}
            detail: dict[str, Any] = {"extractor": asked.extractor, "strength": strength, "features": 0}
            if unedited is None or features is None:
                for metric in ("frechet_distance", "kernel_distance"):
                    yield Measurement(metric, n=0, status="too_few", message="no image has features", **about)
                continue
            detail["features"] = features.shape[2]
            edited = features[:, 1 + i * len(design.strengths) + a]
            for metric, distance in (
                ("frechet_distance", unedited.frechet(edited, confidence=found.confidence)),
                ("kernel_distance", unedited.kernel(edited, confidence=found.confidence)),
            ):
                yield _measurement(metric, distance, features.shape[2], json.dumps(clean(detail)), **about)


def _measurement(metric: str, distance: Distance, features: int, detail: str, **about: Any) -> Measurement:
    if distance.value is None:
        status = FEW_FOR_FEATURES if metric == "frechet_distance" else "too_few"
        message = f"{distance.n} images; a covariance of {features} features asks for more than {features + 1}"
        return Measurement(metric, n=distance.n, status=status, message=message, detail=detail, **about)
    why = ""
    if distance.low is None:
        wide = metric == "frechet_distance" and features > JACKKNIFE_FEATURES
        why = (
            f"more than {JACKKNIFE_FEATURES} features"
            if wide
            else f"fewer than {FEWEST_GROUPS} groups of enough images"
        )
        why += ": no interval"
    return Measurement(
        metric, distance.value, low=distance.low, high=distance.high, n=distance.n, message=why, detail=detail, **about
    )
