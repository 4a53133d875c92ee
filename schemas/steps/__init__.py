"""The steps of a job: one frozen model a stage, one tagged union over all of them.

A step sees its own spec only. Adding a stage touches one spec here, one file under `stages/`, one test, one doc entry.
"""

from typing import Annotated

from pydantic import Field

from schemas.steps.base import SelectionStep
from schemas.steps.codes import CoordinateUnit, TraverseStep, TrustRegion, Unit
from schemas.steps.directions import ComponentEstimator, ComponentsStep, ComposeStep, Estimator, FitStep
from schemas.steps.edits import AnalogyStep, Around, Change, Covariance, EditStep, SampleStep, WalkStep
from schemas.steps.measures import (
    CompareStep,
    DiagnoseStep,
    DisentanglementScore,
    DisentanglementStep,
    EvaluateStep,
    FidelityStep,
    ProjectStep,
)
from schemas.steps.output import RenderStep, ReportStep
from schemas.steps.paths import InterpolateStep
from schemas.steps.tables import CompactStep, EncodeStep, IndexStep, TrainStep
from schemas.steps.tokens import TOKEN_DRAWS, TOKEN_METHODS, TokenChange

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
    | ProjectStep
    | EditStep
    | AnalogyStep
    | WalkStep
    | SampleStep
    | FidelityStep
    | DiagnoseStep
    | RenderStep
    | ReportStep,
    Field(discriminator="stage"),
]
CodeSetStep = TraverseStep | InterpolateStep | EditStep | AnalogyStep | WalkStep | SampleStep
CODE_SETS = ("traverse", "interpolate", "edit", "analogy", "walk", "sample")
"""Stages that define codes lazily; a render step expands them inside workers."""

__all__ = [
    "CODE_SETS",
    "TOKEN_DRAWS",
    "TOKEN_METHODS",
    "AnalogyStep",
    "Around",
    "Change",
    "CodeSetStep",
    "CompactStep",
    "CompareStep",
    "ComponentEstimator",
    "ComponentsStep",
    "ComposeStep",
    "CoordinateUnit",
    "Covariance",
    "DiagnoseStep",
    "DisentanglementScore",
    "DisentanglementStep",
    "EditStep",
    "EncodeStep",
    "Estimator",
    "EvaluateStep",
    "FidelityStep",
    "FitStep",
    "IndexStep",
    "InterpolateStep",
    "ProjectStep",
    "RenderStep",
    "ReportStep",
    "SampleStep",
    "SelectionStep",
    "Step",
    "TokenChange",
    "TrainStep",
    "TraverseStep",
    "TrustRegion",
    "Unit",
    "WalkStep",
]
