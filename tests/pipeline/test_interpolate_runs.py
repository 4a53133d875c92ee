"""Interpolate steps of every kind in whole runs: codes reach pictures, reports reach rows, and bad steps never start."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.code_set import CodeSet
from pipeline.context import Context
from pipeline.executors.local import LocalExecutor
from pipeline.readers import list_measurements
from pipeline.run import RunResult, run_job
from pipeline.steps.codes import define
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.executor import LocalExecutor as LocalSpec
from schemas.job import parse_job
from schemas.steps import InterpolateStep
from stages.columns import matrix_of
from tests.jobs import image_id, job_data, make_images, rows_of

SPHERE = {"family": "sphere", "dim": 3, "preprocess": {"size": 16}}
IDS = [image_id(i) for i in range(6)]


def run(folder: Path, *steps: dict[str, Any], **changes: Any) -> RunResult:
    named = [{"stage": "encode"}, *steps, {"stage": "render", "to": str(folder / "out"), "layout": "strip"}]
    job = parse_job(
        job_data(folder, folder / "store", steps=[*named, {"stage": "report", "to": str(folder / "r.html")}], **changes)
    )
    return run_job(job, report=lambda event: None, executor=LocalExecutor(LocalSpec(threads=1)))


def renders(folder: Path) -> list[dict[str, Any]]:
    table = Store.open(str(folder / "store")).renders("shapes")
    return sorted((r for b in table.scan() for r in b.to_pylist()), key=lambda r: r["id"])


def defined(folder: Path, step: dict[str, Any], **changes: Any) -> CodeSet:
    """The code set of one interpolate step after an encode, as a render would find it."""
    steps = [{"stage": "encode"}, step, {"stage": "render", "to": str(folder / "out"), "layout": "strip"}]
    job = parse_job(job_data(folder, folder / "store", steps=steps, **changes))
    result = run_job(job, report=lambda event: None, executor=LocalExecutor(LocalSpec(threads=1)))
    store = Store.open(job.store)
    lease = store.lease(job.dataset, run_id=result.run_id)
    ctx = Context(job=job, store=store, lease=lease, run_id=result.run_id, report=lambda event: None)
    define(next(s for s in job.steps if isinstance(s, InterpolateStep)), ctx)
    return ctx.code_sets["interpolate"]


def test_paths_through_sets_and_means_become_strips(tmp_path: Path) -> None:
    make_images(tmp_path, 8)
    result = run(
        tmp_path,
        {"stage": "interpolate", "name": "through", "sets": [IDS[:4], IDS[2:6]], "frames": 7},
        {"stage": "interpolate", "name": "one", "sets": [IDS[:1]], "frames": 3},
        {"stage": "interpolate", "name": "means", "sets": [IDS[:3]], "weights": [[1, 0, 0], [1, 1, 1]]},
        {"stage": "interpolate", "name": "lol", "method": "lol", "count": 2, "frames": 3},
    )
    assert result.steps["through"] == {**result.steps["through"], "rows": 2, "strips": 2, "frames": 7}
    found = {r["id"].split("/")[1]: r for r in renders(tmp_path)}
    assert all(r["status"] == "done" for r in renders(tmp_path)) and len(renders(tmp_path)) == 6
    assert found["through"]["parents"] in (IDS[:4], IDS[2:6])
    assert (found["means"]["unit"], found["means"]["strengths"]) == ("mean", [1, 2])
    page = (tmp_path / "r.html").read_text()
    assert "through 4 images, from the first (0) to the last (1)" in page
    assert "means of 3 images" in page and "variance-preserving (LOL)" in page


def test_a_geodesic_reports_its_convergence_with_its_pictures(tmp_path: Path) -> None:
    make_images(tmp_path, 6)
    pairs = [[IDS[0], IDS[1]], [IDS[2], IDS[3]]]
    geodesics = {"stage": "interpolate", "method": "geodesic", "pairs": pairs, "frames": 5}
    run(tmp_path, {**geodesics, "name": "good"}, {**geodesics, "name": "short", "iterations": 1}, codec=SPHERE)
    rows = renders(tmp_path)
    assert [r["status"] for r in rows] == ["done"] * 4
    for row in rows:
        report = json.loads(row["operation"])["found"]
        assert report["converged"] is (row["id"].split("/")[1] == "good")
        assert (row["flags"] == ["not_converged"]) is not report["converged"]
        assert report["energy"] <= report["straight_energy"]
    page = (tmp_path / "r.html").read_text()
    assert "None of 2 paths converged" in page and ">2 of 2 paths converged" in page
    assert "; 1 iterations" in page and "not converged" in page and "The path on which the decoded pictures" in page
    again = run(tmp_path, {**geodesics, "name": "good"}, {**geodesics, "name": "short", "iterations": 1}, codec=SPHERE)
    assert again.steps["render"]["written"] == 0, "the same geodesic is the same picture"


@pytest.mark.parametrize("layout", ["strip", "grid", "image", "shards"])
def test_how_geodesics_went_is_measured_whatever_is_drawn(tmp_path: Path, layout: str) -> None:
    """One summary a code set, taken from the codes as they are drawn; drawn already or not, it is the same."""
    make_images(tmp_path, 6)
    pairs = [[IDS[0], IDS[1]], [IDS[2], IDS[3]], [IDS[4], IDS[5]]]
    geo = {"stage": "interpolate", "name": "geo", "method": "geodesic", "pairs": pairs, "frames": 3}
    line = {"stage": "interpolate", "name": "line", "pairs": pairs[:1], "frames": 3}
    steps = [{"stage": "encode"}, geo, line, {"stage": "render", "to": str(tmp_path / "out"), "layout": layout}]
    job = parse_job(job_data(tmp_path, tmp_path / "store", steps=steps, codec=SPHERE))
    seen = []
    for drawn in (3 * 3 + 3, 0):
        result = run_job(job, report=lambda event: None, executor=LocalExecutor(LocalSpec(threads=2)))
        assert result.steps["render"]["written"] == drawn
        found = list_measurements(str(tmp_path / "store"), {}, None, where=None)
        assert {m["step"] for m in found} == {"geo"}
        seen.append({m["metric"]: (m["value"], m["n"], m["status"], m["subject"]) for m in found})
    assert seen[0].keys() == seen[1].keys()
    for metric, (value, *rest) in seen[0].items():
        assert seen[1][metric] == (pytest.approx(value, rel=1e-12), *rest)
    assert seen[0]["converged"][:3] == (1.0, 3, "ok")
    assert seen[0]["energy"][0] <= seen[0]["straight_energy"][0] and seen[0]["iterations"][0] >= 1
    assert seen[0]["worst_gradient"][3] in {" · ".join(pair) for pair in pairs}


def test_a_geodesic_code_set_travels_without_its_codec(tmp_path: Path) -> None:
    """What a worker gets is a name and a plan; it opens the codec itself and makes the same codes."""
    make_images(tmp_path, 4)
    step = {"stage": "interpolate", "method": "geodesic", "pairs": [IDS[:2]], "frames": 3}
    code_set = defined(tmp_path, step, codec=SPHERE)
    data = pickle.dumps(code_set)
    assert len(data) < 20_000
    assert pickle.loads(data).expand(0, 1, first_seq=5).equals(code_set.expand(0, 1, first_seq=5))


def test_a_posterior_reads_logvar_beside_the_latents(tmp_path: Path) -> None:
    make_images(tmp_path, 8)
    codec = {"family": "conv_vae", "weights": str(tmp_path / "vae"), "preprocess": {"size": 16}}
    train = {"stage": "train", "variant": "vae", "latent_dim": 4, "channels": [8], "steps": 2, "batch_size": 4}
    step = {"stage": "interpolate", "method": "posterior", "count": 2, "frames": 3, "draws": 2}
    job = job_data(tmp_path, tmp_path / "store", codec=codec)
    tail = {"stage": "render", "to": str(tmp_path / "out"), "layout": "strip"}
    data = parse_job(job | {"steps": [train, {"stage": "encode"}, step, tail]})
    result = run_job(data, report=lambda event: None, executor=LocalExecutor(LocalSpec(threads=1)))
    assert (result.steps["interpolate"]["rows"], result.steps["interpolate"]["strips"]) == (2, 4)
    rows = renders(tmp_path)
    assert [r["status"] for r in rows] == ["done"] * 4
    assert len({r["content_hash"] for r in rows}) == 4, "every draw is another picture"


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"method": "posterior"}, "no logvar"),
        ({"per": "channel"}, "no channels"),
        ({"layers": [0, 2]}, "no layers"),
        ({"method": "two_part", "split": 99}, "has 8 numbers"),
        ({"method": "lol", "around": "prior"}, "declares no prior"),
    ],
)
def test_a_step_that_does_not_fit_the_codec_stops_at_the_plan(tmp_path: Path, step: dict[str, Any], said: str) -> None:
    make_images(tmp_path, 4)
    with pytest.raises(JobError, match=said) as caught:
        run(tmp_path, {"stage": "interpolate", **step})
    assert caught.value.problems[0].field.startswith("steps.1 (interpolate)")
    assert not (tmp_path / "store" / "shapes.latents").exists() and not list((tmp_path / "store").glob("*latents*"))


def test_an_unknown_image_of_a_set_is_named(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    with pytest.raises(JobError, match=r"nowhere\.png"):
        run(tmp_path, {"stage": "interpolate", "sets": [[IDS[0], IDS[1], "nowhere.png"]]})


def test_lol_about_the_data_uses_the_datasets_mean(tmp_path: Path) -> None:
    make_images(tmp_path, 8)
    code_set = defined(tmp_path, {"stage": "interpolate", "method": "lol", "pairs": [IDS[:2]], "frames": 3})
    middle = matrix_of(code_set.expand(0, 1, first_seq=0).column("latent"))[1]
    table = rows_of(tmp_path / "store")
    latents = dict(zip(table["id"].to_pylist(), np.stack(table["latent"].to_pylist()), strict=True))
    mean = np.mean(list(latents.values()), axis=0)
    a, b = (latents[i] for i in IDS[:2])
    np.testing.assert_allclose(middle, mean + ((a + b) / 2 - mean) * np.sqrt(2), rtol=1e-4, atol=1e-4)
