"""The job: one YAML file, validated whole, with every problem reported at once.

`parse_job` takes plain data (whoever read the file keeps the I/O); `job_json_schema` gives editors completion.
Checks here need no bucket and no table; those that do are the plan's.
"""

import typing
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, ValidationError, field_validator

from schemas.base import Name, Spec, broken_rule
from schemas.codec import CodecSpec
from schemas.errors import JobError, Problem
from schemas.executor import ExecutorSpec, LocalExecutor
from schemas.problems import did_you_mean as did_you_mean
from schemas.problems import problems_of
from schemas.source import SourceSpec
from schemas.steps import CODE_SETS, CodeSetStep, RenderStep, Step


class Job(Spec):
    """A Latentmill job: images in a source → latents in a store → the steps that use them."""

    dataset: Name = Field(description="name of the dataset in the store")
    store: str = Field(description="LanceDB URI: a path, s3://, gs://")
    store_options: dict[str, str] = Field(
        default_factory=dict, description="object-store options of the store (aws_endpoint, …)"
    )
    source: SourceSpec = Field(description="where images and labels come from")
    codec: CodecSpec = Field(description="what turns images into latents and back")
    steps: tuple[Step, ...] = Field(min_length=1, description="what is done, in this order")
    executor: ExecutorSpec = Field(LocalExecutor(), description="how it is executed; changes no result")
    max_failures: float | int | None = Field(
        None, ge=0, description="stop when more rows fail: a count (int) or a share of all rows (float below 1)"
    )
    allow_code: bool = Field(False, description="let `module:Class` entries import your own code")

    @field_validator("max_failures")
    @classmethod
    def _share_or_count(cls, value: float | int | None) -> float | int | None:
        if isinstance(value, float) and value >= 1 and not value.is_integer():
            raise broken_rule("", value, "neither a share below 1 nor a whole count.", "use 0.05 or 100")
        return value

    @field_validator("steps")
    @classmethod
    def _name_steps(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        # Every step leaves validation with a name, so later code never invents one.
        taken = {s.name for s in steps if s.name}
        named = []
        for step in steps:
            if step.name is None:
                candidates = (step.stage if n == 1 else f"{step.stage}{n}" for n in range(1, len(steps) + 2))
                name = next(c for c in candidates if c not in taken)
                taken.add(name)
                step = step.model_copy(update={"name": name})
            named.append(step)
        return tuple(named)

    def code_sets_of(self, render: RenderStep) -> tuple[CodeSetStep, ...]:
        """The code-set steps that `render` decodes: those it names, or those above it that no earlier render took."""
        taken: set[str | None] = set()
        waiting: list[CodeSetStep] = []
        for step in self.steps:
            if isinstance(step, CodeSetStep):
                waiting.append(step)
            elif isinstance(step, RenderStep):
                mine = (
                    [s for s in waiting if s.name in step.of]
                    if step.of
                    else [s for s in waiting if s.name not in taken]
                )
                if step.name == render.name:
                    return tuple(mine)
                taken |= {s.name for s in mine}
        return ()


def parse_job(data: Any, *, overrides: Mapping[str, Any] | None = None) -> Job:
    """Validates plain data into a `Job`. Raises JobError with all problems, each with its field, value and fix."""
    if not isinstance(data, Mapping):
        raise JobError.one(
            "job", type(data).__name__, "a job file must hold a mapping at its top level.", "start with `dataset: name`"
        )
    data = _overridden(data, overrides or {})
    try:
        job = Job.model_validate(data)
    except ValidationError as error:
        raise JobError(problems_of(error, job=Job, data=data)) from None
    if problems := list(_check(job)):
        raise JobError(problems)
    return job


def job_json_schema() -> dict[str, Any]:
    """JSON Schema of a job file, for completion in editors (`# yaml-language-server: $schema=…`)."""
    schema = Job.model_json_schema()
    source = schema["properties"]["source"]
    # Without its optional `kind` a source may fit several of the four, which `oneOf` would refuse.
    source["anyOf"] = source.pop("oneOf")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Latentmill job"}


def _overridden(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `data` with dotted paths replaced: `steps.0.batch_size`, `executor.kind`."""
    result: Any = _plain_copy(data)
    for path, value in overrides.items():
        *parents, last = path.split(".")
        at = result
        for part in parents:
            at = _child(at, part, path)
        if isinstance(at, list):
            at[_index(at, last, path)] = value
        else:
            at[last] = value
    return typing.cast(dict[str, Any], result)


def _plain_copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain_copy(v) for k, v in value.items()}
    return [_plain_copy(v) for v in value] if isinstance(value, list | tuple) else value


def _child(at: Any, part: str, path: str) -> Any:
    child = at[_index(at, part, path)] if isinstance(at, list) else at.setdefault(part, {})
    if not isinstance(child, dict | list):
        raise JobError.one(
            f"--set {path}", None, f"`{part}` is {child!r}, not a mapping or a list.", "name a field that exists"
        )
    return child


def _index(at: list[Any], part: str, path: str) -> int:
    """A list position, or the step that carries the name."""
    for field in ("name", "stage"):
        named = [i for i, v in enumerate(at) if isinstance(v, dict) and v.get(field) == part]
        if len(named) == 1:
            return named[0]
    if part.isdigit() and int(part) < len(at):
        return int(part)
    raise JobError.one(
        f"--set {path}", part, f"no such item in a list of {len(at)}.", "use a position from 0, or the name of a step"
    )


def _check(job: Job) -> Iterable[Problem]:
    names: set[str] = set()
    for i, step in enumerate(job.steps):
        at = f"steps.{i} ({step.stage})"
        if step.name in names:
            yield Problem(f"{at}.name", step.name, "two steps have this name.", "give each its own")
        names.add(str(step.name))
        match step.stage:
            case "train" if job.codec.family != "conv_vae":
                yield Problem(
                    "codec.family",
                    job.codec.family,
                    f"{at} trains conv_vae only.",
                    "set codec.family: conv_vae, or remove the step",
                )
            case "render":
                yield from _check_render(job, step, at, names)
    if job.codec.family == "custom" and not job.allow_code:
        yield Problem(
            "codec.entry", job.codec.entry, "the job does not allow code of your own.", "set allow_code: true"
        )


def _check_render(job: Job, step: RenderStep, at: str, above: set[str]) -> Iterable[Problem]:
    code_sets = [str(s.name) for s in job.steps if s.stage in CODE_SETS and s.name in above]
    for name in step.of:
        if name not in code_sets:
            yield Problem(f"{at}.of", name, "no code set of this name above this step.", did_you_mean(name, code_sets))
    if not step.of and not job.code_sets_of(step):
        yield Problem(
            at,
            None,
            "nothing above this step is left to render.",
            "put a code set above it, such as a traverse or interpolate step",
        )
