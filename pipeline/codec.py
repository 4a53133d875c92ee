"""From a codec's spec to its weights: the only link between stages, which know no bucket, and the bucket.

A `CodecRef` is small and pickles; each worker loads the weights itself and checks that they are still the ones the plan
saw, so a run cannot mix two codecs when someone overwrites the weights half-way.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from pipeline import artifacts
from schemas.codec import CodecSpec, LatentSpec
from schemas.errors import JobError, SpaceMismatch
from stages.codecs.open import Weights, codec_fingerprint, latent_spec_of
from stages.stage import MapStage

CONFIG, TENSORS = "config.json", "model.safetensors"


def weights_url(spec: CodecSpec) -> str | None:
    """Folder of the codec's weights; None for families that need none."""
    return getattr(spec, "weights", None)


def weights_exist(spec: CodecSpec) -> bool:
    """Whether the codec can be opened now."""
    url = weights_url(spec)
    return url is None or artifacts.exists(artifacts.join(url, CONFIG))


def load_weights(spec: CodecSpec) -> Weights | None:
    """Reads config.json and model.safetensors. Raises JobError when they are missing, UnsafeWeights for pickles."""
    url = weights_url(spec)
    if url is None:
        return None
    try:
        config = artifacts.read_bytes(artifacts.join(url, CONFIG))
        tensors = artifacts.read_bytes(artifacts.join(url, TENSORS))
    except FileNotFoundError as error:
        fix = f"train it (a `train` step), or point codec.weights at a folder with {CONFIG} and {TENSORS}"
        raise JobError.one("codec.weights", url, f"{error} is not there.", fix) from error
    return Weights.from_files(config, tensors)


@dataclass(frozen=True)
class CodecRef:
    """A codec by name and identity. `fingerprint` covers everything that changes its numbers."""

    spec: CodecSpec
    fingerprint: str
    latent: LatentSpec
    allow_code: bool = False

    @classmethod
    def resolve(cls, spec: CodecSpec, *, allow_code: bool = False) -> "CodecRef":
        weights = load_weights(spec)
        return cls(spec, codec_fingerprint(spec, weights), latent_spec_of(spec, weights), allow_code)

    def load(self) -> Weights | None:
        """The weights, checked against the fingerprint. Raises SpaceMismatch when they changed since the plan."""
        weights = load_weights(self.spec)
        found = codec_fingerprint(self.spec, weights)
        if found != self.fingerprint:
            raise SpaceMismatch.one(
                "codec.weights",
                weights_url(self.spec),
                f"the weights changed during the run: planned {self.fingerprint[:16]}, found {found[:16]}.",
                "write new weights to a new folder",
            )
        return weights


class OnWorker:
    """A stage that fetches its weights where it is opened, so that what travels to workers stays small."""

    def __init__(self, codec: CodecRef, make: Callable[..., MapStage]) -> None:
        self._codec, self._make = codec, make
        self._stage: MapStage | None = None

    def open(self, device: str) -> None:
        self._stage = self._make(spec=self._codec.spec, weights=self._codec.load(), allow_code=self._codec.allow_code)
        self._stage.open(device)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        assert self._stage is not None, "open() comes first"
        return self._stage(batch)
