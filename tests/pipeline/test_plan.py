"""Plans: golden ones for the examples, every problem at once, and nothing touched."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.job_file import load_job
from pipeline.plan import make_plan
from pipeline.run import run_job
from schemas.errors import JobError, SourceError
from schemas.job import parse_job
from tests.jobs import image_id, job_data, make_images


@pytest.mark.parametrize("name", ["faces", "digits"])
def test_golden_plan_of_the_example(
    name: str, root: Path, tmp_path: Path, golden: Callable[[Path | str, str], None]
) -> None:
    data = tmp_path / name
    command = [sys.executable, str(root / "examples" / f"{name}.py"), "--out", str(data)]
    subprocess.run([*command, "--count", "40"], check=True, capture_output=True)
    images, labels = f"{data}/images/*", f"{data}/labels.csv"
    uri = "source.labels.uri" if name == "digits" else "source.labels"  # digits declares types beside it
    places = {"source.images": images, uri: labels, "store": str(tmp_path / "store")}
    job, _ = load_job(root / "examples" / f"{name}.yaml", overrides=[f"{k}={v}" for k, v in places.items()])
    if hasattr(job.codec, "weights") and job.codec.weights:
        places["codec.weights"] = str(tmp_path / "codec")
        job, _ = load_job(root / "examples" / f"{name}.yaml", overrides=[f"{k}={v}" for k, v in places.items()])
    plan = make_plan(job).as_dict()
    plan["bytes"] = plan["bytes"] > 0  # encoders of other versions write other sizes
    for step in plan["steps"]:
        step["bytes"] = None if step["bytes"] is None else step["bytes"] > 0
    golden(f"{name}.plan.json", json.dumps(plan, indent=2) + "\n")
    assert not (tmp_path / "store").exists(), "a plan touches nothing"


def problems(data: dict[str, Any]) -> str:
    with pytest.raises(JobError) as caught:
        make_plan(parse_job(data))
    return "\n".join(str(p) for p in caught.value.problems)


def test_all_problems_at_once_with_the_nearest_name(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    steps = [
        {"stage": "encode"},
        {"stage": "fit", "attributes": ["brigth"]},
        {"stage": "traverse", "directions": ["rund"], "coordinates": [99]},
    ]
    told = problems(job_data(tmp_path, tmp_path / "store", steps=steps))
    assert "did you mean `bright`" in told
    assert "rund" in told
    assert "99" in told and "8 coordinates" in told


def test_an_estimator_that_does_not_fit_its_label(tmp_path: Path) -> None:
    make_images(tmp_path, 4)
    steps = [{"stage": "encode"}, {"stage": "fit", "attributes": ["shade"], "estimator": "logistic"}]
    assert "needs classes" in problems(job_data(tmp_path, tmp_path / "store", steps=steps))


def test_missing_weights_are_named(tmp_path: Path) -> None:
    make_images(tmp_path, 2)
    told = problems(
        job_data(tmp_path, tmp_path / "store", codec={"family": "conv_vae", "weights": str(tmp_path / "no")})
    )
    assert str(tmp_path / "no") in told and "train" in told


def test_an_id_listed_twice_is_refused(tmp_path: Path) -> None:
    make_images(tmp_path, 2)
    paths = sorted(str(p) for p in (tmp_path / "images").rglob("*.png"))
    (tmp_path / "list.csv").write_text("id,uri\n" + "".join(f"same,{p}\n" for p in paths))
    source = {"kind": "manifest", "images": str(tmp_path / "list.csv")}
    assert "same" in problems(job_data(tmp_path, tmp_path / "store", source=source))


def test_memory_urls_do_not_travel(tmp_path: Path) -> None:
    data = job_data(tmp_path, "memory://store", executor={"kind": "ray"})
    data["source"] = {"images": "memory://pictures/*.png"}
    told = problems(data)
    assert "store" in told and "source.images" in told


def test_a_missing_folder_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        make_plan(
            parse_job({**job_data(tmp_path, tmp_path / "store"), "source": {"images": f"{tmp_path}/nowhere/*.png"}})
        )


def test_a_plan_counts_what_is_done(tmp_path: Path) -> None:
    make_images(tmp_path, 6)
    job = parse_job(job_data(tmp_path, tmp_path / "store"))
    assert [(s.total, s.done, s.todo) for s in make_plan(job).steps] == [(6, 0, 6)]
    run_job(job, report=lambda event: None)
    make_images(tmp_path, 2, start=6)
    (step,) = make_plan(job).steps
    assert (step.total, step.done, step.todo) == (8, 6, 2)
    assert step.bytes is not None and step.bytes > 0


def test_latents_of_another_dtype_are_refused(tmp_path: Path) -> None:
    make_images(tmp_path, 3)
    run_job(parse_job(job_data(tmp_path, tmp_path / "store")), report=lambda event: None)
    steps = [{"stage": "encode", "latent_dtype": "float16"}]
    assert "float32" in problems(job_data(tmp_path, tmp_path / "store", steps=steps))


def test_ids_that_do_not_meet_are_counted_and_shown(tmp_path: Path) -> None:
    make_images(tmp_path, 8)
    labels = tmp_path / "labels.csv"
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([*lines[:-2], "9/absent.png,true,true,0.5"]) + "\n")
    counts = make_plan(parse_job(job_data(tmp_path, tmp_path / "store"))).label_counts
    assert counts is not None
    assert (counts.matched, counts.images_without_labels, counts.labels_without_image) == (6, 2, 1)
    assert "9/absent.png" in counts.told()
    assert all(image_id(i) in counts.told() for i in (6, 7))
