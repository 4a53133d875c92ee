"""An untrained encoder for benchmarks: speed does not depend on the values of weights."""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pipeline.codec import load_weights
from schemas.codec import CodecSpec
from schemas.steps import TrainStep
from stages.codecs.base import Codec
from stages.codecs.factory import open_codec


def opened(data: dict[str, Any]) -> Codec:
    """The codec of a job's `codec:` mapping, on the CPU."""
    adapter: TypeAdapter[CodecSpec] = TypeAdapter(CodecSpec)
    spec = adapter.validate_python(data)
    return open_codec(spec, load_weights(spec), device="cpu")
