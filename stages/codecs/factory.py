"""From a codec spec to an opened codec, to its identity, and to the shape of its latents.

One explicit `match` describes a family, one opens it; a new family is a file here, a spec, and an arm in both (mypy finds
a forgotten one). Describing loads no torch, so a plan, or a run with nothing to do, never waits for it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

from schemas.codec import CodecSpec, ConvVAECodec, CustomCodec, LatentSpec, LinearCodec, PatchesCodec, SphereCodec
from schemas.errors import JobError, Problem
from schemas.identity import fingerprint
from stages.codecs.abilities import AUTOENCODER, DISCRETE, EXACT, VARIATIONAL, Abilities
from stages.codecs.conv_config import parse_config
from stages.codecs.weights import CONFIG_FILE, TENSOR_FILE, Weights
from stages.entry import import_entry

if TYPE_CHECKING:
    from stages.codecs.base import Codec


@dataclass(frozen=True, slots=True)
class Description:
    """What is known of a codec without building it.

    `config` is what changes its numbers beside weights and the fields every codec has. `revision` grows when our code
    for a family changes its numbers. `can` is None where only the built codec knows.
    """

    latent: LatentSpec
    logvar: bool
    config: dict[str, Any]
    can: Abilities | None
    revision: int = 1


def open_codec(
    spec: CodecSpec, weights: Weights | None = None, *, device: str = "cpu", allow_code: bool = False
) -> "Codec":
    """Builds the codec on `device`. Raises JobError (UnsafeWeights for pickles) when spec and weights do not fit."""
    describe(spec, weights, allow_code=allow_code)
    match spec:
        case LinearCodec():
            from stages.codecs.linear import Linear

            return Linear(spec, weights, device=device)
        case SphereCodec():
            from stages.codecs.sphere import Sphere

            return Sphere(spec, device=device)
        case PatchesCodec():
            from stages.codecs.patches import Patches

            return Patches(spec, weights, device=device)
        case ConvVAECodec():
            from stages.codecs.conv_vae import ConvVAE

            return ConvVAE(spec, _needed(weights, spec), device=device)
        case CustomCodec():
            codec: Codec = _custom_class(spec, allow_code=allow_code)(spec, device=device)
            return codec
        case _:
            assert_never(spec)


def describe(spec: CodecSpec, weights: Weights | None = None, *, allow_code: bool = False) -> Description:
    """Shape, prior and config of a codec. Raises JobError when spec and weights do not fit; builds nothing."""
    match spec:
        case LinearCodec():
            _closed_form(spec)
            latent = LatentSpec(shape=(spec.dim,), space="z")
            if spec.weights is None and weights is None:
                return Description(latent, logvar=False, config={"dim": spec.dim, "seed": spec.seed}, can=EXACT)
            _fits_linear(spec, _needed(weights, spec))
            # With weights of its own the seed changes nothing, so it is no part of the identity.
            return Description(latent, logvar=False, config={"dim": spec.dim}, can=EXACT)
        case SphereCodec():
            _closed_form(spec)
            latent = LatentSpec(shape=(spec.dim,), space="z")
            return Description(latent, logvar=False, config={"dim": spec.dim, "seed": spec.seed}, can=EXACT)
        case PatchesCodec():
            _exact(spec, _patch_problems(spec))
            config = {"codes": spec.codes, "patch": spec.patch}
            if not spec.own_codebook:
                return Description(spec.latent, logvar=False, config=config | {"seed": spec.seed}, can=DISCRETE)
            side = spec.patch
            _fits(spec, _needed(weights, spec), {"codebook": (spec.codes, side, side, 3)})
            return Description(spec.latent, logvar=False, config=config, can=DISCRETE)
        case ConvVAECodec():
            parsed = parse_config(_needed(weights, spec).config)
            if parsed.picture != spec.preprocess.size:
                raise JobError.one(
                    "codec.preprocess.size",
                    list(spec.preprocess.size),
                    f"the weights were made for pictures of {list(parsed.picture)} (height, width).",
                    f"set it to {list(parsed.picture)}, or train for this size",
                )
            return Description(
                parsed.latent,
                logvar=parsed.variant == "vae",
                config=parsed.model_dump(exclude={"weights_sha256"}),
                can=VARIATIONAL if parsed.variant == "vae" else AUTOENCODER,
            )
        case CustomCodec():
            own = _custom_class(spec, allow_code=allow_code)
            can = getattr(own, "can", None)  # a property says nothing before the codec is built
            can = frozenset(can) if isinstance(can, (frozenset, set)) else None
            return Description(
                own.latent_of(spec), logvar=False, config={"entry": spec.entry, "options": spec.options}, can=can
            )
        case _:
            assert_never(spec)


def codec_identity(spec: CodecSpec, weights: Weights | None = None, *, allow_code: bool = False) -> dict[str, Any]:
    """All that changes the codec's numbers, as canonical JSON can hold it. No device, batch size, thread count or URL.

    The code behind a `custom` entry cannot be hashed from here: its owner puts a version into `options`.
    """
    known = describe(spec, weights, allow_code=allow_code)
    return {
        "family": spec.family,
        "revision": known.revision,
        "weights": weights.sha256() if weights else None,
        "config": known.config,
        "preprocess": spec.preprocess.model_dump(),
        "precision": spec.precision,
        "channels_last": spec.channels_last,
        "compile": spec.compile,
        "space": known.latent.space,
    }


def codec_fingerprint(spec: CodecSpec, weights: Weights | None = None, *, allow_code: bool = False) -> str:
    """SHA-256 of the identity, as 64 hexadecimal digits: the name of this codec in every table."""
    return fingerprint(codec_identity(spec, weights, allow_code=allow_code))


def _needed(weights: Weights | None, spec: LinearCodec | PatchesCodec | ConvVAECodec) -> Weights:
    if weights is None:
        raise JobError.one(
            "codec.weights",
            spec.weights,
            f"no weights there ({CONFIG_FILE}, {TENSOR_FILE}).",
            "correct the folder, or put a `train` step first",
        )
    return weights


def _closed_form(spec: LinearCodec | SphereCodec) -> None:
    """A basis has no more rows than a picture has numbers."""
    height, width = spec.preprocess.size
    rows = spec.dim + (1 if isinstance(spec, SphereCodec) else 0)
    reason = f"pictures of {height}×{width} have {height * width * 3} numbers only."
    many = Problem("codec.dim", spec.dim, reason, "use a smaller dim or larger pictures")
    _exact(spec, [many] if rows > height * width * 3 else [])


def _patch_problems(spec: PatchesCodec) -> list[Problem]:
    height, width = spec.preprocess.size
    if not height % spec.patch and not width % spec.patch:
        return []
    reason = f"it does not divide pictures of {height}×{width}."
    return [Problem("codec.patch", spec.patch, reason, "use a divisor of both sides of codec.preprocess.size")]


def _exact(spec: LinearCodec | SphereCodec | PatchesCodec, more: list[Problem]) -> None:
    """These families have one way to compute; an option that would be ignored silently is refused instead."""
    problems = [
        Problem(f"codec.{name}", value, f"the {spec.family} codec is exact and has no such variant.", f"remove {name}")
        for name, value, plain in (
            ("precision", spec.precision, "fp32"),
            ("channels_last", spec.channels_last, False),
            ("compile", spec.compile, False),
        )
        if value != plain
    ]
    if problems + more:
        raise JobError(problems + more)


def _fits_linear(spec: LinearCodec, weights: Weights) -> None:
    height, width = spec.preprocess.size
    _fits(spec, weights, {"basis": (spec.dim, height * width * 3), "mean": (height * width * 3,)})


def _fits(spec: LinearCodec | PatchesCodec, weights: Weights, wanted: dict[str, tuple[int, ...]]) -> None:
    """The tensors of these names and shapes, and no others."""
    found = {name: entry.shape for name, entry in weights.entries().items()}
    if found != wanted:
        size = "codec.dim" if isinstance(spec, LinearCodec) else "codec.codes, codec.patch"
        raise JobError.one(
            f"codec.weights/{TENSOR_FILE}",
            {name: list(shape) for name, shape in found.items()},
            f"the {spec.family} codec needs exactly { ({name: list(shape) for name, shape in wanted.items()}) }.",
            f"store {' and '.join(f'`{name}`' for name in wanted)} of that shape, or set {size} and codec.preprocess.size to fit",
        )


def _custom_class(spec: CustomCodec, *, allow_code: bool) -> Any:
    """The user's class: `Class(spec, device=…)` is a Codec, and `Class.latent_of(spec)` its LatentSpec without building."""
    found = import_entry(spec.entry, field="codec.entry", allow_code=allow_code)
    if not callable(getattr(found, "latent_of", None)):
        raise JobError.one(
            "codec.entry",
            spec.entry,
            "has no static method `latent_of(spec) -> LatentSpec`.",
            "add it: plans need the latent's shape without building the codec",
        )
    return found
