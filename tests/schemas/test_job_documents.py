"""What a job file means is written down: the JSON Schema editors use, the reference page, and the examples as resolved."""

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml
from job_reference import job_reference

from schemas.errors import JobError
from schemas.job import job_json_schema, parse_job

EXAMPLES = ("faces", "digits")


def test_the_json_schema_in_docs_is_current(root: Path, golden: Callable[[Path, str], None]) -> None:
    golden(root / "docs" / "job.schema.json", json.dumps(job_json_schema(), indent=2, ensure_ascii=False) + "\n")


def test_the_reference_page_is_current(root: Path, golden: Callable[[Path, str], None]) -> None:
    golden(root / "docs" / "job.md", job_reference(job_json_schema()))


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_resolve_as_written_down(name: str, root: Path, golden: Callable[[str, str], None]) -> None:
    job = parse_job(yaml.safe_load((root / "examples" / f"{name}.yaml").read_text()))
    golden(f"{name}.job.json", job.model_dump_json(indent=2) + "\n")


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_fit_the_schema_and_name_it(name: str, root: Path) -> None:
    file = root / "examples" / f"{name}.yaml"
    text = file.read_text()
    line = text.splitlines()[0]
    assert line.startswith("# yaml-language-server: $schema=")
    schema = json.loads((file.parent / line.split("=", 1)[1]).read_text())
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(text))


@pytest.mark.parametrize(
    "wrong",
    [{"dataset": 3}, {"stor": "x"}, {"steps": [{"stage": "encod"}]}, {"steps": [{"stage": "encode", "batch_size": 0}]}],
)
def test_the_schema_refuses_what_validation_refuses(wrong: dict[str, object]) -> None:
    job = {"dataset": "a", "store": "s", "source": {"images": "x"}, "codec": {"family": "linear"}} | {
        "steps": [{"stage": "encode"}]
    }
    parse_job(job)
    validator = jsonschema.Draft202012Validator(job_json_schema())
    assert validator.is_valid(job)
    assert not validator.is_valid(job | wrong)
    with pytest.raises(JobError):
        parse_job(job | wrong)
