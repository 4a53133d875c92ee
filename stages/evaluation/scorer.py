"""Scorers of one's own: a class that looks at pictures and scores attributes. No download is ever needed by ours."""

import importlib
from collections.abc import Mapping
from typing import Any, Protocol

import torch

from schemas.errors import JobError


class Scorer(Protocol):
    """Made as `Class(device=…, **scorer_options)`; `Class.attributes_of(scorer_options)` names its scores without building it.

    It may be called from several threads at once, so a call must not change it.
    """

    def __call__(self, images: torch.Tensor) -> Any:
        """(n, height, width, 3) uint8 on the device → (n, attributes) floats: a tensor or an array."""


def scorer_class(entry: str, *, allow_code: bool) -> Any:
    """The user's class. Raises JobError when the job allows no code, or there is no such class."""
    if not allow_code:
        raise JobError.one("scorer", entry, "importing your own code needs your word.", "set allow_code: true")
    module_name, class_name = entry.split(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        fix = "check the name, and that workers have the module"
        raise JobError.one("scorer", entry, f"cannot be imported ({error}).", fix) from error
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
