"""Codec specs: one tagged union, one class a family; and what a codec says of its latents.

What changes numbers is in the fingerprint (weights, preprocessing, precision, memory format, compilation); what does not
(batch size, device, threads, bucket) stays out of the spec and lives with the executor.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from schemas.base import Spec


class Preprocess(Spec):
    """How any picture becomes the codec's picture: orientation, colour, resize, crop, in that order."""

    size: tuple[int, int] = Field((64, 64), description="height, width in pixels; a single number means a square")
    resize: Literal["cover", "contain", "stretch"] = Field(
        "cover", description="cover: shorter side fits, rest is cropped; contain: padded; stretch: aspect ignored"
    )
    crop: Literal["center", "top"] = Field("center", description="which part of a covering resize is kept")
    interpolation: Literal["area", "bilinear", "bicubic", "lanczos"] = "area"
    background: tuple[int, int, int] = Field(
        (255, 255, 255), description="RGB shown through transparency and around `contain`"
    )
    fast_jpeg: bool = Field(
        True, description="decode JPEG at a reduced DCT scale not below the target; faster, changes pixels slightly"
    )

    @field_validator("size", mode="before", json_schema_input_type=int | tuple[int, int])
    @classmethod
    def _square(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("size")
    @classmethod
    def _bounds(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not all(1 <= side <= 8192 for side in value):
            raise ValueError("sides must be from 1 to 8192 pixels")
        return value

    @field_validator("background")
    @classmethod
    def _colour(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if not all(0 <= part <= 255 for part in value):
            raise ValueError("red, green and blue must be from 0 to 255")
        return value


Axis = Literal["feature", "channel", "height", "width", "token", "layer"]


class LatentSpec(Spec):
    """Shape, space and prior of a codec's latents. Stored in the latent field's metadata; never guessed from data."""

    shape: tuple[int, ...] = Field(description="(d,), (channels, height, width), (layers, d) or (tokens, d)")
    axes: tuple[Axis, ...] = Field(
        (),
        description="what each side of `shape` is; empty: (feature,), or (channel, height, width) for three sides. "
        "Two sides, as in W+ (layer, feature) or tokens (token, feature), have to be declared",
    )
    space: str = Field(description="which coordinates: `z`, `w`, `noise`, …; two spaces never mix")
    prior: Literal["none", "standard_normal"] = "none"
    centred_shell: bool = Field(
        False, description="rows lie near a shell of radius √d around 0, so slerp is the natural path"
    )
    codebook: int | None = Field(
        None,
        ge=2,
        le=2**24,
        description="discrete families: how many codes there are. A token's embedding stands along `channel` or `feature`, the "
        "other sides number the tokens",
    )

    @model_validator(mode="after")
    def _one_axis_a_side(self) -> "LatentSpec":
        if self.axes and (len(self.axes) != len(self.shape) or len(set(self.axes)) < len(self.axes)):
            raise ValueError(f"axes {list(self.axes)} must name each side of shape {list(self.shape)} once")
        if self.codebook is not None and (len(self.shape) < 2 or not {"channel", "feature"} & set(self.named_axes)):
            raise ValueError(
                f"a codebook needs a `channel` or `feature` side and tokens beside it, not {list(self.shape)}"
            )
        return self

    @property
    def embedding_axis(self) -> int:
        """The side of `shape` along which a token's embedding stands. For discrete families."""
        return next(i for i, axis in enumerate(self.named_axes) if axis in ("channel", "feature"))

    @property
    def token_shape(self) -> tuple[int, ...]:
        """The grid of tokens: `shape` without the embedding. Empty for continuous families."""
        if self.codebook is None:
            return ()
        return tuple(side for i, side in enumerate(self.shape) if i != self.embedding_axis)

    @property
    def named_axes(self) -> tuple[Axis, ...]:
        """What each side of `shape` is; empty where that is neither declared nor plain from the number of sides."""
        usual: dict[int, tuple[Axis, ...]] = {1: ("feature",), 3: ("channel", "height", "width")}
        return self.axes or usual.get(len(self.shape), ())

    @property
    def dim(self) -> int:
        """Number of scalars in one latent."""
        size = 1
        for side in self.shape:
            size *= side
        return size


class _Codec(Spec):
    preprocess: Preprocess = Preprocess()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = Field(False, description="NHWC memory format inside the model")
    compile: bool = Field(False, description="torch.compile the model (needs a C++ compiler on CPU)")


class LinearCodec(_Codec):
    """The exact codec: z = A(x − μ), with A's rows orthonormal, drawn from `seed` or read from `weights` (A: d×p, μ: p)."""

    family: Literal["linear"] = "linear"
    dim: int = Field(16, ge=1)
    seed: int = Field(0, ge=0)
    weights: str | None = None


class SphereCodec(_Codec):
    """A codec whose decoded pictures lie on a d-sphere in pixel space, so geodesics are known in closed form."""

    family: Literal["sphere"] = "sphere"
    dim: int = Field(2, ge=1)
    seed: int = Field(0, ge=0)


class ConvVAECodec(_Codec):
    """A small convolutional AE, VAE or β-VAE. `weights` is a folder with config.json and model.safetensors."""

    family: Literal["conv_vae"] = "conv_vae"
    channels_last: bool = Field(True, description="NHWC memory format inside the model: faster, other last bits")
    weights: str = Field(description="folder URL written by the train step")


class PatchesCodec(_Codec):
    """A discrete codec: every p×p patch becomes the nearest of K codebook entries, in whole numbers, so no answer hangs on rounding.

    Entries are flat colours, spread over all colours from `seed`, or patches of your own from `weights` (`codebook`: K×p×p×3, uint8).
    """

    family: Literal["patches"] = "patches"
    codes: int = Field(64, ge=2, le=2**16, description="K, entries of the codebook")
    patch: int = Field(4, ge=1, le=64, description="p, pixels a side; it divides both sides of preprocess.size")
    seed: int = Field(0, ge=0)
    weights: str | None = None

    @property
    def own_codebook(self) -> bool:
        """Whether the entries come from `weights`."""
        return self.weights is not None

    @property
    def latent(self) -> "LatentSpec":
        """One embedding a patch: its entry's colour, or all numbers of its entry, in units of pixels/255."""
        height, width = (side // self.patch for side in self.preprocess.size)
        channels = 3 * self.patch**2 if self.own_codebook else 3
        return LatentSpec(shape=(channels, height, width), space="model", codebook=self.codes)


class CustomCodec(_Codec):
    """A codec of the user's own, `module:Class`; refused unless the job says `allow_code: true`."""

    family: Literal["custom"] = "custom"
    entry: str = Field(pattern=r"^[\w.]+:\w+$", description="`module:Class`, importable on driver and workers")
    options: dict[str, Any] = Field(default_factory=dict)


CodecSpec = Annotated[
    LinearCodec | SphereCodec | PatchesCodec | ConvVAECodec | CustomCodec, Field(discriminator="family")
]
