"""Which numbers of a latent move together: the whole, every channel, token or layer on its own, some layers, a masked region.

The axis is declared (`LatentSpec.axes`), never guessed. A latent is cut into parts of equal size; each part is a path of its
own, with its own angle and norm. Numbers outside the chosen layers or mask stay those of the first image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from schemas.codec import LatentSpec
from schemas.errors import JobError, Problem
from stages.code_sets.path import WORST_LAST, Array, Path, PathStatus
from stages.code_sets.places import Mask, mask_problems, mask_weights, place_problems, weights

Per = Literal["whole", "channel", "token", "layer"]
Index = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Parts:
    """`index` (parts, size): the places in the flattened latent of each part; `weight` (parts, size) in (0, 1], how far each moves."""

    index: Index
    weight: Array
    dim: int

    def __len__(self) -> int:
        return len(self.index)

    def cut(self, latents: Array) -> Array:
        """(n, k, d) → (n·parts, k, size), the parts of a row one after another."""
        n, k = latents.shape[:2]
        return latents[:, :, self.index].swapaxes(1, 2).reshape(n * len(self), k, self.index.shape[1])

    def joined(self, path: Path, first: Array) -> Path:
        """A path of (n·parts) parts on top of the first latents (n, d) → a path of n rows, each as bad as its worst part."""
        n, frames = len(first), path.values.shape[1]
        status = np.full(n, PathStatus.OK, dtype="<U16")
        for kind in WORST_LAST[1:]:
            status[(path.status == kind).reshape(n, len(self)).any(axis=1)] = kind
        values = np.repeat(first[:, None, :], frames, axis=1)
        moved = path.values.reshape(n, len(self), frames, -1).swapaxes(1, 2)
        kept = values[:, :, self.index]
        # Where a place moves wholly it is the path's number to the last bit.
        values[:, :, self.index] = np.where(self.weight == 1, moved, kept + self.weight * (moved - kept))
        values[status != PathStatus.OK] = np.nan
        flags = {name: np.asarray(rows.reshape(n, len(self)).any(axis=1)) for name, rows in path.flags.items()}
        return Path(values, status, flags, path.facts)


def parts_of(
    spec: LatentSpec, *, per: Per = "whole", layers: tuple[int, int] | None = None, mask: Mask | None = None
) -> Parts:
    """`layers`: from the first up to, not including, the second; `mask`: rows of numbers in [0, 1] over the latent's height and width.

    Raises JobError when the latent has no such axis, or the range or mask does not fit.
    """
    if problems := list(part_problems(spec, per=per, layers=layers, mask=mask)):
        raise JobError(problems)
    weight = weights(spec, layers=layers) * (1.0 if mask is None else mask_weights(spec, mask))
    own = _part_axes(spec, per)
    order = [*own, *(axis for axis in range(len(spec.shape)) if axis not in own)]
    parts = int(np.prod([spec.shape[axis] for axis in own]))
    index = np.arange(spec.dim).reshape(spec.shape).transpose(order).reshape(parts, -1)
    moving = weight.transpose(order).reshape(parts, -1)
    # A mask crosses parts evenly (it holds for every channel alike), so what is left of each has one size.
    rows = (moving > 0).any(axis=1)
    keep = moving[rows] > 0
    return Parts(index[rows][keep].reshape(rows.sum(), -1), moving[rows][keep].reshape(rows.sum(), -1), spec.dim)


def part_problems(
    spec: LatentSpec,
    *,
    per: Per = "whole",
    layers: tuple[int, int] | None = None,
    mask: Mask | None = None,
    at: str = "interpolate",
) -> Iterator[Problem]:
    """What of these does not fit the latent."""
    if per != "whole" and not _part_axes(spec, per):
        reason = f"latents of shape {list(spec.shape)} have no {per}s."
        yield Problem(f"{at}.per", per, reason, "give the codec's LatentSpec `axes`, or leave this out")
    yield from place_problems(spec, at=at, layers=layers)
    if mask is not None:
        yield from mask_problems(spec, mask, at=f"{at}.mask")


def _part_axes(spec: LatentSpec, per: Per) -> list[int]:
    """The axes that number the parts; empty for the whole, and where there is no such axis."""
    named = [str(axis) for axis in spec.named_axes]
    if per in named:
        return [named.index(per)]
    if per == "token" and {"height", "width"} <= set(named):
        return [named.index("height"), named.index("width")]
    return []
