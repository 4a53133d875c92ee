"""The steps of a job: one frozen model a stage, one tagged union over all of them.

A step sees its own spec only. Adding a stage touches one spec here, one file under `stages/`, one test, one doc entry.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from schemas.base import Name, Spec, broken_rule

Unit = Literal["latent", "sigma"]
Estimator = Literal["mean_difference", "balanced_mean_difference", "ols", "logistic"]


class _Step(Spec):
    name: Name | None = Field(
        None, description="how other steps refer to this one; default: the stage's name, numbered when it repeats"
    )


class _Selection(_Step):
    """Which rows of the dataset a step works on."""

    where: str | None = Field(
        None, description="SQL filter over id, width, height and labels.*: `labels.glasses = false`"
    )
    ids: tuple[str, ...] | None = Field(None, description="exactly these images")
    limit: int | None = Field(
        None, ge=1, description="at most this many rows, chosen by a hash of the id (stable, not the first ones)"
    )


class TrainStep(_Step):
    """Trains the job's conv_vae codec on the source's images; resumable; writes config.json, model.safetensors, history.json."""

    stage: Literal["train"] = "train"
    to: str | None = Field(None, description="folder URL of the weights; default: `codec.weights`")
    variant: Literal["ae", "vae"] = "vae"
    beta: float = Field(1.0, ge=0, description="weight of the KL term, in units of nats per image (β-VAE when not 1)")
    latent_dim: int = Field(32, ge=1, le=65536)
    channels: tuple[int, ...] = Field(
        (16, 32, 64, 128), min_length=1, description="one stride-2 stage each; sides must divide by 2^n"
    )
    steps: int = Field(2400, ge=1, description="optimiser steps")
    batch_size: int = Field(32, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    seed: int = Field(0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpoint_every: int = Field(500, ge=1)
    max_images: int | None = Field(
        None, ge=1, description="train on at most this many images, chosen by a hash of the id"
    )


class EncodeStep(_Step):
    """Encodes every listed image that the table does not hold at its present version."""

    stage: Literal["encode"] = "encode"
    latent_dtype: Literal["float32", "float16"] = "float32"
    store_logvar: bool = Field(True, description="keep the posterior log-variance where the codec has one")
    batch_size: int = Field(
        256, ge=1, description="images a forward pass; does not change results beyond the codec's tolerance"
    )
    commit_rows: int = Field(50_000, ge=1)
    commit_seconds: float = Field(10.0, gt=0)


class IndexStep(_Step):
    """Vector index with measured recall against exact search, and scalar indexes on id and labels."""

    stage: Literal["index"] = "index"
    kind: Literal["auto", "flat", "ivf_flat", "ivf_pq", "ivf_hnsw_sq"] = Field(
        "auto", description="auto: exact search below 50,000 rows, IVF_HNSW_SQ above"
    )
    metric: Literal["l2", "cosine"] = "l2"
    nprobes: int | None = Field(None, ge=1)
    recall_queries: int = Field(200, ge=1)
    min_recall: float | None = Field(
        None, ge=0, le=1, description="fail the step when measured recall@10 is below this"
    )


class FitStep(_Selection):
    """Fits a direction for every attribute, with its n, its interval and its held-out AUC."""

    stage: Literal["fit"] = "fit"
    attributes: tuple[str, ...] | Literal["all"] = "all"
    estimator: Estimator = "ols"
    controls: tuple[str, ...] | None = Field(
        None,
        description="balanced_mean_difference: attributes whose cells are balanced; default: the other fitted ones",
    )
    l2: float = Field(0.0, ge=0, description="ridge penalty, scikit-learn's `C = 1/l2` for logistic")
    holdout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of rows, by hash of the id, that scores a fit made without them; the stored direction uses all rows",
    )
    confidence: float = Field(0.95, gt=0, lt=1)


class TraverseStep(_Selection):
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


class InterpolateStep(_Selection):
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


class RenderStep(_Step):
    """Decodes code sets and writes pictures to any fsspec URL, atomically and under deterministic names."""

    stage: Literal["render"] = "render"
    to: str = Field(description="folder URL")
    of: tuple[Name, ...] = Field(
        (), description="code-set steps to render; default: all not yet rendered above this one"
    )
    layout: Literal["image", "strip", "grid", "animation", "shards"] = "strip"
    format: Literal["png", "jpeg", "webp", "gif"] = "png"
    quality: int = Field(90, ge=1, le=100)
    labels: bool = Field(False, description="strip and grid: write the strength under each column")
    grid_columns: int | None = Field(
        None, ge=1, description="grid: pictures a line; default: the frames of one strip, so a line is a strip"
    )
    frame_ms: int = Field(120, ge=10, description="animation: milliseconds a frame")
    shard_rows: int = Field(
        1000, ge=1, description="shards: images a tar file, at most; fewer where they would pass 96 MiB of pixels"
    )
    storage_options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _format_fits_layout(self) -> Self:
        if self.layout == "animation" and self.format not in ("webp", "gif"):
            raise broken_rule("format", self.format, "this format has no animation.", "use webp or gif")
        if self.layout != "animation" and self.format == "gif":
            raise broken_rule("format", self.format, "gif is for layout: animation only.", "use png, jpeg or webp")
        return self


class ReportStep(_Step):
    """One self-contained HTML page about the run."""

    stage: Literal["report"] = "report"
    to: str = Field(description="URL of the HTML file")
    rows: int = Field(6, ge=1, description="strips shown per direction")


Step = Annotated[
    TrainStep | EncodeStep | IndexStep | FitStep | TraverseStep | InterpolateStep | RenderStep | ReportStep,
    Field(discriminator="stage"),
]
CODE_SETS = ("traverse", "interpolate")
"""Stages that define codes lazily; a render step expands them inside workers."""
