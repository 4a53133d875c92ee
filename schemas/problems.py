"""Turns pydantic's errors about a job into plain words: the field as the user wrote it, the value, the reason, the fix.

A field's path is read along the user's own data, so the names of pydantic's union branches never show; a step is shown
with its stage (`steps.2 (traverse).unit`). Errors of several branches at one place become one problem.
"""

import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from schemas.codec import CodecSpec
from schemas.errors import Problem
from schemas.executor import ExecutorSpec
from schemas.source import SourceSpec
from schemas.steps import Step

Place = tuple[str | int, ...]

EXPECTED = {
    "tuple_type": "a list",
    "list_type": "a list",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
"""Errors that say `not this kind of thing`: the branches of a union are put together as `a list or …`."""

BOUNDS = {
    "greater_than_equal": ("ge", "must be at least"),
    "greater_than": ("gt", "must be more than"),
    "less_than_equal": ("le", "must be at most"),
    "less_than": ("lt", "must be less than"),
    "too_short": ("min_length", "too few items: at least"),
    "too_long": ("max_length", "too many items: at most"),
}
TAG_OF = {"steps": "stage", "codec": "family", "executor": "kind", "source": "kind"}
"""The field that tells which kind of thing stands at a place of the job."""


def problems_of(error: ValidationError, *, job: type[BaseModel], data: Mapping[str, Any]) -> list[Problem]:
    """Every problem of a job that failed validation, in the order of its fields."""
    found: dict[Place, list[Any]] = {}
    for item in error.errors():
        found.setdefault(_place(item, data), []).append(item)
    return [
        _problem(place, items, job, data)
        for place, items in found.items()
        if not (all(_gives_way(i) for i in items) and any(_inside(other, place) for other in found))
    ]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A fix for an unknown name: the nearest known one, and the list of all when it is short."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listed = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return (f"did you mean `{near[0]}`? " if near else "") + (f"Known: {listed}" if known else "none is known here")


def _problem(place: Place, items: Sequence[Any], job: type[BaseModel], data: Mapping[str, Any]) -> Problem:
    first = items[0]
    kind, context, value = first["type"], first.get("ctx", {}), first.get("input")
    field = _shown(place, data)
    if all(_is_mismatch(i) for i in items):
        return Problem(field, _short(value), *_mismatch(place, items, value))
    if kind == "extra_forbidden":
        return Problem(field, _short(value), "no such field.", did_you_mean(str(place[-1]), _fields(first["loc"], job)))
    if kind == "missing" and isinstance(first["loc"][-1], int):
        return Problem(field, _short(_at(place, data)), "too few items.", "add what is missing")
    if kind == "missing":
        return Problem(field, None, "missing.", f"add `{place[-1]}: …`" + _meaning(first["loc"], job))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tag, known = TAG_OF[str(place[0])], _tags_at(str(place[0]))
        field = ".".join(map(str, (*place, tag)))
        if kind == "union_tag_not_found":
            return Problem(field, None, "missing.", f"add `{tag}: …`, one of {', '.join(known)}")
        return Problem(field, context["tag"], f"no such {tag}.", did_you_mean(str(context["tag"]), known))
    if kind == "invalid_key":
        return Problem(field, None, "keys must be text.", "put it in quotes")
    if kind in BOUNDS:
        key, words = BOUNDS[kind]
        return Problem(field, _short(value), f"{words} {context[key]}.")
    if kind == "string_pattern_mismatch":
        return Problem(field, _short(value), "is not written as this field asks.", _meaning(first["loc"], job)[2:-1])
    if kind == "broken_rule":
        inner = f"{field}.{context['field']}" if context["field"] else field
        return Problem(inner, context["value"], context["reason"], context["fix"])
    reason = str(first["msg"]).removeprefix("Value error, ")
    return Problem(field, _short(value), reason if reason.endswith(".") else reason + ".")


def _mismatch(place: Place, items: Sequence[Any], value: Any) -> tuple[str, str]:
    """Reason and fix where no branch of a type takes the value."""
    words: list[str] = []
    literals: list[str] = []
    for item in items:
        if item["type"] == "literal_error":
            literals += [part.strip("' ") for part in item["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        elif EXPECTED[item["type"]] not in words:
            words.append(EXPECTED[item["type"]])
    if "a number" in words:
        words = [word for word in words if word != "a whole number"]
    if literals and (not words or difflib.get_close_matches(str(value), literals, n=1)):
        return "no such choice.", did_you_mean(str(value), literals)
    reason = f"must be {' or '.join(words + [f'`{name}`' for name in literals])}."
    if isinstance(value, str) and "a list" in words:
        return reason, f"write `[{value}]`"
    if "a mapping" in words and place and not isinstance(value, Mapping):
        tag = "images" if place[0] == "source" else TAG_OF.get(str(place[0]))
        return reason, f"write `{tag}: {value if isinstance(value, str) else '…'}` inside it" if tag else ""
    return reason, ""


def _is_mismatch(item: Any) -> bool:
    return item["type"] in EXPECTED or item["type"] == "literal_error"


def _gives_way(item: Any) -> bool:
    """Whether the error is only an echo of one further inside: another branch of a union, or an item that was refused."""
    return _is_mismatch(item) or item["type"] == "too_short"


def _inside(place: Place, outer: Place) -> bool:
    return len(place) > len(outer) and place[: len(outer)] == outer


def _place(item: Any, data: Any) -> Place:
    """The error's path along the user's data: what is no key or position there is the name of a union's branch."""
    place: list[str | int] = []
    at = data
    for part in item["loc"]:
        in_list = isinstance(at, list | tuple) and isinstance(part, int) and part < len(at)
        if in_list or (isinstance(at, Mapping) and part in at):
            at = at[part]
            place.append(part)
    if item["type"] == "missing" and isinstance(item["loc"][-1], str):
        place.append(item["loc"][-1])
    return tuple(place)


def _at(place: Place, data: Any) -> Any:
    for part in place:
        data = data[part]
    return data


def _shown(place: Place, data: Any) -> str:
    """`steps.2 (traverse).unit`."""
    words = []
    for depth, part in enumerate(place):
        word = str(part)
        if place[0] == "steps" and depth == 1:
            step = data["steps"][part]
            stage = step.get("stage") if isinstance(step, Mapping) else None
            word += f" ({stage})" if isinstance(stage, str) else ""
        words.append(word)
    return ".".join(words) or "job"


def _short(value: Any) -> Any:
    return None if isinstance(value, Mapping | list | tuple | BaseModel) and len(str(value)) > 80 else value


def _tags_at(top: str) -> list[str]:
    union = {"steps": Step, "codec": CodecSpec, "executor": ExecutorSpec, "source": SourceSpec}[top]
    return [tag for model in _leaves(union) if isinstance(model, type) for tag in _tags(model)]


def _fields(loc: Sequence[str | int], job: type[BaseModel]) -> list[str]:
    return sorted({name for model in _models(loc[:-1], job) for name in model.model_fields})


def _meaning(loc: Sequence[str | int], job: type[BaseModel]) -> str:
    """The field's description, in brackets."""
    for model in _models(loc[:-1], job):
        field = model.model_fields.get(str(loc[-1]))
        if field is not None and field.description:
            return f" ({field.description})"
    return ""


def _models(loc: Sequence[str | int], job: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that stand where `loc` points, following tagged unions by their tag."""
    models: list[type[BaseModel]] = [job]
    for part in loc:
        if tagged := [m for m in models if part in _tags(m)]:
            models = tagged
        elif not isinstance(part, int):
            leaves = [t for m in models if part in m.model_fields for t in _leaves(m.model_fields[part].annotation)]
            models = [t for t in leaves if isinstance(t, type) and issubclass(t, BaseModel)]
    return models


def _tags(model: type[BaseModel]) -> tuple[str, ...]:
    """The tag that selects this model in its union, if it stands in one."""
    tags = [str(model.model_fields[f].default) for f in ("stage", "family", "kind") if f in model.model_fields]
    return tuple(tags[:1])


def _leaves(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple, typing.Annotated):
        return [leaf for arg in typing.get_args(annotation) for leaf in _leaves(arg)]
    return [annotation]
