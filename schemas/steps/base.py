"""What every step has, and what steps have that work on chosen rows."""

from pydantic import Field

from schemas.base import Name, Spec


class BaseStep(Spec):
    name: Name | None = Field(
        None, description="how other steps refer to this one; default: the stage's name, numbered when it repeats"
    )


class SelectionStep(BaseStep):
    """Which rows of the dataset a step works on."""

    where: str | None = Field(
        None, description="SQL filter over id, width, height and labels.*: `labels.glasses = false`"
    )
    ids: tuple[str, ...] | None = Field(None, description="exactly these images")
    limit: int | None = Field(
        None, ge=1, description="at most this many rows, chosen by a hash of the id (stable, not the first ones)"
    )
