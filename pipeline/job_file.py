"""Reads a job file. YAML with safe loading only; overrides from the command line are YAML values too."""

from pathlib import Path
from typing import Any

import yaml

from schemas.errors import JobError
from schemas.job import Job, parse_job


def load_job(path: Path, *, overrides: list[str] | None = None, executor: str | None = None) -> tuple[Job, str]:
    """The job and its text as given. `overrides` are `path=value` strings. Raises JobError with every problem.

    `executor`: the kind to run on. Settings of the job's executor stay when it is of that kind already.
    """
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
    changes = dict(_override(o) for o in overrides or [])
    if executor is not None:
        changes = {**_other_kind(data, executor), **changes, "executor.kind": executor}
    return parse_job(data, overrides=changes), text


def _other_kind(data: Any, kind: str) -> dict[str, Any]:
    """Makes room for an executor of `kind` where the job's is of another one, whose settings mean nothing to it."""
    given = data.get("executor") if isinstance(data, dict) else None
    return {} if isinstance(given, dict) and given.get("kind") in (None, kind) else {"executor": {}}


def _override(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise JobError.one("--set", text, "is not path=value.", "write --set executor.kind=local")
    try:
        return path.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        fix = "put quotes around text with special characters: --set 'path=\"value\"'"
        raise JobError.one(f"--set {path.strip()}", value, f"is not YAML: {reason}.", fix) from None
