"""Classes of the user's own, named `module:Class` in a job: imported only when the job says that code is allowed."""

import importlib
from typing import Any

from schemas.errors import JobError


def import_entry(entry: str, *, field: str, allow_code: bool) -> Any:
    """The class. Raises JobError, at `field`, when the job allows no code, or there is no such class."""
    if not allow_code:
        raise JobError.one(field, entry, "importing your own code needs your word.", "set allow_code: true")
    module_name, class_name = entry.split(":")
    try:
        return getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        fix = "check the name, and that workers have the module"
        raise JobError.one(field, entry, f"cannot be imported ({error}).", fix) from error
