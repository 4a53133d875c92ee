"""Steps that define codes: each is a code set, expanded inside workers when it is rendered."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Spec, broken_rule
from schemas.steps.base import SelectionStep

Unit = Literal["latent", "sigma", "effect"]
CoordinateUnit = Literal[Unit, "quantile"]
Calibrate = Literal["mean", "row"]
QUANTILE = "quantile, with coordinates and set_coordinate: the value below which that share, 0 to 1, of the data is"
CALIBRATE = (
    "unit effect. mean: one length for all rows, that which changes the score of a latent by the strength; row: for each row the "
    "length at which the score of the decoded and re-encoded picture has changed by it, within 2 %, found by decoding at most 13 "
    "times a code, inside a trust region that clips, else up to 6 sigma. Codes that do not get there come as near as was found, "
    "flagged `effect_unreached`"
)


def check_calibrate(calibrate: Calibrate, *, unit: CoordinateUnit, mode: str) -> None:
    """Only a change of the score can be looked for. Raises the rule that is broken."""
    if calibrate == "row" and (unit != "effect" or mode != "add"):
        reason = "only an effect that is added can be solved by row."
        raise broken_rule("calibrate", calibrate, reason, "use unit: effect and mode: add, or calibrate: mean")


def check_quantiles(
    field: str, strengths: Sequence[float], *, unit: CoordinateUnit, mode: str, directions: bool
) -> None:
    """A quantile is a place on a coordinate: nothing to add, and a direction has none. Raises the rule that is broken."""
    if unit != "quantile":
        return
    if directions:
        raise broken_rule("unit", unit, "only coordinates have quantiles here.", "use unit: sigma, or give coordinates")
    if mode != "set_coordinate":
        raise broken_rule("unit", unit, "a quantile is a place to go to.", "use mode: set_coordinate")
    if beyond := [q for q in strengths if not 0 < q < 1]:
        fix = "use shares of the data between 0 and 1, such as 0.05, 0.5, 0.95"
        raise broken_rule(field, beyond[0], "is no quantile.", fix)


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
    unit: CoordinateUnit = Field(
        "sigma",
        description="sigma: standard deviations of the data along the direction; latent: raw length; effect: the length that "
        f"changes the direction's mean score by 1; {QUANTILE}",
    )
    mode: Literal["add", "set_projection", "set_coordinate"] = Field(
        "add", description="add αn; set the projection to α; or replace a coordinate by α"
    )
    calibrate: Calibrate = Field("mean", description=CALIBRATE)
    trust: TrustRegion | None = Field(None, description="keep codes where the data are")

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if not self.directions and not self.coordinates:
            raise broken_rule("directions", None, "nothing to walk along.", "name directions or coordinates")
        for field, named in (("directions", self.directions), ("coordinates", self.coordinates)):
            if twice := sorted({name for name in named if named.count(name) > 1}):
                raise broken_rule(field, twice, "named more than once.", "name each once")
        if self.mode == "set_coordinate" and self.directions and self.unit != "quantile":
            raise broken_rule(
                "mode", self.mode, "directions are not coordinates.", "use mode: set_projection, or give coordinates"
            )
        if self.coordinates and self.unit == "effect":
            raise broken_rule("unit", self.unit, "a coordinate has no score.", "use unit: sigma, or name directions")
        check_calibrate(self.calibrate, unit=self.unit, mode=self.mode)
        check_quantiles("strengths", self.strengths, unit=self.unit, mode=self.mode, directions=bool(self.directions))
        return self
