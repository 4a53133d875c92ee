"""Which steps fit a discrete codec, and which only fit one: for plans, and for whoever defines the code set.

A latent of a discrete codec is a grid of codes. Between codes there is none, so what moves latents freely (traverse, walk, slerp,
Gaussian draws) is refused there by name; and what works on codes is refused where there are none.
"""

from collections.abc import Iterator

from schemas.codec import LatentSpec
from schemas.errors import Problem
from schemas.steps import (
    TOKEN_DRAWS,
    TOKEN_METHODS,
    AnalogyStep,
    EditStep,
    FidelityStep,
    InterpolateStep,
    SampleStep,
    Step,
    TraverseStep,
    WalkStep,
)
from schemas.steps.tokens import MAX_BIGRAM_CODES
from stages.code_sets.places import mask_problems, place_problems

CONTINUOUS = "latents of this codec are numbers, not codes of a codebook."
NOT_CODES = "latents of this codec are codes, and what this step makes would be none."


def discrete_problems(step: Step, spec: LatentSpec, *, at: str) -> Iterator[Problem]:
    """What of a step does not fit the codec's codes, or the want of them."""
    if spec.codebook is None:
        yield from _without_codes(step, at)
    else:
        yield from _with_codes(step, spec, spec.codebook, at)


def _without_codes(step: Step, at: str) -> Iterator[Problem]:
    match step:
        case InterpolateStep() if step.method in TOKEN_METHODS:
            yield Problem(f"{at}.method", step.method, CONTINUOUS, "use auto, lerp or slerp")
        case EditStep() if step.tokens is not None:
            yield Problem(f"{at}.tokens", step.tokens.named, CONTINUOUS, "use changes: directions or coordinates")
        case SampleStep() if step.method in TOKEN_DRAWS:
            yield Problem(f"{at}.method", step.method, CONTINUOUS, "use method: prior, gaussian or gmm")
        case _:
            pass


def _with_codes(step: Step, spec: LatentSpec, codebook: int, at: str) -> Iterator[Problem]:
    match step:
        case TraverseStep():
            fix = "use `edit` with these directions: it takes the nearest codes, a frame for each of `parts`"
            yield Problem(f"{at}.stage", step.stage, NOT_CODES, fix)
        case AnalogyStep():
            yield Problem(f"{at}.stage", step.stage, NOT_CODES, "use `edit` with tokens: {of: ID}")
        case WalkStep():
            yield Problem(f"{at}.stage", step.stage, NOT_CODES, "use `sample` with method: categorical or bigram")
        case InterpolateStep():
            yield from _interpolate(step, spec, at)
        case EditStep():
            if step.trust is not None:
                reason = "codes are always where codes are."
                yield Problem(f"{at}.trust", step.trust.by, reason, "remove it; what changed is stored with every code")
            if step.calibrate == "row":
                reason = "pictures change in leaps, and no length need show the effect asked for."
                yield Problem(f"{at}.calibrate", step.calibrate, reason, "use calibrate: mean")
            if step.tokens is not None and step.tokens.code is not None and step.tokens.code >= codebook:
                reason = f"the codebook has {codebook} codes."
                yield Problem(f"{at}.tokens.code", step.tokens.code, reason, f"use 0 to {codebook - 1}")
            if step.tokens is not None:
                yield from _places(step.tokens.region, step.tokens.mask, spec, f"{at}.tokens")
        case SampleStep():
            if step.method not in TOKEN_DRAWS:
                yield Problem(f"{at}.method", step.method, NOT_CODES, f"use method: {' or '.join(TOKEN_DRAWS)}")
            elif step.method == "bigram" and codebook > MAX_BIGRAM_CODES:
                reason = f"{codebook} codes make {codebook}² pairs; bigrams end at {MAX_BIGRAM_CODES} codes."
                yield Problem(f"{at}.method", step.method, reason, "use method: categorical")
        case FidelityStep() if step.path_pairs:
            reason = "between codes pictures change in leaps, so paths have no length by small steps."
            yield Problem(f"{at}.path_pairs", step.path_pairs, reason, "use path_pairs: 0")
        case _:
            pass


def _interpolate(step: InterpolateStep, spec: LatentSpec, at: str) -> Iterator[Problem]:
    if step.method not in ("auto", *TOKEN_METHODS):
        yield Problem(f"{at}.method", step.method, NOT_CODES, f"use {', '.join(TOKEN_METHODS)} or auto")
        return
    if step.weights is not None:
        yield Problem(f"{at}.weights", None, "codes have no mean: an index is a name.", "remove it")
    elif step.parents != 2:
        yield Problem(f"{at}.sets", step.parents, "tokens are swapped between two images.", "use pairs")
    if step.per != "whole":
        yield Problem(f"{at}.per", step.per, "every token is on its own already.", "remove it")
    if step.layers is not None:
        yield Problem(f"{at}.layers", list(step.layers), "tokens are chosen by a mask.", "use mask")
    yield from _places(None, step.mask, spec, at)


def _places(
    region: tuple[int, int, int, int] | None, mask: tuple[tuple[float, ...], ...] | None, spec: LatentSpec, at: str
) -> Iterator[Problem]:
    yield from place_problems(spec, at=at, region=region)
    if mask is not None:
        yield from mask_problems(spec, mask, at=f"{at}.mask")
    if mask is not None and any(value not in (0, 1) for row in mask for value in row):
        yield Problem(f"{at}.mask", None, "a token changes or it stays.", "write 0 and 1 only")
