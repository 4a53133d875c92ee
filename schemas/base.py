"""The base of every spec: frozen, closed to unknown fields, so a typo is an error and a spec can be an identity."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Spec(BaseModel):
    """Pure data. Unknown fields are refused; instances never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def _safe_name(name: str) -> str:
    # Names become parts of paths: no separators, no dots that climb, nothing a shell or an object store would twist.
    if not name or len(name) > 100 or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise ValueError("use 1 to 100 letters, digits, '-', '_' or '.', not starting with '.'")
    return name


Name = Annotated[str, AfterValidator(_safe_name)]
"""A dataset, step or direction name: safe as a part of any path."""
