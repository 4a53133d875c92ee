"""Evaluate and compare on both executors: the same numbers, intervals and statuses, however rows are cut and models placed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.executors.base import Executor
from pipeline.run import run_job
from pipeline.store.store import Store
from schemas.job import parse_job
from tests.jobs import job_data, make_images

pytestmark = pytest.mark.slow

OLD = {"family": "linear", "dim": 6, "seed": 4, "preprocess": {"size": 16}}
ENCODE: dict[str, Any] = {"stage": "encode", "commit_rows": 20}
FIT = {"stage": "fit", "attributes": ["bright", "round"], "holdout": 0}
PLAIN = {"stage": "fit", "name": "plain", "attributes": ["bright"], "estimator": "mean_difference", "holdout": 0}
EVALUATE = {
    "stage": "evaluate",
    "directions": ["bright", "plain.bright", "round"],
    "slices": ["round"],
    "replicates": 40,
}
JUDGED = {
    "stage": "evaluate",
    "name": "judged",
    "directions": ["bright", "plain.bright"],
    "scorer": "tests.brightness:BrightAndRound",
    "scorer_options": {"leak": 0.5},
    "originals": 60,
    "strengths": [1],
    "replicates": 40,
    "identity": False,
}
"""A scorer that looks at untouched pictures of the source, too."""
COMPARE = {"stage": "compare", "codec": OLD, "permutations": 19, "replicates": 20}


def measured(folder: Path, out: Path, executor: Executor) -> dict[tuple[str, ...], dict[str, Any]]:
    first = parse_job(job_data(folder, out / "store", codec=OLD, steps=[ENCODE, FIT]))
    run_job(first, report=lambda event: None)
    job = parse_job(
        job_data(folder, out / "store", steps=[ENCODE, FIT, PLAIN, EVALUATE, JUDGED, COMPARE], allow_code=True)
    )
    run_job(job, report=lambda event: None, executor=executor)
    store = Store.open(job.store)
    entry = store.current("shapes")
    assert entry is not None
    cosines = store.table(entry.table).scan(["id", "compare_cosine"], version=entry.version)
    rows = [r for b in store.measurements().scan() for r in b.to_pylist()]
    found = [r for b in cosines for r in b.to_pylist()]
    rows += [
        {"step": "column", "metric": r["id"], "value": r["compare_cosine"]}
        | dict.fromkeys(("subject", "target", "status", "message"), "")
        | {"n": 1, "low": None, "high": None}
        for r in found
    ]
    assert len(found) == 90 and None not in [r["compare_cosine"] for r in found]
    return {(r["step"], r["metric"], r["subject"], r["target"]): r for r in rows}


def test_ray_equals_local(
    local: Executor, ray_executor: Callable[..., Executor], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = make_images(tmp_path_factory.mktemp("images"), 90)
    mine = measured(folder, tmp_path_factory.mktemp("local"), local)
    other = measured(folder, tmp_path_factory.mktemp("ray"), ray_executor(workers=2))
    assert mine.keys() == other.keys()
    assert {key[0] for key in mine} == {"evaluate", "judged", "compare", "column"}
    for key, row in mine.items():
        assert (row["status"], row["n"], row["message"]) == (
            other[key]["status"],
            other[key]["n"],
            other[key]["message"],
        )
        for name in ("value", "low", "high"):
            same = None if other[key][name] is None else pytest.approx(other[key][name], rel=1e-6, abs=1e-9)
            assert row[name] == same, (key, name)
