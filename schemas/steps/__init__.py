"""The steps of a job: one frozen model a stage, one tagged union over all of them.

A step sees its own spec only. Adding a stage touches one spec here, one file under `stages/`, one test, one doc entry.
"""

from typing import Annotated

from pydantic import Field

from schemas.steps.base import SelectionStep
from schemas.steps.codes import InterpolateStep, TraverseStep, Unit
from schemas.steps.directions import ComponentEstimator, ComponentsStep, ComposeStep, Estimator, FitStep
from schemas.steps.measures import CompareStep, DisentanglementScore, DisentanglementStep, EvaluateStep
from schemas.steps.output import RenderStep, ReportStep
from schemas.steps.tables import CompactStep, EncodeStep, IndexStep, TrainStep

Step = Annotated[
    TrainStep
    | EncodeStep
    | IndexStep
    | CompactStep
    | FitStep
    | ComponentsStep
    | ComposeStep
    | TraverseStep
    | InterpolateStep
    | EvaluateStep
    | DisentanglementStep
    | CompareStep
    | RenderStep
    | ReportStep,
    Field(discriminator="stage"),
]
CODE_SETS = ("traverse", "interpolate")
"""Stages that define codes lazily; a render step expands them inside workers."""

__all__ = [
    "CODE_SETS",
    "CompactStep",
    "CompareStep",
    "ComponentEstimator",
    "ComponentsStep",
    "ComposeStep",
    "DisentanglementScore",
    "DisentanglementStep",
    "EncodeStep",
    "Estimator",
    "EvaluateStep",
    "FitStep",
    "IndexStep",
    "InterpolateStep",
    "RenderStep",
    "ReportStep",
    "SelectionStep",
    "Step",
    "TrainStep",
    "TraverseStep",
    "Unit",
]
