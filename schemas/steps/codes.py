"""Steps that define codes: each is a code set, expanded inside workers when it is rendered."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import broken_rule
from schemas.steps.base import SelectionStep

Unit = Literal["latent", "sigma"]


class TraverseStep(SelectionStep):
    """Walks each selected latent along directions or coordinates: one strip a row and direction."""

    stage: Literal["traverse"] = "traverse"
    directions: tuple[str, ...] = Field(
        (), description="attribute or direction names; the job's own fits first, then the store's"
    )
    coordinates: tuple[int, ...] = Field((), description="indexes into the flattened latent")
    strengths: tuple[float, ...] = Field((-3.0, -1.5, 0.0, 1.5, 3.0), min_length=1)
    unit: Unit = Field(
        "sigma", description="sigma: standard deviations of the data along the direction; latent: raw length"
    )
    mode: Literal["add", "set_projection", "set_coordinate"] = Field(
        "add", description="add αn; set the projection to α; or replace a coordinate by α"
    )

    @model_validator(mode="after")
    def _goes_somewhere(self) -> Self:
        if not self.directions and not self.coordinates:
            raise broken_rule("directions", None, "nothing to walk along.", "name directions or coordinates")
        if self.mode == "set_coordinate" and self.directions:
            raise broken_rule(
                "mode", self.mode, "directions are not coordinates.", "use mode: set_projection, or give coordinates"
            )
        return self


class InterpolateStep(SelectionStep):
    """Paths between pairs of latents."""

    stage: Literal["interpolate"] = "interpolate"
    method: Literal["auto", "lerp", "slerp", "constant_norm"] = Field(
        "auto", description="auto follows the codec's declared space"
    )
    pairs: tuple[tuple[str, str], ...] | Literal["nearest", "random"] = "random"
    count: int = Field(8, ge=1, description="pairs for `nearest` and `random`")
    frames: int = Field(9, ge=2)
    seed: int = Field(0, ge=0)
    per_channel: bool = Field(False, description="spatial latents: interpolate each channel on its own")
    antipodal: Literal["flag", "seeded_axis"] = Field(
        "flag", description="opposite ends: a typed failure, or a seeded orthogonal way round"
    )

    @model_validator(mode="after")
    def _has_pairs(self) -> Self:
        if not self.pairs:
            raise broken_rule("pairs", None, "no pairs.", "list [id, id] pairs, or say nearest or random")
        return self
