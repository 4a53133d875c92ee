"""Healthy, collapsed and holed codecs are told apart by construction, and every flag names its threshold."""

from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch

from schemas.codec import CustomCodec
from schemas.measurements import OK, Measurement
from stages.diagnosis.diagnosis import diagnosis, probe_batches
from stages.diagnosis.evidence import Limits, gather
from stages.diagnosis.probe import Probe
from stages.diagnosis.scan import Scan
from tests.diagnosed_codec import DiagnosedCodec

N = 3000


def spec(**options: object) -> CustomCodec:
    return CustomCodec(entry="tests.diagnosed_codec:DiagnosedCodec", options=options)


def opened(device: str, **options: object) -> DiagnosedCodec:
    return DiagnosedCodec(spec(**options), device=device)


def column(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).reshape(-1)), values.shape[1])


def diagnosed(factors: np.ndarray, *, decodes: int = 1024, **options: object) -> dict[str, Measurement]:
    """Pictures of `factors` (n, dim) encoded by the codec, and what the diagnosis finds."""
    codec = opened("cpu", dim=factors.shape[1], **options)
    encoded = codec.encode(codec.decode(torch.from_numpy(factors)))
    assert encoded.logvar is not None
    stage = Scan(factors.shape[1], True)
    ids = pa.array([f"image {n}" for n in range(len(factors))])
    batch = pa.record_batch(
        {"id": ids, "latent": column(encoded.mean.numpy()), "logvar": column(encoded.logvar.numpy())}
    )
    scanned = stage.add(stage.start(), batch)
    evidence = gather(scanned, codec.latent, limits=Limits(), sample=1200, seed=0)
    assert evidence is not None
    if decodes:
        steps, batches = probe_batches(evidence, decodes)
        probe = Probe(steps, partial(opened, dim=factors.shape[1], **options))
        probe.open("cpu")
        state = probe.start()
        for part in batches:
            state = probe.merge(probe.add(probe.start(), part), state)
        evidence = evidence.with_probe(state)
    found = diagnosis(evidence)
    flags = [m for m in found if m.status != OK]
    assert found[: len(flags)] == flags, "flags come first"
    assert all(m.message for m in flags), "every flag says why"
    assert all(m.value is None or np.isfinite(m.value) for m in found)
    return {f"{m.metric}/{m.target}" if m.metric == "cycle_error" else m.metric: m for m in found}


def flagged(found: dict[str, Measurement]) -> set[str]:
    return {name for name, m in found.items() if m.status != OK}


@pytest.fixture(scope="module")
def normal() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, 6)).clip(-2.9, 2.9)


@pytest.fixture(scope="module")
def healthy(normal: np.ndarray) -> dict[str, Measurement]:
    return diagnosed(normal)


def test_a_healthy_codec_raises_no_flag(healthy: dict[str, Measurement]) -> None:
    assert flagged(healthy) == set()
    assert healthy["active_units"].value == 6 and healthy["collapsed_dimensions"].value == 0
    assert healthy["norm"].value == pytest.approx(np.sqrt(6) * 0.96, abs=0.1)
    assert healthy["posterior_std"].value == pytest.approx(np.exp(-3), abs=1e-4)
    assert healthy["kl"].value == pytest.approx(6 * 0.5 * (1 + np.exp(-6) - 1 + 6), rel=0.02)
    dimension = healthy["intrinsic_dimension"]
    assert dimension.value == pytest.approx(6, abs=1.2) and dimension.low is not None
    assert healthy["participation_ratio"].value == pytest.approx(6, abs=0.1)
    assert healthy["precision"].value > 0.9 and healthy["coverage"].value > 0.9  # type: ignore[operator]
    assert healthy["cycle_error/images"].value < 0.05  # type: ignore[operator]


def test_dead_coordinates_are_a_collapse(normal: np.ndarray) -> None:
    found = diagnosed(normal, dead=2)
    assert found["collapsed_dimensions"].status == "collapsed" and found["collapsed_dimensions"].value == 4
    assert "4 of 6 coordinates" in found["collapsed_dimensions"].message
    assert found["collapsed_dimensions"].threshold == pytest.approx(0.6)
    assert found["active_units"].value == 2 and found["silent_dimensions"].value == 4
    assert found["decoder_sensitivity"].low == 0


def test_a_wholly_collapsed_codec_says_nothing(normal: np.ndarray) -> None:
    found = diagnosed(normal, dead=0)
    assert found["kl"].status == "collapsed" and found["kl"].value == 0
    assert found["collapsed_dimensions"].value == 6 and found["active_units"].value == 0
    assert found["active_units"].status == "collapsed", "also where the decoder is not asked and no posterior is stored"
    assert found["intrinsic_dimension"].status == "too_few_points"
    # Its aggregate is the prior exactly: the flag is collapse, not a mismatch.
    assert not {"ks_greatest", "mmd", "aggregate_kl_diagonal", "precision"} & flagged(found)


def test_without_asking_the_decoder_collapse_is_not_claimed(normal: np.ndarray) -> None:
    found = diagnosed(normal, dead=2, decodes=0)
    assert found["collapsed_dimensions"].status == "not_measured" and found["collapsed_dimensions"].value is None
    assert found["silent_dimensions"].value == 4


def test_a_hole_is_found_by_neighbours_and_by_the_cycle(normal: np.ndarray) -> None:
    """No image lies where |z₀| < 1.5, which is 87 % of the prior, and the decoder pushes what is put there to the edge."""
    holed = normal.copy()
    holed[:, 0] = np.random.default_rng(1).uniform(1.5, 2.5, N) * np.where(normal[:, 0] < 0, -1, 1)
    found = diagnosed(holed[:, :3], hole=1.5)
    assert {"precision", "ks_greatest", "mmd", "two_sample_accuracy", "cycle_ratio"} <= flagged(found)
    assert found["precision"].status == "holes" and found["cycle_ratio"].status == "off_manifold"
    assert found["cycle_ratio"].value > 5 and found["hole_cells"].value > 10  # type: ignore[operator]
    assert not {"collapsed_dimensions", "kl", "active_units"} & flagged(found)
    assert found["recall"].status == OK, "every image is still within reach of the prior"
    assert '"nearest": "image ' in found["hole_cells"].detail


def test_images_out_of_the_prior_s_reach(normal: np.ndarray) -> None:
    half = normal.copy()
    half[:, 0] = 0.3 * half[:, 0]  # the codec fills a slab, so it is the other way round: draws where no image is
    found = diagnosed(half)
    assert "ks_greatest" in flagged(found) and found["aggregate_kl_diagonal"].value == pytest.approx(0.75, abs=0.1)


def test_two_modes_that_the_gaussian_kl_cannot_see(normal: np.ndarray) -> None:
    modes = normal.copy()
    modes[:, 0] = np.sqrt(0.95) * np.where(normal[:, 0] < 0, -1, 1) + np.sqrt(0.05) * np.random.default_rng(2).normal(
        size=N
    )
    found = diagnosed(modes)
    assert found["aggregate_kl_diagonal"].status == OK and found["aggregate_kl_diagonal"].value < 0.1  # type: ignore[operator]
    worst = found["ks_greatest"]
    assert (worst.status, worst.subject) == ("not_prior", "coordinate 0") and worst.value > 0.15  # type: ignore[operator]
    assert "The Gaussian KL reads" in worst.message and found["w1_greatest"].status == "not_prior"


def test_without_a_prior_nothing_is_compared_with_it(normal: np.ndarray) -> None:
    found = diagnosed(normal * 0.5 + 1, prior="none")
    assert found["prior_match"].status == "no_prior"
    assert not {"norm_deviation", "ks_greatest", "aggregate_kl_full"} & found.keys()
    assert found["precision"].target == "gaussian" and found["precision"].status == OK
    assert flagged(found) == {"prior_match"}


def test_few_rows_say_so(normal: np.ndarray) -> None:
    found = diagnosed(normal[:8])
    assert found["aggregate"].status == "too_few_points" and found["rows"].value == 8
