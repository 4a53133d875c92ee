"""An untrained encoder for benchmarks: speed does not depend on the values of weights."""

from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import save

from pipeline.codec import load_weights
from schemas.codec import CodecSpec, Preprocess
from schemas.steps import TrainStep
from stages.codecs.base import Codec
from stages.codecs.conv_config import config_of
from stages.codecs.conv_network import ConvNetwork
from stages.codecs.factory import open_codec
from stages.codecs.weights import CONFIG_FILE, TENSOR_FILE


def opened(data: dict[str, Any]) -> Codec:
    """The codec of a job's `codec:` mapping, on the CPU."""
    adapter: TypeAdapter[CodecSpec] = TypeAdapter(CodecSpec)
    spec = adapter.validate_python(data)
    return open_codec(spec, load_weights(spec), device="cpu")


def untrained(folder: Path, *, size: int, dim: int) -> None:
    """Writes a conv_vae with random weights: three stages of 32, 64 and 128 channels."""
    torch.manual_seed(0)
    config = config_of(TrainStep(variant="vae", latent_dim=dim, channels=(32, 64, 128)), Preprocess(size=(size, size)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TENSOR_FILE).write_bytes(save(ConvNetwork(config).state_dict()))
    (folder / CONFIG_FILE).write_text(config.model_dump_json(exclude={"weights_sha256"}))
