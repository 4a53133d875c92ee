"""Specs of source, codec, steps and events: closed, frozen, and what they derive."""

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from schemas import codec, events, executor, source, steps
from schemas.base import Spec
from schemas.codec import LatentSpec, Preprocess
from schemas.events import Event, Progress, StepFinished
from schemas.job import Job

MODULES = (codec, events, executor, source, steps)


def specs() -> list[type[BaseModel]]:
    return [
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Spec) and value.__module__ == module.__name__
    ]


@pytest.mark.parametrize("spec", [*specs(), Job], ids=lambda s: s.__name__)
def test_every_spec_is_frozen_and_closed_and_says_what_it_is(spec: type[BaseModel]) -> None:
    assert spec.model_config["frozen"] and spec.model_config["extra"] == "forbid"
    assert spec.__doc__ or spec.__name__.startswith("_")
    with pytest.raises(ValidationError, match="no_such_field"):
        spec.model_validate({"no_such_field": 1})


def test_dim_is_the_product_of_the_shape() -> None:
    assert LatentSpec(shape=(4, 8, 8), space="z").dim == 256
    assert LatentSpec(shape=(7,), space="z").dim == 7


def test_preprocessing_says_no_to_pictures_nobody_wants() -> None:
    assert Preprocess.model_validate({"size": 128}).size == (128, 128)
    for bad in (0, [0, 4], [4], 9000, True, "64"):
        with pytest.raises(ValidationError):
            Preprocess.model_validate({"size": bad})


@pytest.mark.parametrize("event", [Progress(step="encode", read=3), StepFinished(step="a", stage="fit", seconds=1.5)])
def test_events_survive_a_line_of_json(event: Event) -> None:
    adapter: TypeAdapter[Event] = TypeAdapter(Event)
    assert adapter.validate_json(event.model_dump_json()) == event


def test_axes_name_each_side_once_and_three_sides_need_no_saying() -> None:
    assert LatentSpec(shape=(4, 8, 8), space="z").named_axes == ("channel", "height", "width")
    assert LatentSpec(shape=(18, 512), space="w").named_axes == ()
    assert LatentSpec(shape=(18, 512), space="w", axes=("layer", "feature")).named_axes == ("layer", "feature")
    for axes in (("layer",), ("layer", "layer")):
        with pytest.raises(ValidationError, match="each side"):
            LatentSpec(shape=(18, 512), space="w", axes=axes)
