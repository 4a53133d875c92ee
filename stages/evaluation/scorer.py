"""Scorers of one's own: a class that looks at pictures and scores attributes. No download is ever needed by ours."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from schemas.errors import JobError
from stages.attributes import Floats
from stages.entry import import_entry


class Scorer(Protocol):
    """Made as `Class(device=…, **scorer_options)`; `Class.attributes_of(scorer_options)` names its scores without building it.

    It may be called from several threads at once, so a call must not change it.
    """

    def __call__(self, images: torch.Tensor) -> Any:
        """(n, height, width, 3) uint8 on the device → (n, attributes) floats: a tensor or an array."""


def scorer_class(entry: str, *, allow_code: bool) -> Any:
    """The user's class. Raises JobError when the job allows no code, or there is no such class."""
    found = import_entry(entry, field="scorer", allow_code=allow_code)
    if not callable(getattr(found, "attributes_of", None)):
        fix = "add it: a plan needs the names of the scores without building the scorer"
        raise JobError.one("scorer", entry, "has no static method `attributes_of(options) -> tuple[str, ...]`.", fix)
    return found


def scored_attributes(entry: str, options: Mapping[str, Any], *, allow_code: bool) -> tuple[str, ...]:
    """Names of the scores of a scorer of one's own, in its order."""
    return tuple(scorer_class(entry, allow_code=allow_code).attributes_of(dict(options)))


def open_scorer(entry: str, options: Mapping[str, Any], *, device: str, allow_code: bool) -> Scorer:
    """Builds it on `device`."""
    scorer: Scorer = scorer_class(entry, allow_code=allow_code)(device=device, **options)
    return scorer


def scores_of(scorer: Scorer, images: torch.Tensor) -> Floats:
    """What the scorer says of the pictures, as float64; it may give a tensor or an array."""
    scores = scorer(images)
    return np.asarray(scores.detach().cpu().numpy() if isinstance(scores, torch.Tensor) else scores, np.float64)
