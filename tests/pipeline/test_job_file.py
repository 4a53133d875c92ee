"""Job files: what `--set` and `--executor` change, and what they leave."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.job_file import load_job
from schemas.errors import JobError
from schemas.executor import LocalExecutor, RayExecutor
from tests.jobs import job_data


def loaded(folder: Path, executor: dict[str, Any] | None, *overrides: str, on: str | None) -> Any:
    data = {k: v for k, v in job_data(folder, folder / "store").items() if k != "executor"}
    data |= {} if executor is None else {"executor": executor}
    (folder / "job.yaml").write_text(yaml.safe_dump(data))
    return load_job(folder / "job.yaml", overrides=list(overrides), executor=on)[0].executor


RAY = {"kind": "ray", "workers": 3}


@pytest.mark.parametrize(
    ("given", "overrides", "on", "expected"),
    [
        (RAY, (), "ray", RayExecutor(workers=3)),
        (RAY, (), None, RayExecutor(workers=3)),
        (RAY, (), "local", LocalExecutor()),
        ({"kind": "local", "threads": 2}, (), "local", LocalExecutor(threads=2)),
        ({"kind": "local", "threads": 2}, (), "ray", RayExecutor()),
        (None, (), "ray", RayExecutor()),
        (RAY, ("executor.workers=4",), "ray", RayExecutor(workers=4)),
        ({"kind": "local"}, ("executor.workers=4",), "ray", RayExecutor(workers=4)),
        (None, ("executor={kind: ray, workers: 4}",), "ray", RayExecutor(workers=4)),
        (RAY, ("executor.kind=local",), "ray", RayExecutor(workers=3)),
    ],
)
def test_settings_of_the_executor_that_is_asked_for_are_kept(
    tmp_path: Path, given: dict[str, Any] | None, overrides: tuple[str, ...], on: str | None, expected: Any
) -> None:
    assert loaded(tmp_path, given, *overrides, on=on) == expected


def test_an_executor_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="slurm"):
        loaded(tmp_path, RAY, on="slurm")


@pytest.mark.parametrize("override", ["source.images=[1", "dataset={a: b", "store='x", "store=a: b: c", "store=\x00"])
def test_a_value_that_is_not_yaml_is_named_with_its_field(tmp_path: Path, override: str) -> None:
    field, _, value = override.partition("=")
    with pytest.raises(JobError) as caught:
        loaded(tmp_path, None, override, on=None)
    (problem,) = caught.value.problems
    assert (problem.field, problem.value) == (f"--set {field}", value)
    assert "not YAML" in problem.reason and "\n" not in str(problem)
