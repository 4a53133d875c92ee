"""Weights of a codec as bytes: a JSON config and safetensors. Nothing here runs code that a file brings along.

Loads no torch: plans hash weights and read their shapes without a model. The hash is over tensors in the order of their
names (name, dtype, shape, bytes), so saving the same numbers again, in another order or with other metadata, is the same.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError, deserialize

from schemas.errors import JobError, UnsafeWeights

CONFIG_FILE = "config.json"
TENSOR_FILE = "model.safetensors"

_SIGNATURES = {
    b"PK\x03\x04": "a zip archive, as torch.save and numpy.savez write (its tensors are pickled)",
    b"\x80": "a Python pickle",
    b"\x93NUMPY": "a NumPy array file",
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF file",
}
_FIX = "save the tensors with `safetensors.torch.save_file(model.state_dict(), 'model.safetensors')` where you trust the file"


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored tensor: its dtype in safetensors' words (`F32`, `BF16`, …), shape and raw little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Weights:
    """A codec's config, and its tensors as the bytes of one safetensors file."""

    config: dict[str, Any]
    tensors: bytes

    @classmethod
    def from_files(cls, config: bytes | None, tensors: bytes, *, field: str = "codec.weights") -> "Weights":
        """Checks both files before anything is built. `config` may be absent for families that need none (`linear`).

        Raises UnsafeWeights for anything but safetensors, JobError for a config that is not a JSON object, a damaged
        file, or a config that was written for other tensors. `field` is the job's field that errors name.
        """
        weights = cls(_json_object(config, field) if config is not None else {}, tensors)
        weights.entries(field=field)
        stated = weights.config.get("weights_sha256")
        if isinstance(stated, str) and stated != weights.sha256():
            raise JobError.one(
                f"{field}/{CONFIG_FILE}: weights_sha256",
                stated,
                f"{TENSOR_FILE} beside it holds other tensors ({weights.sha256()[:12]}…); a training may be under way.",
                "wait for the training to end, or restore the pair",
            )
        return weights

    def entries(self, *, field: str = "codec.weights") -> dict[str, Entry]:
        """Every stored tensor by name. Raises UnsafeWeights for another format, JobError when the file is cut short."""
        _refuse_other_formats(self.tensors, field)
        try:
            stored = deserialize(self.tensors)  # type: ignore[no-untyped-call]
        except SafetensorError as error:
            raise JobError.one(
                f"{field}/{TENSOR_FILE}", None, f"not a whole safetensors file ({error}).", "copy or export it again"
            ) from error
        return {name: Entry(e["dtype"], tuple(e["shape"]), bytes(e["data"])) for name, e in stored}

    def sha256(self) -> str:
        """Hash of the numbers, whatever their order in the file."""
        digest = hashlib.sha256()
        for name, entry in sorted(self.entries().items()):
            head = json.dumps([name, entry.dtype, list(entry.shape), len(entry.data)])
            digest.update(head.encode() + b"\n")
            digest.update(entry.data)
        return digest.hexdigest()


def _json_object(data: bytes, field: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise JobError.one(
            f"{field}/{CONFIG_FILE}", None, f"not JSON ({error}).", "write the config as a JSON object"
        ) from error
    if not isinstance(value, dict):
        raise JobError.one(
            f"{field}/{CONFIG_FILE}", type(value).__name__, "not a JSON object.", 'start it with {"variant": …}'
        )
    return value


def _refuse_other_formats(data: bytes, field: str) -> None:
    """A safetensors file is an 8-byte little-endian header length, then `{`. Whatever else it is, we do not open it."""
    if len(data) > 8 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= 100_000_000:
        return
    found = next((what for magic, what in _SIGNATURES.items() if data.startswith(magic)), None)
    raise UnsafeWeights.one(
        f"{field}/{TENSOR_FILE}",
        None,
        f"found {found or f'bytes that start with {data[:12]!r}'}, not safetensors; it is refused unread.",
        _FIX,
    )
