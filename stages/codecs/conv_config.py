"""The config of a conv_vae codec: what the train step writes and every reader of the weights checks.

Loads no torch. A key that is missing, unknown or of another type is an error that names the key; nothing is guessed.
"""

import json
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from schemas.base import Spec
from schemas.codec import LatentSpec, Preprocess
from schemas.errors import JobError, Problem
from schemas.steps import TrainStep
from stages.codecs.weights import CONFIG_FILE


class ConvVAEConfig(Spec):
    """Architecture of one conv_vae. `weights_sha256` ties the config to its tensors and is no part of the identity."""

    model_config = ConfigDict(strict=True)

    format: Literal[1] = Field(description="version of this config's meaning")
    variant: Literal["ae", "vae"]
    beta: float = Field(ge=0, description="weight of the KL term it was trained with; 0 for an ae")
    latent_dim: int = Field(ge=1)
    channels: tuple[int, ...] = Field(min_length=1, description="one stride-2 stage each")
    picture: tuple[int, int] = Field(description="height, width in pixels")
    weights_sha256: str | None = None

    @model_validator(mode="after")
    def _halves(self) -> "ConvVAEConfig":
        step = 2 ** len(self.channels)
        if any(c < 1 for c in self.channels):
            raise ValueError("channels must be positive")
        if any(side < step or side % step for side in self.picture):
            raise ValueError(
                f"picture {list(self.picture)}: {len(self.channels)} stages need sides divisible by {step}"
            )
        return self

    @property
    def latent(self) -> LatentSpec:
        """Latents are posterior means: not a centred shell, so `auto` interpolation is lerp (latent-science §2)."""
        return LatentSpec(
            shape=(self.latent_dim,), space="z", prior="standard_normal" if self.variant == "vae" else "none"
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the innermost feature map."""
        step = 2 ** len(self.channels)
        return self.picture[0] // step, self.picture[1] // step


def parse_config(config: dict[str, Any], *, field: str = "codec.weights") -> ConvVAEConfig:
    """Checks a config.json. Raises JobError with every problem in it."""
    try:
        return ConvVAEConfig.model_validate_json(json.dumps(config))
    except ValidationError as error:
        raise JobError([_problem(e, f"{field}/{CONFIG_FILE}") for e in error.errors()]) from None


def config_of(step: TrainStep, preprocess: Preprocess) -> ConvVAEConfig:
    """The config a train step will write. Raises JobError when the picture cannot be halved once a stage."""
    try:
        return ConvVAEConfig(
            format=1,
            variant=step.variant,
            beta=float(step.beta) if step.variant == "vae" else 0.0,
            latent_dim=step.latent_dim,
            channels=step.channels,
            picture=preprocess.size,
        )
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise JobError.one(
            f"{step.name or 'train'}.channels",
            list(step.channels),
            f"{reason}.",
            "use fewer stages, or a codec.preprocess.size that divides",
        ) from None


def _problem(error: Any, where: str) -> Problem:
    key = ".".join(str(part) for part in error["loc"])
    fix = {
        "missing": f"add {key!r}",
        "extra_forbidden": f"remove {key!r}; known: {', '.join(ConvVAEConfig.model_fields)}",
    }
    reason = str(error["msg"]).removeprefix("Value error, ")
    value = None if error["type"] == "missing" or not key else error["input"]
    return Problem(
        f"{where}: {key}" if key else where,
        value,
        f"{reason}.",
        fix.get(error["type"], "restore the config that was written with the weights"),
    )
