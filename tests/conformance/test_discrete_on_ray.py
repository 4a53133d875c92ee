"""Discrete codes on Ray are those of the local executor: codes, counts, edits, draws and pictures, to the bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.executors.base import Executor
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.job import parse_job
from tests.jobs import image_id, job_data, make_images, rows_of

pytestmark = pytest.mark.slow

CODEC = {"family": "patches", "codes": 24, "patch": 4, "preprocess": {"size": 16}}
PAIRS = [[image_id(i), image_id(i + 1)] for i in range(0, 12, 2)]
MEASURED = ("codebook_perplexity", "dead_codes", "expected_dead_codes")
STEPS: list[dict[str, Any]] = [
    {"stage": "encode", "batch_size": 16, "commit_rows": 20},
    {"stage": "diagnose", "decodes": 16, "sample": 100, "scores": []},
    {"stage": "interpolate", "name": "swap", "pairs": PAIRS, "frames": 4},
    {"stage": "interpolate", "name": "lerp", "method": "codebook_lerp", "pairs": PAIRS, "frames": 3},
    {"stage": "edit", "name": "patch", "tokens": {"of": image_id(3), "region": [0, 0, 2, 4]}, "limit": 12},
    {"stage": "edit", "name": "shares", "tokens": {"histogram": "all"}, "limit": 12},
    {"stage": "edit", "name": "moved", "changes": [{"coordinate": 5, "strength": 0.4}], "unit": "latent", "limit": 12},
    {"stage": "sample", "name": "drawn", "method": "bigram", "count": 9},
]


def outcome(images: Path, out: Path, executor: Executor, *, batch_size: int) -> dict[str, Any]:
    """What a run left: codes by id, measurements of the codebook, and every render's hash, flags and operation by its name."""
    render = {"stage": "render", "to": str(out / "renders"), "layout": "strip"}
    steps = [{**STEPS[0], "batch_size": batch_size}, *STEPS[1:], render]
    run_job(
        parse_job(job_data(images, out / "store", codec=CODEC, steps=steps)), report=lambda e: None, executor=executor
    )
    store = Store.open(str(out / "store"))
    renders = [r for b in store.renders("shapes").scan() for r in b.to_pylist()]
    measured = [r for b in store.measurements().scan() for r in b.to_pylist()]
    return {
        "rows": [(r["id"], r["codes"], r["latent"]) for r in rows_of(out / "store").to_pylist()],
        "renders": sorted((r["id"], r["status"], r["content_hash"], r["flags"], r["operation"]) for r in renders),
        "codebook": sorted((r["metric"], r["value"], r["n"], r["detail"]) for r in measured if r["metric"] in MEASURED),
    }


def test_ray_makes_the_same_codes(tmp_path: Path, local: Executor, ray_executor: Callable[..., Executor]) -> None:
    images = make_images(tmp_path, 48)
    mine = outcome(images, tmp_path / "local", local, batch_size=16)
    other = outcome(images, tmp_path / "ray", ray_executor(workers=2), batch_size=7)
    assert len(mine["rows"]) == 48 and len(mine["renders"]) == 6 + 6 + 12 + 12 + 12 + 9
    assert {row[1] for row in mine["renders"]} == {"done"} and len(mine["codebook"]) == 3
    for name, found in mine.items():
        assert found == other[name], name
