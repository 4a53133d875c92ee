"""One suite for every executor: Ray must leave the tables that the local executor leaves.

The codec is the exact one, so latents must be equal to the bit whatever the batch size, worker count and number of
splits; fitted numbers agree to rounding, because both executors cut and merge a reduce in the same way.
"""

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.executors.base import Executor
from pipeline.run import RunResult, run_job
from pipeline.store.store import Store
from schemas.errors import JobError
from schemas.job import parse_job
from tests.jobs import image_id, job_data, make_images, rows_of, spoil

pytestmark = pytest.mark.slow

COUNT = 150
STEPS = [
    {"stage": "encode", "batch_size": 16},
    {"stage": "index", "kind": "flat"},
    {"stage": "fit", "attributes": ["bright", "round"], "estimator": "ols"},
    {"stage": "fit", "name": "logit", "attributes": ["bright"], "estimator": "logistic", "l2": 1.0},
    {"stage": "fit", "name": "means", "attributes": ["bright"], "estimator": "mean_difference"},
    {"stage": "fit", "name": "cells", "attributes": ["bright", "round"], "estimator": "balanced_mean_difference"},
    {"stage": "traverse", "directions": ["bright"], "coordinates": [0], "strengths": [-2, 0, 2], "limit": 10},
    {"stage": "interpolate", "pairs": "random", "count": 5, "frames": 4},
    {"stage": "interpolate", "name": "near", "pairs": "nearest", "count": 3, "frames": 3},
    {"stage": "edit", "changes": [{"direction": "bright", "strength": 2}, {"direction": "round", "strength": -1}],
     "mode": "set_projection", "trust": {"by": "mahalanobis"}, "limit": 8},
    {"stage": "analogy", "count": 3},
    {"stage": "walk", "frames": 3, "limit": 3, "trust": {"by": "neighbours", "outside": "flag"}},
    {"stage": "sample", "method": "gmm", "components": 2, "covariance": "diagonal", "count": 5},
    {"stage": "traverse", "name": "shown", "directions": ["round"], "unit": "effect", "calibrate": "row", "strengths": [-9, 0, 1],
     "limit": 6},
    {"stage": "render", "to": "RENDERS", "layout": "strip", "format": "png"},
    {"stage": "traverse", "name": "again", "directions": ["round"], "strengths": [0, 1], "limit": 40},
    {"stage": "render", "name": "tars", "to": "RENDERS", "layout": "shards", "format": "png", "shard_rows": 16},
]  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_images(tmp_path_factory.mktemp("images"), COUNT)
    spoil(folder, 9)
    return folder


def run(folder: Path, out: Path, executor: Executor, **changes: Any) -> RunResult:
    steps = [{**s, "to": str(out / "renders")} if "to" in s else dict(s) for s in changes.pop("steps", STEPS)]
    steps[0].update(changes.pop("encode", {}))
    job = parse_job(job_data(folder, out / "store", steps=steps, **changes))
    return run_job(job, report=lambda event: None, executor=executor)


@pytest.fixture(scope="module")
def reference(images: Path, local: Executor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference")
    run(images, out, local)
    return out


def same_rows(a: pa.Table, b: pa.Table, *, but: tuple[str, ...]) -> None:
    assert a.schema.names == b.schema.names
    for name in a.schema.names:
        if name not in but:
            assert a.column(name).to_pylist() == b.column(name).to_pylist(), name


@pytest.mark.parametrize(("workers", "batch_size"), [(1, 64), (3, 7)], ids=["one worker", "three workers"])
def test_ray_equals_local(
    images: Path,
    reference: Path,
    ray_executor: Callable[..., Executor],
    tmp_path: Path,
    workers: int,
    batch_size: int,
) -> None:
    run(images, tmp_path, ray_executor(workers=workers), encode={"batch_size": batch_size})
    compare(reference, tmp_path)


@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_any_batch_size_gives_the_same_table(
    images: Path, reference: Path, local: Executor, tmp_path: Path, batch_size: int
) -> None:
    run(images, tmp_path, local, encode={"batch_size": batch_size}, steps=STEPS[:1])
    for kind in ("latents", "failures"):
        same_rows(
            rows_of(reference / "store", kind), rows_of(tmp_path / "store", kind), but=("run_id", "encoded_at", "at")
        )


def test_other_blocks_give_the_same_table(images: Path, reference: Path, local: Executor, tmp_path: Path) -> None:
    """The images arrive in three runs: other splits, other fragments, other commits, the same rows."""
    half = tmp_path / "half"
    (half / "images").mkdir(parents=True)
    (half / "labels.csv").write_bytes((images / "labels.csv").read_bytes())
    paths = sorted((images / "images").rglob("*.png"))
    for part in (paths[:20], paths[20:101], paths[101:]):
        for path in part:
            copy = half / path.relative_to(images)
            copy.parent.mkdir(exist_ok=True)
            shutil.copy2(path, copy)  # with its time, which is part of the source version
        run(half, tmp_path, local, steps=STEPS[:1])
    for kind in ("latents", "failures"):
        differing = ("run_id", "encoded_at", "at", "uri", "message")  # the folder has another name
        same_rows(rows_of(reference / "store", kind), rows_of(tmp_path / "store", kind), but=differing)


def compare(a: Path, b: Path) -> None:
    """Every table and every written file of two runs."""
    for kind in ("latents", "failures"):
        same_rows(rows_of(a / "store", kind), rows_of(b / "store", kind), but=("run_id", "encoded_at", "at"))
    assert rows_of(a / "store").num_rows + rows_of(a / "store", "failures").num_rows == COUNT
    assert rows_of(a / "store", "failures").num_rows == len(range(0, COUNT, 9))
    directions = [Store.open(str(x / "store")).directions().scan() for x in (a, b)]
    found = [sorted((r for batch in d for r in batch.to_pylist()), key=lambda r: r["key"]) for d in directions]
    assert [r["key"] for r in found[0]] == [r["key"] for r in found[1]]
    for mine, other in zip(*found, strict=True):
        assert mine["status"] == "ok", mine
        np.testing.assert_allclose(mine["vector"], other["vector"], rtol=0, atol=1e-9)
        for name in ("sigma", "raw_norm", "intercept", "separation", "auc"):
            np.testing.assert_allclose(mine[name], other[name], rtol=1e-9)
        assert (mine["n"], mine["n_positive"]) == (other["n"], other["n_positive"])
    drawn = [rendered(x) for x in (a, b)]
    assert len(drawn[0]) > 30 and drawn[0].keys() == drawn[1].keys()
    for key, row in drawn[0].items():
        assert row == drawn[1][key], key
    files = [{p.relative_to(x / "renders"): p for p in (x / "renders").rglob("*") if p.is_file()} for x in (a, b)]
    assert files[0].keys() == files[1].keys()
    assert len(files[0]) > 30
    for name, path in files[0].items():
        assert contents(path) == contents(files[1][name]), name


def rendered(out: Path) -> dict[str, dict[str, Any]]:
    """The renders table by id, all but who wrote a row, when and below which folder.

    Operations are JSON with a direction's own digits, which agree to 1e-9: numbers are rounded, and hashes over those digits
    (the recipe, an operation's `vector`) are left out.
    """
    found = {}
    for row in (r for batch in Store.open(str(out / "store")).renders("shapes").scan() for r in batch.to_pylist()):
        del row["run_id"], row["at"], row["recipe"]
        row["uri"] = row["uri"] and str(Path(row["uri"]).relative_to(out / "renders"))
        row["operation"] = rounded(json.loads(row["operation"]))
        row["strengths"], row["moved"] = rounded(row["strengths"]), rounded(row["moved"])
        assert row["id"] not in found, row["id"]
        found[row["id"]] = row
    return found


def rounded(value: Any) -> Any:
    """Numbers to 6 decimals, hashes of vectors left out, everything else as it is."""
    match value:
        case float():
            return round(value, 6)
        case list():
            return [rounded(one) for one in value]
        case dict():
            return {name: rounded(one) for name, one in value.items() if name != "vector"}
    return value


def contents(path: Path) -> Any:
    """A picture's bytes, or a shard's members. What a shard says of a direction's own digits (they agree to 1e-9) is left out."""
    if path.suffix != ".tar":
        return path.read_bytes()
    with tarfile.open(path) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
    facts = {n: json.loads(d) for n, d in members.items() if n.endswith(".json")}
    for fact in facts.values():
        del fact["operation"]
        fact["moved"] = rounded(fact["moved"])
    return {n: d for n, d in members.items() if not n.endswith(".json")} | facts


def test_running_again_does_nothing(images: Path, local: Executor, tmp_path: Path) -> None:
    run(images, tmp_path, local)
    table = rows_of(tmp_path / "store")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "renders").rglob("*") if p.is_file()}
    result = run(images, tmp_path, local)
    assert result.steps["encode"]["encoded"] == 0
    assert result.steps["render"]["written"] == result.steps["tars"]["written"] == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert rows_of(tmp_path / "store").equals(table)
    assert table["id"].to_pylist() == sorted(set(table["id"].to_pylist()))
    assert set(table["id"].to_pylist()) <= {image_id(i) for i in range(COUNT)}


@pytest.mark.parametrize("kind", ["local", "ray"])
def test_an_error_of_a_worker_is_the_same_error(
    images: Path, local: Executor, ray_executor: Callable[..., Executor], tmp_path: Path, kind: str
) -> None:
    codec = {"family": "custom", "entry": "tests.slow_codec:SlowCodec", "options": {"refuse": True}}
    executor = local if kind == "local" else ray_executor(workers=1)
    with pytest.raises(JobError) as caught:
        run(images, tmp_path, executor, steps=STEPS[:1], codec={**codec, "preprocess": {"size": 16}}, allow_code=True)
    assert [p.value for p in caught.value.problems] == ["refuse"]
    assert "Traceback" not in str(caught.value)
