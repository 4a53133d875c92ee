"""Events a run reports. `--json` prints them one a line; the terminal draws them; nothing else carries progress."""

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.base import Spec


class StepStarted(Spec):
    """A step begins; `total` rows are to be done, `already` were done by an earlier run."""

    event: Literal["step_started"] = "step_started"
    step: str
    stage: str
    total: int | None = None
    already: int = 0


class Progress(Spec):
    """Running counts of one step. Reading is ahead of computing, computing of committing."""

    event: Literal["progress"] = "progress"
    step: str
    read: int = 0
    computed: int = 0
    committed: int = 0
    failed: int = 0
    total: int | None = None
    note: str = Field("", description="a figure worth showing beside the bar, such as a loss")


class StepFinished(Spec):
    """A step is done, with its counts and figures."""

    event: Literal["step_finished"] = "step_finished"
    step: str
    stage: str
    seconds: float
    counts: dict[str, Any] = Field(default_factory=dict)


class Notice(Spec):
    """Something the user should know and that did not stop the run."""

    event: Literal["notice"] = "notice"
    level: Literal["info", "warning"] = "warning"
    message: str


class RunFinished(Spec):
    """The last event of a run."""

    event: Literal["run_finished"] = "run_finished"
    run_id: str
    state: Literal["done", "failed"]
    seconds: float
    message: str = ""


Event = Annotated[StepStarted | Progress | StepFinished | Notice | RunFinished, Field(discriminator="event")]
