"""Steps that define codes by changing, combining or drawing latents: edit, analogy, walk, sample."""

from typing import Literal, Self

from pydantic import Field, model_validator

from schemas.base import Spec, broken_rule
from schemas.steps.base import SelectionStep
from schemas.steps.codes import (
    CALIBRATE,
    QUANTILE,
    Calibrate,
    CoordinateUnit,
    TrustRegion,
    check_calibrate,
    check_quantiles,
)
from schemas.steps.tokens import TOKEN_DRAWS, TokenChange

Around = Literal["auto", "prior", "data"]
Covariance = Literal["full", "diagonal"]


class Change(Spec):
    """One part of an edit: how far along which direction or coordinate, and where in the latent."""

    direction: str | None = Field(None, description="attribute or direction name")
    coordinate: int | None = Field(None, ge=0, description="index into the flattened latent")
    strength: float = Field(description="α, in the step's unit")
    layers: tuple[int, int] | None = Field(
        None, description="latents with layers, such as W+: only layers first to last − 1: [first, last]"
    )
    channels: tuple[int, ...] | None = Field(None, description="latents with channels: only these")
    region: tuple[int, int, int, int] | None = Field(
        None,
        description="latents with height and width: only cells top to bottom − 1, left to right − 1: [top, left, bottom, right]",
    )

    @property
    def named(self) -> str:
        """The direction's name, or `coordinate j`."""
        return self.direction if self.direction is not None else f"coordinate {self.coordinate}"

    @property
    def within(self) -> dict[str, list[int]]:
        """The ranges that are given, as plain data."""
        ranges = {"layers": self.layers, "channels": self.channels, "region": self.region}
        return {name: list(value) for name, value in ranges.items() if value is not None}

    @model_validator(mode="after")
    def _one_axis(self) -> Self:
        if (self.direction is None) == (self.coordinate is None):
            raise broken_rule(
                "direction", self.direction, "a change follows one axis.", "give either `direction` or `coordinate`"
            )
        if self.layers is not None and (self.channels is not None or self.region is not None):
            raise broken_rule("layers", self.layers, "a latent has layers or channels.", "give one of the two")
        return self


class EditStep(SelectionStep):
    """Changes each selected latent along one or several directions at once: one strip a row, from nothing to the whole edit.

    On a discrete codec each token then becomes its nearest code; or `tokens` says which codes are put in. The share of tokens that
    changed is stored with every code.
    """

    stage: Literal["edit"] = "edit"
    changes: tuple[Change, ...] = Field((), description="what is changed; all at once, in no order")
    tokens: TokenChange | None = Field(None, description="discrete codecs, instead of changes: codes that are put in")
    unit: CoordinateUnit = Field(
        "sigma",
        description="of every strength. sigma: standard deviations of the data along the direction; latent: raw length; "
        f"effect: the length that changes the direction's mean score by 1; {QUANTILE}",
    )
    mode: Literal["add", "set_projection", "set_coordinate"] = Field(
        "add",
        description="add: z + Σ αn; set_projection: every projection comes to stand at its α from the data's mean, all at once "
        "(dual basis); set_coordinate: each on its own, z + Σ (α − coordinate)n, as GANSpace and e4e do",
    )
    parts: tuple[float, ...] = Field(
        (0.0, 1.0), min_length=1, description="one frame each: how much of the edit is made; 0 is the row as it is"
    )
    calibrate: Calibrate = Field("mean", description=f"{CALIBRATE}. With a single change")
    trust: TrustRegion | None = Field(None, description="keep codes where the data are")

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if bool(self.changes) == (self.tokens is not None):
            raise broken_rule("changes", None, "an edit has changes, or tokens to put in.", "give one of the two")
        if self.tokens is None:
            return self
        for name in ("unit", "mode", "calibrate", "trust"):
            if getattr(self, name) != (default := type(self).model_fields[name].default):
                raise broken_rule(
                    name, getattr(self, name), "tokens are put in, not moved.", f"remove it (it is {default})"
                )
        if not all(0 <= part <= 1 for part in self.parts):
            raise broken_rule("parts", self.parts, "parts of the tokens that change.", "use 0 to 1")
        return self

    @model_validator(mode="after")
    def _can_be_measured(self) -> Self:
        named = [change.named for change in self.changes]
        if twice := sorted({name for name in named if named.count(name) > 1}):
            raise broken_rule("changes", twice, "named more than once.", "name each once")
        if self.unit == "effect" and any(change.direction is None for change in self.changes):
            raise broken_rule("unit", self.unit, "a coordinate has no score.", "use unit: sigma, or name directions")
        check_calibrate(self.calibrate, unit=self.unit, mode=self.mode)
        strengths, directions = [c.strength for c in self.changes], any(c.direction is not None for c in self.changes)
        check_quantiles("changes", strengths, unit=self.unit, mode=self.mode, directions=directions)
        if self.calibrate == "row" and len(self.changes) > 1:
            reason = "several changes have no one length to solve for."
            raise broken_rule("calibrate", self.calibrate, reason, "make one change, or use calibrate: mean")
        return self


class AnalogyStep(SelectionStep):
    """What a is to b, c is to …: c + t(b − a), one strip a triple of images."""

    stage: Literal["analogy"] = "analogy"
    triples: tuple[tuple[str, str, str], ...] | Literal["random"] = Field(
        "random", description="[a, b, c] image ids: what leads from a to b is done to c"
    )
    count: int = Field(8, ge=1, description="triples for `random`")
    seed: int = Field(0, ge=0)
    strengths: tuple[float, ...] = Field(
        (0.0, 0.5, 1.0), min_length=1, description="t, one frame each; 1 is the analogy"
    )
    method: Literal["auto", "raw", "lol"] = Field(
        "auto",
        description="raw: c + t(b − a), which leaves the shell of a Gaussian space; lol: brought back to it (arXiv 2408.08558); "
        "auto: lol where latents lie on a centred shell, else raw",
    )
    around: Around = Field(
        "auto",
        description="lol: mean of the Gaussian: the prior's (0) or the data's; auto: the prior's if there is one",
    )
    trust: TrustRegion | None = Field(None, description="keep codes where the data are")

    @model_validator(mode="after")
    def _has_triples(self) -> Self:
        if not self.triples:
            raise broken_rule("triples", None, "no triples.", "list [a, b, c] ids, or say random")
        return self


class WalkStep(SelectionStep):
    """A random walk from each selected latent, or from draws of the prior: one strip a walk, seeded per walk."""

    stage: Literal["walk"] = "walk"
    start: Literal["rows", "prior"] = Field("rows", description="where walks begin: selected latents, or `count` draws")
    count: int = Field(8, ge=1, description="walks for start: prior")
    method: Literal["pcn", "isotropic"] = Field(
        "pcn",
        description="pcn: μ + √(1−β²)(z−μ) + βξ, which keeps the Gaussian exactly; isotropic: z + βξ, which drifts outward",
    )
    size: float = Field(0.3, gt=0, description="β of one step; for pcn at most 1, and 1 is a fresh draw")
    frames: int = Field(9, ge=2, description="codes a walk, the start included")
    every: int = Field(1, ge=1, description="steps between frames")
    seed: int = Field(0, ge=0)
    around: Around = Field(
        "auto",
        description="pcn: the Gaussian that is kept: the prior N(0, I), or the data's; auto: the prior if there is one",
    )
    covariance: Covariance = Field("full", description="of the data's Gaussian; full up to 4096 numbers a latent")
    trust: TrustRegion | None = Field(
        None, description="flag codes that are not where the data are; walks are not clipped"
    )

    @model_validator(mode="after")
    def _is_a_walk(self) -> Self:
        if self.method == "pcn" and self.size > 1:
            raise broken_rule(
                "size", self.size, "√(1−β²) needs β of at most 1.", "use 0 < size ≤ 1, or method: isotropic"
            )
        if self.start == "prior" and (self.where is not None or self.ids is not None or self.limit is not None):
            raise broken_rule(
                "start", self.start, "walks from the prior select no rows.", "remove where, ids and limit"
            )
        _only_flags(self.trust)
        return self


_CONTINUOUS_DRAWS = ("prior", "gaussian", "gmm", "flow")
_METHODS_OF = {
    "covariance": ("gaussian", "gmm"),
    "components": ("gmm",),
    "truncation": _CONTINUOUS_DRAWS,
    "trust": _CONTINUOUS_DRAWS,
    "smoothing": TOKEN_DRAWS,
}
"""The methods of `sample` that have an option."""


class SampleStep(SelectionStep):
    """New codes: draws from the prior, from a Gaussian of the selected rows, or from a mixture or a flow fitted to them.

    Discrete codecs draw sequences of tokens, by how often codes occur in the selected rows.
    """

    stage: Literal["sample"] = "sample"
    method: Literal["prior", "gaussian", "gmm", "flow", "categorical", "bigram"] = Field(
        "gaussian",
        description="prior: the codec's own, N(0, I), for codecs that have it; gaussian: mean and covariance of the rows, from one pass; gmm: a "
        "Gaussian mixture, fitted to at most 65,536 of them, chosen by a hash of the id; flow (extra `flow`; up to 256 numbers a latent): a normalising flow, fitted to as many, with its "
        "held-out likelihood beside the Gaussian's among the measurements. Discrete codecs: categorical draws every token "
        "by how often its code occurs, bigram by what follows the token before it, row by row",
    )
    count: int = Field(16, ge=1, description="draws")
    seed: int = Field(0, ge=0)
    temperature: float = Field(
        1.0,
        gt=0,
        description="multiplies every deviation from the (component's) mean, and a flow's noise; takes probabilities of tokens to p^(1/τ)",
    )
    smoothing: float = Field(
        0.0,
        ge=0,
        description="categorical, bigram: added to every count; 0 draws only codes, and neighbours, that occur",
    )
    truncation: tuple[float, ...] = Field(
        (1.0,), min_length=1, description="ψ, one frame each: w̄ + ψ(w − w̄), w̄ the mean of the rows"
    )
    components: int = Field(8, ge=1, le=1024, description="gmm: Gaussians in the mixture")
    covariance: Covariance = Field("full", description="gaussian, gmm; full up to 4096 numbers a latent")
    trust: TrustRegion | None = Field(
        None, description="flag codes that are not where the data are; draws are not clipped"
    )

    @model_validator(mode="after")
    def _flags(self) -> Self:
        _only_flags(self.trust)
        return self

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        for name, methods in _METHODS_OF.items():
            if self.method not in methods and getattr(self, name) != type(self).model_fields[name].default:
                raise broken_rule(name, getattr(self, name), f"{self.method} has no such option.", "remove it")
        return self


def _only_flags(trust: TrustRegion | None) -> None:
    if trust is not None and trust.outside == "clip":
        raise broken_rule(
            "trust.outside", "clip", "a clipped draw would follow another distribution.", "use outside: flag"
        )
