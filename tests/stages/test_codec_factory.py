"""Opening codecs by their spec, and their identity: it moves with every number-changing field and with nothing else."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import CodecSpec, ConvVAECodec, CustomCodec, LinearCodec, PatchesCodec, Preprocess, SphereCodec
from schemas.errors import JobError
from stages.codecs.factory import codec_fingerprint, codec_identity, describe, open_codec
from stages.codecs.weights import Weights
from tests.codec_cases import pictures, weights_of

SIZE = Preprocess(size=(16, 16))
CONV = ConvVAECodec(weights="./a", preprocess=SIZE)
CUSTOM = CustomCodec(entry="tests.codec_cases:StubbornCodec", preprocess=SIZE)
CASES: list[tuple[CodecSpec, Weights | None]] = [
    (LinearCodec(dim=5, preprocess=SIZE), None),
    (SphereCodec(dim=2, preprocess=SIZE), None),
    (PatchesCodec(codes=20, preprocess=SIZE), None),
    (CONV, weights_of()),
    (CONV, weights_of(variant="ae", latent_dim=3)),
    (CUSTOM, None),
]


@pytest.mark.parametrize(("spec", "weights"), CASES)
def test_what_is_known_without_building_is_what_the_codec_does(spec: CodecSpec, weights: Weights | None) -> None:
    codec = open_codec(spec, weights, allow_code=True)
    known = describe(spec, weights, allow_code=True)
    assert codec.latent == known.latent
    assert codec.picture == spec.preprocess.size
    encoded = codec.encode(pictures(2))
    assert encoded.mean.shape == (2, *known.latent.shape) and encoded.mean.dtype == torch.float32
    assert (encoded.logvar is not None) == known.logvar
    assert (encoded.codes is not None) == ("codes" in codec.can) == (known.latent.codebook is not None)
    decoded = codec.decode(encoded.mean)
    assert decoded.shape == (2, 16, 16, 3) and decoded.dtype == torch.uint8
    assert torch.equal(codec.from_model(codec.to_model(encoded.mean)), encoded.mean)
    assert ("sample" in codec.can) == (known.latent.prior != "none")


CHANGES: list[tuple[CodecSpec, Weights | None, dict[str, Any]]] = [
    (CONV, weights_of(), {"precision": "bf16"}),
    (CONV, weights_of(), {"channels_last": not CONV.channels_last}),
    (CONV, weights_of(), {"compile": True}),
    *(
        (LinearCodec(dim=5, preprocess=SIZE), None, {"preprocess": SIZE.model_copy(update=change)})
        for change in (
            {"size": (16, 32)},
            {"resize": "contain"},
            {"crop": "top"},
            {"interpolation": "lanczos"},
            {"background": (0, 0, 0)},
            {"fast_jpeg": False},
        )
    ),
    (LinearCodec(dim=5, preprocess=SIZE), None, {"dim": 6}),
    (LinearCodec(dim=5, preprocess=SIZE), None, {"seed": 1}),
    (SphereCodec(dim=5, preprocess=SIZE), None, {"seed": 1}),
    (PatchesCodec(preprocess=SIZE), None, {"seed": 1}),
    (PatchesCodec(preprocess=SIZE), None, {"codes": 65}),
    (PatchesCodec(preprocess=SIZE), None, {"patch": 8}),
    (CUSTOM, None, {"options": {"space": "w"}}),
    (CUSTOM, None, {"options": {"version": 2}}),
]


@pytest.mark.parametrize(("spec", "weights", "change"), CHANGES)
def test_identity_moves_with_what_changes_numbers(
    spec: CodecSpec, weights: Weights | None, change: dict[str, Any]
) -> None:
    other = spec.model_copy(update=change)
    before = codec_fingerprint(spec, weights, allow_code=True)
    assert before != codec_fingerprint(other, weights, allow_code=True)
    assert before == codec_fingerprint(spec.model_copy(), weights, allow_code=True)


def test_identity_moves_with_weights_and_family_and_not_with_their_place() -> None:
    assert codec_fingerprint(CONV, weights_of(seed=1)) != codec_fingerprint(CONV, weights_of(seed=2))
    moved = CONV.model_copy(update={"weights": "s3://elsewhere"})
    assert codec_fingerprint(CONV, weights_of()) == codec_fingerprint(moved, weights_of())
    assert codec_fingerprint(LinearCodec(dim=5, preprocess=SIZE)) != codec_fingerprint(
        SphereCodec(dim=5, preprocess=SIZE)
    )


def test_identity_leaves_out_the_tie_between_the_two_files() -> None:
    weights = weights_of()
    tied = Weights(weights.config | {"weights_sha256": weights.sha256()}, weights.tensors)
    assert codec_identity(CONV, tied) == codec_identity(CONV, weights)


def test_identity_is_pinned() -> None:
    # Readers of older tables compare fingerprints: a change here orphans every table that was ever written.
    assert codec_fingerprint(LinearCodec(dim=5, preprocess=SIZE))[:16] == "27a50f75f51cc855"


@given(st.sampled_from(CASES), st.sampled_from(["cpu"]), st.integers(1, 4))
def test_batch_size_and_device_are_no_part_of_it(case: tuple[CodecSpec, Weights | None], device: str, n: int) -> None:
    spec, weights = case
    before = codec_fingerprint(spec, weights, allow_code=True)
    open_codec(spec, weights, device=device, allow_code=True).encode(pictures(n))
    assert codec_fingerprint(spec, weights, allow_code=True) == before
    assert not {"device", "batch_size", "threads"} & codec_identity(spec, weights, allow_code=True).keys()


def test_missing_weights_and_another_size_are_refused_before_anything_is_built() -> None:
    with pytest.raises(JobError, match=r"codec\.weights = '\./a': no weights there"):
        describe(CONV, None)
    with pytest.raises(JobError, match=r"codec.preprocess.size.*\[16, 16\]"):
        describe(ConvVAECodec(weights="./a"), weights_of())


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("tests.no_such_module:Codec", "cannot be imported"),
        ("tests.codec_cases:NoSuchCodec", "cannot be imported"),
        ("tests.codec_cases:weights_of", "latent_of"),
    ],
)
def test_a_custom_codec_that_is_not_one_is_named(entry: str, words: str) -> None:
    with pytest.raises(JobError, match=words):
        open_codec(CUSTOM.model_copy(update={"entry": entry}), allow_code=True)


def test_a_custom_codec_needs_the_users_word() -> None:
    for use in (open_codec, describe, codec_fingerprint):
        with pytest.raises(JobError, match="allow_code: true"):
            use(CUSTOM)


def test_describing_loads_no_torch() -> None:
    code = "import sys, stages.codecs.factory as f, schemas.codec as c; f.codec_fingerprint(c.LinearCodec()); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
