"""Steps that define codes: each is a code set, expanded inside workers when it is rendered."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Spec, broken_rule
from schemas.steps.base import SelectionStep

Unit = Literal["latent", "sigma", "effect"]


class TrustRegion(Spec):
    """Where codes may go: the region the data (or the prior) fill. Formulas: stages/code_sets/trust.py."""

    by: Literal["typicality", "mahalanobis", "neighbours"] = Field(
        "mahalanobis",
        description="typicality: distance from the shell of N(0, I), for codecs with that prior; mahalanobis: from the data's "
        "mean, in its covariance; neighbours: to the k-th nearest of the data's own latents",
    )
    limit: float | None = Field(
        None,
        gt=0,
        description="typicality, mahalanobis: standard deviations of the squared distance, default 3; neighbours: multiples of "
        "the 99th percentile of the data's own distance, default 1",
    )
    outside: Literal["clip", "flag"] = Field(
        "clip",
        description="clip: shorten the step to where it leaves the region, flag `clipped`; flag: `atypical` only",
    )
    covariance: Literal["full", "diagonal"] = Field(
        "full", description="mahalanobis: which part of the data's covariance"
    )
    k: int = Field(10, ge=1, le=100, description="neighbours: which neighbour measures the distance")

    @property
    def reach(self) -> float:
        """`limit`, or its default."""
        return self.limit if self.limit is not None else 1.0 if self.by == "neighbours" else 3.0


class TraverseStep(SelectionStep):
    """Walks each selected latent along directions or coordinates: one strip a row and direction."""

    stage: Literal["traverse"] = "traverse"
    directions: tuple[str, ...] = Field(
        (), description="attribute or direction names; the job's own fits first, then the store's"
    )
    coordinates: tuple[int, ...] = Field((), description="indexes into the flattened latent")
    strengths: tuple[float, ...] = Field((-3.0, -1.5, 0.0, 1.5, 3.0), min_length=1)
    unit: Unit = Field(
        "sigma",
        description="sigma: standard deviations of the data along the direction; latent: raw length; effect: the length that "
        "changes the direction's mean score by 1",
    )
    mode: Literal["add", "set_projection", "set_coordinate"] = Field(
        "add", description="add αn; set the projection to α; or replace a coordinate by α"
    )
    trust: TrustRegion | None = Field(None, description="keep codes where the data are")

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if not self.directions and not self.coordinates:
            raise broken_rule("directions", None, "nothing to walk along.", "name directions or coordinates")
        if self.mode == "set_coordinate" and self.directions:
            raise broken_rule(
                "mode", self.mode, "directions are not coordinates.", "use mode: set_projection, or give coordinates"
            )
        if self.coordinates and self.unit == "effect":
            raise broken_rule("unit", self.unit, "a coordinate has no score.", "use unit: sigma, or name directions")
        return self
