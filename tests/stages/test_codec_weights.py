"""Weights as files: nothing that could run code is opened, and what is damaged or mismatched is named."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from schemas.codec import ConvVAECodec, Preprocess
from schemas.errors import JobError, UnsafeWeights
from stages.codecs.factory import open_codec
from stages.codecs.weights import Weights
from tests.codec_cases import weights_of

SPEC = ConvVAECodec(weights="somewhere", preprocess=Preprocess(size=(16, 16)))
CONFIG = json.dumps(weights_of().config).encode()


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (str(self.path), "w"))


def _torch_saved(value: object, *, zipped: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def _numpy_saved() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_are_refused_and_never_run(tmp_path: Path, protocol: int) -> None:
    data = pickle.dumps(Trap(tmp_path / "trap"), protocol=protocol)
    with pytest.raises(UnsafeWeights, match=r"not safetensors.*Fix: save the tensors with"):
        Weights.from_files(CONFIG, data)
    with pytest.raises(UnsafeWeights):
        open_codec(SPEC, Weights(weights_of().config, data))
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_torch_saved({"a": torch.zeros(2)}, zipped=True), "a zip archive, as torch.save"),
        (_torch_saved({"a": torch.zeros(2)}, zipped=False), "a Python pickle"),
        (_numpy_saved(), "a NumPy array file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "an HDF5 file"),
        (b"", "bytes that start with b''"),
        (b"<html>not found</html>", "bytes that start with b'<html>"),
    ],
)
def test_other_formats_are_named(data: bytes, words: str) -> None:
    with pytest.raises(UnsafeWeights, match=words) as caught:
        Weights.from_files(CONFIG, data)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("keep", [0.3, 0.99])
def test_a_file_cut_short_is_named(keep: float) -> None:
    data = weights_of().tensors
    with pytest.raises(JobError, match="not a whole safetensors file"):
        Weights.from_files(CONFIG, data[: int(len(data) * keep)])


@pytest.mark.parametrize(
    ("config", "words"), [(b"{nope", "not JSON"), (b"[1]", "not a JSON object"), (b"\xff", "not JSON")]
)
def test_a_config_that_is_no_object_is_named(config: bytes, words: str) -> None:
    with pytest.raises(JobError, match=words):
        Weights.from_files(config, weights_of().tensors)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"latent_dim": None}, "latent_dim.*Field required.*Fix: add 'latent_dim'"),
        ({"depth": 3}, "depth = 3.*Fix: remove 'depth'; known: format"),
        ({"latent_dim": "32"}, "latent_dim = '32'.*valid integer"),
        ({"channels": [8, 16.5]}, "channels.1 = 16.5"),
        ({"channels": []}, "channels"),
        ({"variant": "gan"}, "variant = 'gan'"),
        ({"format": 2}, "format = 2"),
        ({"picture": [16, 18]}, "sides divisible by 4"),
        ({"channels": [8, 0]}, "channels must be positive"),
    ],
)
def test_a_wrong_config_key_is_named_with_its_fix(change: dict[str, object], words: str) -> None:
    config = {k: v for k, v in (weights_of().config | change).items() if v is not None or k == "weights_sha256"}
    with pytest.raises(JobError, match=words):
        open_codec(SPEC, Weights(config, weights_of().tensors))


def test_all_problems_of_a_config_come_at_once() -> None:
    with pytest.raises(JobError) as caught:
        open_codec(SPEC, Weights({"variant": "vae", "depth": 3}, weights_of().tensors))
    fields = {p.field.split(": ")[-1] for p in caught.value.problems}
    assert {"format", "latent_dim", "channels", "picture", "beta", "depth"} <= fields


def test_tensors_that_do_not_fit_the_config_are_listed() -> None:
    tensors = load(weights_of().tensors)
    tensors["head.weight"] = torch.zeros(3, 3)
    tensors["stem.bias"] = torch.zeros(tensors["stem.bias"].shape, dtype=torch.int64)
    tensors["head.bias"][0] = torch.nan
    tensors["surplus"] = tensors.pop("encoder.0.bias")
    with pytest.raises(JobError) as caught:
        open_codec(SPEC, Weights(weights_of().config, save(tensors)))
    for words in (
        "encoder.0.bias is missing",
        "surplus is unknown",
        "head.weight is [3, 3], not [12, 256]",
        "stem.bias is torch.int64, not a float",
        "head.bias holds NaN",
    ):
        assert words in str(caught.value)


def test_half_precision_weights_open() -> None:
    halves = save({name: tensor.half() for name, tensor in load(weights_of().tensors).items()})
    assert open_codec(SPEC, Weights(weights_of().config, halves)).latent.dim == 6


def test_config_and_tensors_of_two_trainings_are_not_mixed() -> None:
    first, second = weights_of(seed=1), weights_of(seed=2)
    config = json.dumps(first.config | {"weights_sha256": first.sha256()}).encode()
    assert Weights.from_files(config, first.tensors).tensors == first.tensors
    with pytest.raises(JobError, match=r"holds other tensors.*training may be under way"):
        Weights.from_files(config, second.tensors)


def test_the_hash_is_of_the_numbers_not_of_the_file() -> None:
    weights = weights_of()
    tensors = load(weights.tensors)
    again = save(dict(reversed(tensors.items())), metadata={"note": "saved again"})
    assert again != weights.tensors
    assert Weights({}, again).sha256() == weights.sha256()
    changed = dict(tensors)
    changed["head.bias"] = tensors["head.bias"] + 2**-20
    renamed = {("x" if k == "head.bias" else k): v for k, v in tensors.items()}
    reshaped = dict(tensors)
    reshaped["head.bias"] = tensors["head.bias"].reshape(2, -1)
    retyped = {k: v.view(torch.int32) for k, v in tensors.items()}
    hashes = {Weights({}, save(t)).sha256() for t in (tensors, changed, renamed, reshaped, retyped)}
    assert len(hashes) == 5
