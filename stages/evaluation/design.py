"""What an evaluation is asked: edits, an α grid, the attributes that are scored, slices, masks and bootstrap.

Plain data, made once by the driver and sent to every worker.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from stages.attributes import Column, Floats
from stages.evaluation.readout import Readout

Box = tuple[float, float, float, float]
MAX_SUMS = 2**25
"""Most numbers in the state of an evaluation (256 MiB)."""


@dataclass(frozen=True, eq=False)
class Edit:
    """A stored direction as an edit: `vector` (d,) of unit length, `mean` (d,) and `sigma` of the data along it.

    `attribute` is what it is meant to change; empty for a direction that no labels made. `effect`: the length that changes the
    direction's own score by 1; None where it has no score. `mask`: top, left, bottom, right in
    shares of the picture, where the change belongs.
    """

    name: str
    attribute: str
    estimator: str
    vector: Floats
    mean: Floats
    sigma: float
    auc: float | None = None
    mask: Box | None = None
    effect: float | None = None


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows whose `column` is known and is positive (`holds`), or is not: `glasses=true`, `glasses=false`, `age=old`."""

    name: str
    column: Column
    holds: bool = True


@dataclass(frozen=True, eq=False)
class Fidelity:
    """What looks at pictures (`stages.scores.extractors`), and at how many images of at most; `share` of them are looked at."""

    extractor: str
    options: Mapping[str, Any]
    images: int
    share: float = 1.0

    def over(self, rows: int) -> "Fidelity":
        """The same for so many rows: a tenth more images than are kept, for a share drawn by hash is only about right."""
        return replace(self, share=1.1 * self.images / max(rows, 1) + 0.01)


@dataclass(frozen=True, eq=False)
class Design:
    """`strengths` (a,): ascending, without 0, in `unit`. `attributes`: names of the scores, in the scorer's order.

    A slice is compared with the other slices of its label.
    """

    edits: tuple[Edit, ...]
    strengths: tuple[float, ...]
    unit: str
    attributes: tuple[str, ...]
    readout: Readout | None = None
    slices: tuple[Slice, ...] = ()
    group: str | None = None
    identity: bool = True
    replicates: int = 200
    seed: int = 0
    fidelity: Fidelity | None = None
    gradient: bool = False
    """Keep what tells how scores depend on latents (`Effects.response`)."""

    @cached_property
    def alphas(self) -> Floats:
        """(edits, a): strengths in latent units. NaN where an edit has no length of that unit."""
        lengths = [{"sigma": edit.sigma, "effect": edit.effect}.get(self.unit, 1.0) for edit in self.edits]
        return np.outer(np.array(lengths, np.float64), self.strengths)

    @cached_property
    def path(self) -> Floats:
        """(a + 1,): strengths with 0 among them, ascending."""
        return np.sort(np.append(np.asarray(self.strengths), 0.0))

    @cached_property
    def targets(self) -> tuple[int | None, ...]:
        """Position of each edit's own attribute among the scores; None where it is not scored."""
        at = {name: i for i, name in enumerate(self.attributes)}
        return tuple(at.get(edit.attribute) for edit in self.edits)

    @property
    def pictures(self) -> int:
        """Pictures decoded a row."""
        return 1 + len(self.edits) * len(self.strengths)
