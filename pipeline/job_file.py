"""Reads a job file. YAML with safe loading only; overrides from the command line are YAML values too."""

from pathlib import Path
from typing import Any

import yaml

from schemas.errors import JobError
from schemas.job import Job, parse_job


def load_job(path: Path, *, overrides: list[str] | None = None) -> tuple[Job, str]:
    """The job and its text as given. `overrides` are `path=value` strings. Raises JobError with every problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise JobError.one(
            "job", str(path), f"cannot be read: {error.strerror}.", "give the path of a YAML file"
        ) from None
    except UnicodeDecodeError:
        raise JobError.one("job", str(path), "is not a text file.", "give the path of a YAML file") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise JobError.one("job", str(path), f"is not YAML: {error}", "check the indentation at that line") from None
    return parse_job(data, overrides=dict(_override(o) for o in overrides or [])), text


def _override(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise JobError.one("--set", text, "is not path=value.", "write --set executor.kind=local")
    return path.strip(), yaml.safe_load(value)
