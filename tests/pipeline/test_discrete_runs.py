"""A discrete codec in whole runs: every step that works on codes, from the images to pictures, numbers and the report."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from pipeline.executors.local import LocalExecutor
from pipeline.plan import make_plan
from pipeline.readers import list_measurements
from pipeline.run import RunResult, run_job
from pipeline.store.store import Store
from schemas.codec import PatchesCodec, Preprocess
from schemas.errors import JobError
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job
from stages.codecs.patches import Patches
from tests.jobs import image_id, job_data, make_images, rows_of

CODEC = {"family": "patches", "codes": 24, "patch": 4, "preprocess": {"size": 24}}
A, B = image_id(0), image_id(1)
STEPS: list[dict[str, Any]] = [
    {"stage": "encode"},
    {"stage": "fit", "attributes": ["bright"], "estimator": "mean_difference"},
    {"stage": "diagnose", "decodes": 32, "sample": 100},
    {"stage": "interpolate", "name": "swap", "pairs": [[A, B]], "frames": 4},
    {"stage": "interpolate", "name": "lerp", "method": "codebook_lerp", "pairs": [[A, B]], "frames": 3},
    {"stage": "edit", "name": "patch", "tokens": {"of": B, "region": [0, 0, 3, 6]}, "ids": [A]},
    {"stage": "edit", "name": "shares", "tokens": {"histogram": [B]}, "ids": [A]},
    {"stage": "edit", "name": "brighter", "changes": [{"direction": "bright", "strength": 2}], "limit": 8},
    {"stage": "sample", "name": "drawn", "method": "bigram", "count": 5},
    {"stage": "sample", "name": "mixed", "method": "categorical", "count": 5, "where": "labels.bright = true"},
]


def run(folder: Path, steps: list[dict[str, Any]], **changes: Any) -> RunResult:
    job = parse_job(job_data(folder, folder / "store", codec=CODEC, steps=steps) | changes)
    return run_job(job, report=lambda event: None, executor=LocalExecutor(LocalSpec(threads=1)))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunResult]:
    folder = tmp_path_factory.mktemp("discrete")
    make_images(folder, 60)
    tail = [
        {"stage": "render", "to": str(folder / "out"), "layout": "image"},
        {"stage": "report", "to": str(folder / "r.html")},
    ]
    return folder, run(folder, [*STEPS, *tail])


@pytest.fixture(scope="module")
def codec() -> Patches:
    return Patches(PatchesCodec(codes=24, patch=4, preprocess=Preprocess(size=(24, 24))))


def stored(folder: Path) -> dict[str, np.ndarray]:
    return {r["id"]: np.array(r["codes"]).reshape(6, 6) for r in rows_of(folder / "store").to_pylist()}


def rendered(folder: Path, codec: Patches) -> dict[str, tuple[list[np.ndarray], list[float]]]:
    """Of each step: the tokens of every picture of its first strip, read back from the file, and the shares that changed."""
    rows = [r for b in Store.open(str(folder / "store")).renders("shapes").scan() for r in b.to_pylist()]
    assert {r["status"] for r in rows} == {"done"}
    found: dict[str, tuple[list[np.ndarray], list[float]]] = {}
    for row in sorted(rows, key=lambda r: r["id"]):
        picture = torch.from_numpy(cv2.imread(row["uri"])[..., ::-1].copy())[None]
        encoded = codec.encode(picture)
        assert encoded.codes is not None and torch.equal(codec.decode(encoded.mean), picture), "made of entries alone"
        shares = json.loads(row["operation"]).get("found", {}).get("changed", [])
        found.setdefault(row["id"].split("/")[1], ([], shares))[0].append(encoded.codes[0].numpy())
    return found


def test_codes_are_stored_beside_the_latent(done: tuple[Path, RunResult], codec: Patches) -> None:
    table = rows_of(done[0] / "store")
    assert table.num_rows == 60 and table.schema.field("codes").metadata[b"shape"] == b"[6, 6]"
    for row in table.slice(0, 10).to_pylist():
        latent = codec.codebook[np.array(row["codes"])].T.reshape(-1)
        np.testing.assert_array_equal(np.array(row["latent"], np.float32), latent.astype(np.float16).astype(np.float32)
                                      if table.schema.field("latent").type.value_type == "halffloat" else latent)  # fmt: skip


def test_every_step_makes_the_tokens_it_says(done: tuple[Path, RunResult], codec: Patches) -> None:
    folder, result = done
    tokens, made = stored(folder), rendered(folder, codec)
    a, b = tokens[A], tokens[B]
    swap, shares = made["swap"]
    np.testing.assert_array_equal(swap[0], a)
    np.testing.assert_array_equal(swap[-1], b)
    assert all(((frame == a) | (frame == b)).all() for frame in swap)
    assert shares == pytest.approx([(frame != a).mean() for frame in swap], abs=1e-6)
    np.testing.assert_array_equal(made["lerp"][0][-1], b)
    patch = made["patch"][0][-1]
    np.testing.assert_array_equal(patch, np.concatenate([b[:3], a[3:]]))
    assert made["patch"][1][-1] == pytest.approx((patch != a).mean(), abs=1e-6)
    np.testing.assert_array_equal(np.sort(made["shares"][0][-1].ravel()), np.sort(b.ravel()))
    brighter, told = made["brighter"]
    assert result.steps["brighter"]["strips"] == 8 and 0 < told[-1] < 1
    assert codec.codebook[brighter[1]].mean() > codec.codebook[brighter[0]].mean()
    assert len(made["drawn"][0]) == len(made["mixed"][0]) == 5


def test_draws_are_as_the_rows_that_were_selected(tmp_path: Path, codec: Patches) -> None:
    """By itself a draw has no code, and no neighbours, that the selected rows do not have."""
    make_images(tmp_path, 30)
    drawn = {"stage": "sample", "method": "bigram", "count": 20, "where": "labels.bright = true"}
    run(tmp_path, [{"stage": "encode"}, drawn, {"stage": "render", "to": str(tmp_path / "out"), "layout": "image"}])
    rows = [np.array(r["codes"]) for r in rows_of(tmp_path / "store").to_pylist() if r["labels"]["bright"]]
    pairs = {pair for row in rows for pair in pairwise(row.tolist())}
    for codes in rendered(tmp_path, codec)["sample"][0]:
        assert set(pairwise(codes.ravel().tolist())) <= pairs


def test_the_codebook_is_measured_and_shown(done: tuple[Path, RunResult]) -> None:
    folder, _ = done
    found = {m["metric"]: m for m in list_measurements(str(folder / "store"), {}, None, where=None)}
    counts = np.bincount(np.concatenate([t.ravel() for t in stored(folder).values()]), minlength=24)
    shares = counts[counts > 0] / counts.sum()
    perplexity = found["codebook_perplexity"]
    assert perplexity["value"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum())) and perplexity["n"] == 60 * 36
    assert found["dead_codes"]["value"] == (counts == 0).sum() and found["expected_dead_codes"]["value"] < 1e-30
    assert {m["metric"] for m in found.values() if m["status"] != "ok"} <= {"dead_codes", "active_units", "prior_match"}
    page = (folder / "r.html").read_text()
    for words in ("How evenly the codes are used", "dead codes", "token swap", "of the tokens changed", "then the nearest codes",
                  "by what follows what"):  # fmt: skip
        assert words in page, words


def test_the_same_run_again_renders_nothing(done: tuple[Path, RunResult]) -> None:
    folder, first = done
    again = run(folder, [*STEPS, {"stage": "render", "to": str(folder / "out"), "layout": "image"}])
    assert (again.steps["render"]["codes"], again.steps["render"]["already"]) == (0, first.steps["render"]["codes"])


def test_an_evaluation_measures_the_codes_that_the_codec_takes(tmp_path: Path) -> None:
    """An edit of nothing changes nothing; one to the brighter side brightens what is decoded and encoded again."""
    make_images(tmp_path, 60)
    steps: list[dict[str, Any]] = [
        {"stage": "encode"},
        {"stage": "fit", "attributes": ["bright"], "estimator": "mean_difference"},
    ]
    steps += [{"stage": "evaluate", "directions": ["bright"], "strengths": [1e-6, 2], "replicates": 20, "limit": 20}]
    run(tmp_path, steps)
    found = {m["metric"]: m["value"] for m in list_measurements(str(tmp_path / "store"), {}, None, where=None)}
    assert found["effect"] > 0.3
    assert found["hit_rate"] == 0.5, "a step too small to reach another code changes nothing: of two strengths one hits"


LINEAR = {"family": "linear", "dim": 8, "preprocess": {"size": 16}}


@pytest.mark.parametrize(
    ("codec", "step", "words"),
    [
        (CODEC, {"stage": "interpolate", "method": "slerp"}, ["(interpolate).method = 'slerp'", "token_swap, codebook_lerp"]),
        (CODEC, {"stage": "interpolate", "sets": [[A, B, image_id(2)]]}, ["sets", "use pairs"]),
        (CODEC, {"stage": "interpolate", "weights": "equal"}, ["weights", "codes have no mean"]),
        (CODEC, {"stage": "interpolate", "per": "channel"}, ["per = 'channel'"]),
        (CODEC, {"stage": "interpolate", "mask": [[0.5, 1]]}, ["mask", "0 and 1 only"]),
        (CODEC, {"stage": "interpolate", "mask": [[1, 0, 1, 0]]}, ["mask", "does not divide"]),
        (CODEC, {"stage": "traverse", "coordinates": [0]}, ["(traverse).stage", "use `edit`"]),
        (CODEC, {"stage": "walk"}, ["(walk).stage", "use `sample`"]),
        (CODEC, {"stage": "analogy"}, ["(analogy).stage", "use `edit`"]),
        (CODEC, {"stage": "sample"}, ["method = 'gaussian'", "categorical or bigram"]),
        (CODEC, {"stage": "edit", "tokens": {"code": 24}}, ["tokens.code = 24", "use 0 to 23"]),
        (CODEC, {"stage": "edit", "tokens": {"code": 3, "region": [0, 0, 7, 2]}}, ["tokens.region", "6"]),
        (
            CODEC,
            {"stage": "edit", "changes": [{"coordinate": 1, "strength": 1}], "trust": {"by": "neighbours"}},
            ["trust", "remove it"],
        ),
        (CODEC | {"codes": 2000}, {"stage": "sample", "method": "bigram"}, ["2000", "method: categorical"]),
        (LINEAR, {"stage": "interpolate", "method": "token_swap"}, ["method = 'token_swap'", "use auto, lerp or slerp"]),
        (LINEAR, {"stage": "edit", "tokens": {"code": 1}}, ["tokens = 'code 1'", "use changes"]),
        (LINEAR, {"stage": "sample", "method": "categorical"}, ["method = 'categorical'", "gaussian or gmm"]),
    ],
)  # fmt: skip
def test_steps_that_do_not_fit_the_codec_stop_at_the_plan(
    tmp_path: Path, codec: dict[str, Any], step: dict[str, Any], words: list[str]
) -> None:
    make_images(tmp_path, 4)
    with pytest.raises(JobError) as caught:
        make_plan(parse_job(job_data(tmp_path, tmp_path / "store", codec=codec, steps=[{"stage": "encode"}, step])))
    (problem,) = caught.value.problems
    for word in ["steps.1", *words]:
        assert word in str(problem)


def test_a_coordinate_goes_to_its_quantile_and_then_to_the_nearest_code(tmp_path: Path) -> None:
    make_images(tmp_path, 12)
    change = {"changes": [{"coordinate": 1, "strength": 0.9}], "unit": "quantile", "mode": "set_coordinate", "limit": 2}
    out = {"stage": "render", "to": str(tmp_path / "out")}
    counts = run(tmp_path, [{"stage": "encode"}, {"stage": "edit", **change}, out]).steps
    assert (counts["render"]["codes"], counts["render"]["failed"]) == (4, 0)
    table = Store.open(str(tmp_path / "store")).renders("shapes")
    said = json.loads(next(table.scan()).to_pylist()[0]["operation"])
    stored = [row["latent"][1] for row in rows_of(tmp_path / "store").to_pylist()]
    assert said["quantised"] and said["changes"][0]["values"] == pytest.approx([np.quantile(stored, 0.9)])


@pytest.mark.parametrize("tokens", [{"of": "nobody.png"}, {"histogram": [A, "nobody.png"]}])
def test_a_donor_that_is_not_there_is_named(tmp_path: Path, tokens: dict[str, Any]) -> None:
    make_images(tmp_path, 4)
    with pytest.raises(JobError, match="nobody"):
        run(tmp_path, [{"stage": "encode"}, {"stage": "edit", "tokens": tokens}])


def test_entries_of_ones_own_are_read_from_safetensors(tmp_path: Path) -> None:
    """Every image becomes one of two patches: all white, or all black."""
    from safetensors.numpy import save_file

    entries = np.zeros((2, 24, 24, 3), np.uint8)
    entries[1] = 255
    (tmp_path / "book").mkdir()
    save_file({"codebook": entries}, str(tmp_path / "book" / "model.safetensors"))
    make_images(tmp_path, 12)
    own = {"family": "patches", "codes": 2, "patch": 24, "weights": str(tmp_path / "book"), "preprocess": {"size": 24}}
    run(tmp_path, [{"stage": "encode"}], codec=own)
    rows = rows_of(tmp_path / "store").to_pylist()
    assert [r["codes"] == [1] for r in rows] == [r["labels"]["bright"] for r in rows], "bright ones are nearer to white"
    assert {len(r["latent"]) for r in rows} == {24 * 24 * 3}
