"""The base of every spec: frozen, closed to unknown fields, so a typo is an error and a spec can be an identity."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Spec(BaseModel):
    """Pure data. Unknown fields, NaN and infinity are refused; instances never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


def broken_rule(field: str, value: Any, reason: str, fix: str) -> PydanticCustomError:
    """What a spec's own validator raises: like any other error it is collected with the rest of the job's problems.

    A tuple is shown as the list it was written as.
    """
    value = list(value) if isinstance(value, tuple) else value
    return PydanticCustomError(
        "broken_rule", "{reason} {fix}", {"field": field, "value": value, "reason": reason, "fix": fix}
    )


def checked_name(name: str) -> str:
    """The name itself. Raises ValueError for one that is not safe as a part of a path."""
    # Names become parts of paths: no separators, no dots that climb, nothing a shell or an object store would twist.
    if not name or len(name) > 100 or not all(c.isalnum() or c in "-_." for c in name) or name.startswith("."):
        raise ValueError("a name is 1 to 100 letters, digits, '-', '_' or '.', and does not start with '.'")
    return name


Name = Annotated[str, AfterValidator(checked_name)]
"""A dataset, step or direction name: safe as a part of any path."""
