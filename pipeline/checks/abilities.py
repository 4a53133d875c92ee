"""What each step asks of the codec: to encode, to decode, to give gradients. Told while planning where the codec says so unbuilt."""

from collections.abc import Iterator

from schemas.errors import Problem
from schemas.steps import (
    ComponentsStep,
    DiagnoseStep,
    EditStep,
    EncodeStep,
    EvaluateStep,
    FidelityStep,
    InterpolateStep,
    RenderStep,
    Step,
    TraverseStep,
)
from stages.codecs.abilities import Abilities, Ability

TOLD = {"encode": "encode", "decode": "decode", "gradient": "decode with gradients"}


def check_abilities(step: Step, at: str, can: Abilities | None) -> Iterator[Problem]:
    """A problem for each field that asks for what the codec cannot do; none where `can` is not known yet."""
    if can is None:
        return
    for place, value, needed, fix in _asked(step):
        if lacking := [ability for ability in needed if ability not in can]:
            yield Problem(f"{at}{place}", value, f"this codec cannot {TOLD[lacking[0]]}.", fix)


def _asked(step: Step) -> Iterator[tuple[str, str | None, tuple[Ability, ...], str]]:
    """(field, value, abilities, fix) of a step; the field is empty where the whole step asks."""
    match step:
        case EncodeStep():
            yield "", None, ("encode",), "use a codec that can"
        case TraverseStep(calibrate="row") | EditStep(calibrate="row"):
            yield ".calibrate", "row", ("encode", "decode"), "use calibrate: mean"
        case InterpolateStep(method="geodesic"):
            yield ".method", "geodesic", ("gradient",), "use lerp or slerp"
        case ComponentsStep(estimator="jacobian"):
            yield ".estimator", "jacobian", ("gradient",), "use estimator: pca"
        case EvaluateStep():
            encodes = step.identity or step.scorer == "reencode"
            fix = "use a codec that can, or `identity: false` and a scorer of your own"
            yield "", None, ("decode", "encode") if encodes else ("decode",), fix
        case FidelityStep():
            yield "", None, ("decode",), "remove the step"
            if step.path_pairs:
                yield ".path_pairs", str(step.path_pairs), ("gradient",), "set path_pairs: 0"
        case DiagnoseStep() if "reconstruction" in step.scores:
            yield ".scores", "reconstruction", ("encode", "decode"), "leave `reconstruction` out"
        case RenderStep():
            yield "", None, ("decode",), "remove the step"
        case _:
            pass
