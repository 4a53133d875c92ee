"""The shapes of work. A map stage turns batches into batches; a reduce stage folds batches into a state that merges.

Stages know no Ray, no Lance and no bucket: an executor feeds them. What a stage needs from outside arrives in its
constructor as plain data, so a stage pickles, and heavy things (models) are made in `open`, once per worker.
"""

from collections.abc import Generator
from typing import Protocol, TypeVar, runtime_checkable

import pyarrow as pa

State = TypeVar("State")
Result = TypeVar("Result", covariant=True)


class MapStage(Protocol):
    """RecordBatch in, RecordBatch out; need not be 1:1. A bad row becomes a row with `error` set, never an exception."""

    def open(self, device: str) -> None:
        """Called once per worker before the first batch; `device` is `cpu`, `cuda` or `cuda:N`."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch: ...


class ReduceStage(Protocol[State]):
    """A fold whose result does not depend on how rows were split: merge is associative and commutative up to rounding."""

    def start(self) -> State: ...

    def add(self, state: State, batch: pa.RecordBatch) -> State: ...

    def merge(self, a: State, b: State) -> State: ...


@runtime_checkable
class Opens(Protocol):
    """A reduce stage that needs a model: it has `open` too, and pickles without what `open` made.

    Groups of one process share the opened stage, in several threads at once: after `open` it changes nothing in itself.
    """

    def open(self, device: str) -> None:
        """Called once per worker before the first batch; `device` is `cpu`, `cuda` or `cuda:N`."""


@runtime_checkable
class Subtracts(Protocol[State]):
    """A reduce stage whose rows can be taken out again; made of plain values, which say what its state is a statistic of."""

    def subtract(self, a: State, b: State) -> tuple[State, float]:
        """`a` without the rows of `b`, all of which are in `a`; and how many times its rounding errors have grown, ≥ 1.

        Raises PrecisionLost where the rest cannot be told from `a` and `b`.
        """


class PrecisionLost(ArithmeticError):
    """What is left of a statistic is too small beside what was taken out; it has to be computed from the rows."""


Passes = Generator[ReduceStage[State], State, Result]
"""A computation in several passes: yields a reduce stage, is sent its merged state, returns its result.

The caller decides where each pass runs; a one-pass fit yields once."""
