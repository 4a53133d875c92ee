"""From a codec's spec to its weights: the only link between stages, which know no bucket, and the bucket.

A `CodecRef` is small and pickles; each worker loads the weights itself and checks that they are still the ones the plan
saw, so a run cannot mix two codecs when someone overwrites the weights half-way.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline import artifacts
from pipeline.versions import library_versions
from schemas.codec import CodecSpec, LatentSpec, LinearCodec, PatchesCodec
from schemas.errors import JobError, SpaceMismatch
from schemas.identity import canonical_json
from stages.codecs.abilities import Abilities
from stages.codecs.factory import codec_fingerprint, describe, open_codec
from stages.codecs.weights import CONFIG_FILE, TENSOR_FILE, Weights
from stages.stage import MapStage

if TYPE_CHECKING:
    from stages.codecs.base import Codec


BARE = (LinearCodec, PatchesCodec)
"""Families whose tensors say all: they need no config beside them."""


def weights_url(spec: CodecSpec) -> str | None:
    """Folder of the codec's weights; None for families that need none."""
    return getattr(spec, "weights", None)


def weights_exist(spec: CodecSpec) -> bool:
    """Whether the codec can be opened now."""
    url = weights_url(spec)
    # The config is written last, so where it is the tensors are; only the truth codecs do without one.
    needed = TENSOR_FILE if isinstance(spec, BARE) else CONFIG_FILE
    return url is None or artifacts.exists(artifacts.join(url, needed))


def load_weights(spec: CodecSpec) -> Weights | None:
    """Reads config.json and model.safetensors. Raises JobError when they are missing, UnsafeWeights for pickles."""
    url = weights_url(spec)
    if url is None:
        return None
    config = None
    try:
        if not isinstance(spec, BARE) or artifacts.exists(artifacts.join(url, CONFIG_FILE)):
            config = artifacts.read_bytes(artifacts.join(url, CONFIG_FILE))
        tensors = artifacts.read_bytes(artifacts.join(url, TENSOR_FILE))
    except FileNotFoundError as error:
        fix = f"add a `train` step, or name a folder with {CONFIG_FILE} and {TENSOR_FILE}"
        raise JobError.one("codec.weights", url, f"{error.filename or error} is not there.", fix) from error
    return Weights.from_files(config, tensors)


@dataclass(frozen=True)
class CodecRef:
    """A codec by name and identity. `fingerprint` covers everything that changes its numbers."""

    spec: CodecSpec
    fingerprint: str
    latent: LatentSpec
    has_logvar: bool
    allow_code: bool = False
    can: Abilities | None = None
    """What it can do; None where only the built codec knows."""

    def __hash__(self) -> int:
        return hash(self.fingerprint)  # a custom codec's options are a dictionary, which has no hash

    @classmethod
    def resolve(cls, spec: CodecSpec, *, allow_code: bool = False) -> "CodecRef":
        """Reads the weights and works out the identity; builds no model."""
        weights = load_weights(spec)
        known = describe(spec, weights, allow_code=allow_code)
        identity = codec_fingerprint(spec, weights, allow_code=allow_code)
        return cls(spec, identity, known.latent, known.logvar, allow_code, known.can)

    def load(self) -> Weights | None:
        """The weights, checked against the fingerprint. Raises SpaceMismatch when they changed since the plan."""
        weights = load_weights(self.spec)
        found = codec_fingerprint(self.spec, weights, allow_code=self.allow_code)
        if found != self.fingerprint:
            raise SpaceMismatch.one(
                "codec.weights",
                weights_url(self.spec),
                f"the weights changed during the run: planned {self.fingerprint[:16]}, found {found[:16]}.",
                "write new weights to a new folder",
            )
        return weights

    def metadata(self) -> dict[str, str]:
        """What a latents table says of its codec: enough to open it again, and which libraries made the numbers."""
        url = weights_url(self.spec)
        spec = self.spec
        if url is not None and artifacts.is_local(url):
            # Readers may stand in another folder.
            spec = spec.model_copy(update={"weights": str(artifacts.local_path(url).resolve())})
        return {
            "fingerprint": self.fingerprint,
            "codec": spec.model_dump_json(),
            "versions": canonical_json(library_versions()).decode(),
        }


@lru_cache(maxsize=1)
def opened(codec: CodecRef) -> "Codec":
    """The codec, opened on the CPU once a process: for code sets that decode while they are expanded."""
    return open_codec(codec.spec, codec.load(), device="cpu", allow_code=codec.allow_code)


@lru_cache(maxsize=1)
def opened_on(codec: CodecRef, device: str) -> "Codec":
    """The codec on a worker's device, opened once a process: for reduces that decode, which may take several passes."""
    return open_codec(codec.spec, codec.load(), device=device, allow_code=codec.allow_code)


class OnWorker:
    """A stage that fetches its weights where it is opened, so that what travels to workers stays small.

    `make(spec, weights=…, allow_code=…)` builds the stage.
    """

    def __init__(self, codec: CodecRef, make: Callable[..., MapStage]) -> None:
        self._codec, self._make = codec, make
        self._stage: MapStage | None = None

    def open(self, device: str) -> None:
        codec = self._codec
        self._stage = self._make(codec.spec, weights=codec.load(), allow_code=codec.allow_code)
        self._stage.open(device)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        assert self._stage is not None, "open() comes first"
        return self._stage(batch)
