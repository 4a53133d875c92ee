"""Interpolation: paths between latents, paths through several, and means."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from schemas.base import broken_rule
from schemas.steps.base import SelectionStep
from schemas.steps.edits import Around

Method = Literal[
    "auto",
    "lerp",
    "slerp",
    "slerp_radius",
    "constant_norm",
    "lol",
    "posterior",
    "two_part",
    "geodesic",
    "catmull_rom",
    "squad",
    "karcher",
    "token_swap",
    "codebook_lerp",
]
THROUGH = ("catmull_rom", "squad")
"""Methods that go through any number of images."""
MEANS = ("lerp", "lol", "karcher")
"""Methods that take weights of any number of images."""
WHOLE = ("posterior", "two_part", "geodesic")
"""Methods that only take latents as a whole."""
OPTIONS: dict[str, tuple[str, ...]] = {
    "radius": ("slerp_radius", "squad", "karcher"),
    "around": ("lol",),
    "knots": ("catmull_rom",),
    "antipodal": ("slerp", "slerp_radius", "two_part"),
    "draws": ("posterior",),
    "split": ("two_part",),
    "iterations": ("geodesic",),
    "tolerance": ("geodesic",),
}
"""Options that only some methods have: elsewhere they would be ignored, so they are refused."""
AUTO = ("lerp", "slerp", "lol", "catmull_rom", "squad", "token_swap")
"""What `auto` may come to."""


class InterpolateStep(SelectionStep):
    """Paths between pairs of latents, paths through several, or means: one strip a pair or set.

    A pair has `frames` points from the first image (t = 0) to the second (t = 1). `sets` of three or more go through their
    images in order, image i of k at t = i/(k−1). With `weights` every frame is a mean of the images instead.
    """

    stage: Literal["interpolate"] = "interpolate"
    method: Method = Field(
        "auto",
        description="auto follows the codec's declared space: slerp (squad through several, lol for means) where latents "
        "lie on a centred shell, else lerp (catmull_rom, lerp). slerp carries the norm; slerp_radius interpolates it; lol keeps "
        "the variance; posterior draws from interpolated mean and σ; two_part: lerp up to `split`, slerp beyond; "
        "geodesic: shortest in decoded pictures; karcher: mean of directions. Discrete codecs: token_swap (auto) replaces tokens of the "
        "first image by the second's in a seeded order; codebook_lerp goes straight from embedding to embedding and takes the nearest codes",
    )
    pairs: tuple[tuple[str, str], ...] | Literal["nearest", "random"] = "random"
    sets: tuple[tuple[str, ...], ...] | None = Field(
        None, description="ids instead of pairs, the same number in each: through them in order, or their means"
    )
    count: int = Field(8, ge=1, description="pairs for `nearest` and `random`")
    frames: int = Field(9, ge=2, description="points of a path; with weights there is one a row of weights")
    seed: int = Field(0, ge=0)
    weights: Literal["equal"] | tuple[tuple[float, ...], ...] | None = Field(
        None, description="means instead of paths: a weight for each image, one row a frame; `equal` is one frame"
    )
    radius: Literal["linear", "geometric"] = Field("linear", description="how norms are interpolated or averaged")
    around: Around = Field(
        "auto",
        description="lol: the mean μ of the prior (0) or of the dataset; auto: the prior's where the codec has one",
    )
    knots: Literal["centripetal", "uniform"] = Field(
        "centripetal", description="catmull_rom: centripetal makes no loops, uniform keeps the velocity continuous"
    )
    draws: int = Field(1, ge=1, le=64, description="posterior: strips a pair, each with noise of its own")
    split: int | None = Field(None, ge=1, description="two_part: how many leading numbers are the semantic part")
    iterations: int = Field(200, ge=1, description="geodesic: at most so many steps of L-BFGS")
    tolerance: float = Field(1e-3, gt=0, description="geodesic: largest relative gradient that counts as converged")
    per: Literal["whole", "channel", "token", "layer"] = Field(
        "whole", description="what is interpolated on its own, with its own angle and norm; the codec declares its axes"
    )
    layers: tuple[int, int] | None = Field(
        None, description="layered latents (W+): only layers from the first up to, not including, the second move"
    )
    mask: tuple[tuple[float, ...], ...] | None = Field(
        None, description="spatial latents: rows of numbers, 1 where the latent moves and 0 where it stays"
    )
    antipodal: Literal["flag", "seeded_axis"] = Field(
        "flag", description="opposite ends: a typed failure, or a seeded orthogonal way round"
    )

    @property
    def parents(self) -> int:
        """Images a strip is made of."""
        return len(self.sets[0]) if self.sets else 2

    @field_validator("weights")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if isinstance(value, tuple) and (
            not value or any(w < 0 for row in value for w in row) or not all(map(any, value))
        ):
            raise ValueError("weights are rows of numbers that are not negative, and not all 0 in a row")
        return value

    @model_validator(mode="after")
    def _has_images(self) -> Self:
        if not self.pairs:
            raise broken_rule("pairs", None, "no pairs.", "list [id, id] pairs, or say nearest or random")
        if self.sets is None:
            return self
        if self.pairs != "random":
            raise broken_rule("sets", None, "there are pairs as well.", "use two steps")
        sizes = sorted({len(ids) for ids in self.sets})
        if not sizes or not sizes[0]:
            raise broken_rule("sets", None, "no images.", "list [id, id, …] sets")
        if len(sizes) > 1:
            raise broken_rule("sets", sizes, "sets of one step have the same size.", "use a step for each size")
        return self

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        if isinstance(self.weights, tuple) and (wrong := {len(row) for row in self.weights} - {self.parents}):
            reason = f"there are {self.parents} images, so each row has {self.parents} weights."
            raise broken_rule("weights", sorted(wrong), reason, "give one weight an image, or say equal")
        if self.weights is not None and self.method not in ("auto", *MEANS):
            raise broken_rule(
                "method", self.method, "it makes paths, not means.", f"use {', '.join(MEANS)}, or no weights"
            )
        if self.weights is None and self.method == "karcher":
            raise broken_rule(
                "method", self.method, "it makes means.", "give weights, or say equal; slerp_radius is its path"
            )
        if self.weights is None and self.parents != 2 and self.method not in ("auto", *THROUGH):
            fix = "use catmull_rom or squad to go through them, or weights for means"
            raise broken_rule("method", self.method, f"it joins two images, and a set has {self.parents}.", fix)
        return self

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        possible = AUTO if self.method == "auto" else (self.method,)
        for name, methods in OPTIONS.items():
            if getattr(self, name) != type(self).model_fields[name].default and not set(methods) & set(possible):
                raise broken_rule(name, getattr(self, name), f"{self.method} has no such option.", "remove it")
        if self.method == "two_part" and self.split is None:
            raise broken_rule("split", None, "where does the noise part begin?", "say how many numbers come before it")
        partly = next((n for n in ("per", "layers", "mask") if getattr(self, n) not in (None, "whole")), None)
        if self.method in WHOLE and partly:
            raise broken_rule(partly, getattr(self, partly), f"{self.method} takes latents as a whole.", "remove it")
        return self
