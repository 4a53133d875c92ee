"""Edits of real pictures with known factors, measured on decoded pixels by a ruler that knows nothing of latents.

Faces with independent and with correlated factors (ρ=.8), the exact codec on their principal components, both kinds of
direction: which edits do what they are for, and which carry the other attribute along.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.sparse.linalg import svds

from face_drawing import render_face
from faces import Correlation, factors_of
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.job import parse_job
from tests.biased_ruler import LEAK

pytestmark = pytest.mark.slow

COUNT, DIM, SIDE = 600, 48, 64
Found = dict[tuple[str, str, str], Any]


def evaluated(folder: Path, rho: float) -> Found:
    """All measurements of the four edits."""
    correlation = Correlation("smiling", "glasses", rho)
    faces = [factors_of(i, correlation=correlation) for i in range(COUNT)]
    pictures = np.array([render_face(face) for face in faces])
    (folder / "images").mkdir()
    lines = ["id,smiling,glasses"]
    for i, (face, picture) in enumerate(zip(faces, pictures, strict=True)):
        cv2.imwrite(str(folder / f"images/{i:05d}.png"), picture[..., ::-1])
        lines.append(f"{i:05d}.png,{str(face.smile > 0).lower()},{str(face.glasses).lower()}")
    (folder / "labels.csv").write_text("\n".join(lines))
    flat = pictures.reshape(COUNT, -1) / 255
    mean = flat.mean(axis=0)
    axes = svds(flat - mean, k=DIM, random_state=0)[2]
    (folder / "codec").mkdir()
    save_file({"basis": np.ascontiguousarray(axes), "mean": mean}, folder / "codec/model.safetensors")
    both = ["smiling", "glasses"]
    evaluate = {
        "stage": "evaluate",
        "directions": [*both, *(f"plain.{name}" for name in both)],
        "strengths": [-1, 1],
        "limit": 60,
    }
    job = {
        "dataset": "faces",
        "store": str(folder / "store"),
        "source": {"images": f"{folder}/images/*.png", "labels": f"{folder}/labels.csv"},
        "codec": {"family": "linear", "dim": DIM, "weights": str(folder / "codec"), "preprocess": {"size": SIDE}},
        "steps": [
            {"stage": "encode"},
            {"stage": "fit", "attributes": both},
            {"stage": "fit", "name": "plain", "attributes": both, "estimator": "mean_difference"},
            evaluate | {"scorer": "face_measures:FaceRuler"},
            evaluate | {"name": "biased", "scorer": "tests.biased_ruler:BiasedRuler"},
        ],
        "executor": {"kind": "local"},
        "allow_code": True,
    }
    run_job(parse_job(job), report=lambda event: None)
    rows = [r for b in Store.open(job["store"]).measurements().scan() for r in b.to_pylist()]
    return {(r["metric"], r["subject"], r["target"]): r for r in rows if r["step"] == "evaluate"} | {
        (f"biased {r['metric']}", r["subject"], r["target"]): r for r in rows if r["step"] == "biased"
    }


@pytest.fixture(scope="module", params=[0.0, 0.8], ids=["independent", "correlated"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[float, Found]:
    return request.param, evaluated(tmp_path_factory.mktemp("faces"), request.param)


@pytest.mark.parametrize(("own", "other"), [("smiling", "glasses"), ("glasses", "smiling")])
def test_each_edit_moves_its_own_factor_and_only_that(found: tuple[float, Found], own: str, other: str) -> None:
    rho, by = found
    effect = by["effect", own, own]
    assert effect["low"] > 0.2, effect
    assert by["hit_rate", own, own]["value"] > 0.7
    assert abs(by["leak", own, other]["value"]) < (0.25 if rho else 0.05), by["leak", own, other]


@pytest.mark.parametrize(("own", "other"), [("smiling", "glasses"), ("glasses", "smiling")])
def test_plain_means_carry_what_goes_together_in_the_data(found: tuple[float, Found], own: str, other: str) -> None:
    rho, by = found
    plain, data = by["leak", f"plain.{own}", other], by["leak_data", own, other]
    if rho:
        assert plain["low"] > 0.2, plain
        assert data["low"] > 0.2, data
        assert plain["value"] > 4 * abs(by["leak", own, other]["value"])
    else:
        assert abs(plain["value"]) < 0.25
        assert abs(data["value"]) < 0.2


def test_a_ruler_that_takes_smiles_for_glasses_is_found_out_and_the_other_parts_stay(
    found: tuple[float, Found],
) -> None:
    _, by = found
    pair = ("smiling", "glasses")
    assert abs(by["scorer_leak", *pair]["value"]) < 0.1
    biased = by["biased scorer_leak", *pair]
    sigmas = [by["biased score_sigma", "", name]["value"] for name in pair]
    assert biased["low"] < LEAK * sigmas[0] / sigmas[1] < biased["high"]
    for part in ("leak_data", "leak_model"):
        fair, other = (json.loads(by[f"{kind}{part}", *pair]["detail"]) for kind in ("", "biased "))
        assert other["in_score_units"] == pytest.approx(
            fair["in_score_units"], abs=0.1 * abs(fair["high"] - fair["low"])
        )
    fair, other = (json.loads(by[f"{kind}leak_scorer", *pair]["detail"]) for kind in ("", "biased "))
    assert other["in_score_units"] - fair["in_score_units"] == pytest.approx(LEAK, rel=0.05)
