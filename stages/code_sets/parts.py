"""Which numbers of a latent move together: the whole, every channel, token or layer on its own, some layers, a masked region.

The axis is declared (`LatentSpec.axes`), never guessed. A latent is cut into parts of equal size; each part is a path of its
own, with its own angle and norm. Numbers outside the chosen layers or mask stay those of the first image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from schemas.codec import LatentSpec
from schemas.errors import JobError, Problem
from stages.code_sets.path import WORST_LAST, Array, Path, PathStatus

Per = Literal["whole", "channel", "token", "layer"]
Mask = Sequence[Sequence[float]]
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
    weight = np.ones(spec.shape)
    if layers is not None:
        chosen = np.zeros(spec.shape[_axis(spec, "layer")])
        chosen[layers[0] : layers[1]] = 1
        weight = weight * _along(spec, chosen, ("layer",))
    if mask is not None:
        weight = weight * _along(spec, _stretched(mask, _grid(spec)), ("height", "width"))
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
    shape, named = list(spec.shape), spec.named_axes
    declare = "give the codec's LatentSpec `axes`, or leave this out"
    if per != "whole" and not _part_axes(spec, per):
        yield Problem(f"{at}.per", per, f"latents of shape {shape} have no {per}s.", declare)
    if layers is not None:
        if "layer" not in named:
            yield Problem(f"{at}.layers", list(layers), f"latents of shape {shape} have no layers.", declare)
        elif not 0 <= layers[0] < layers[1] <= spec.shape[_axis(spec, "layer")]:
            count = spec.shape[_axis(spec, "layer")]
            yield Problem(
                f"{at}.layers", list(layers), f"there are {count} layers.", f"use [start, end) in 0 to {count}"
            )
    if mask is not None:
        yield from _mask_problems(spec, mask, f"{at}.mask", declare)


def _mask_problems(spec: LatentSpec, mask: Mask, at: str, declare: str) -> Iterator[Problem]:
    if not {"height", "width"} <= set(spec.named_axes):
        yield Problem(at, None, f"latents of shape {list(spec.shape)} have no height and width.", declare)
        return
    sides, size = _grid(spec), (len(mask), len(mask[0]) if mask else 0)
    if not all(size) or len({len(row) for row in mask}) > 1 or any(a % b for a, b in zip(sides, size, strict=True)):
        reason = f"a mask of {size[0]} rows by {size[1]} does not divide the latent's {sides[0]}×{sides[1]} places."
        yield Problem(at, None, reason, f"write {sides[0]} rows of {sides[1]} numbers, or a divisor of each")
    elif not all(0 <= value <= 1 for row in mask for value in row) or not any(map(any, mask)):
        yield Problem(at, None, "its numbers must be from 0 to 1, not all 0.", "write 1 where the picture should move")


def _axis(spec: LatentSpec, name: str) -> int:
    return [str(axis) for axis in spec.named_axes].index(name)


def _grid(spec: LatentSpec) -> tuple[int, int]:
    return spec.shape[_axis(spec, "height")], spec.shape[_axis(spec, "width")]


def _part_axes(spec: LatentSpec, per: Per) -> list[int]:
    """The axes that number the parts; empty for the whole, and where there is no such axis."""
    named = [str(axis) for axis in spec.named_axes]
    if per in named:
        return [named.index(per)]
    if per == "token" and {"height", "width"} <= set(named):
        return [named.index("height"), named.index("width")]
    return []


def _along(spec: LatentSpec, values: Array, axes: tuple[str, ...]) -> Array:
    """`values` over the named axes, shaped to broadcast against a latent."""
    places = [_axis(spec, axis) for axis in axes]
    ordered = values.transpose(np.argsort(places))
    return ordered.reshape([side if i in places else 1 for i, side in enumerate(spec.shape)])


def _stretched(mask: Mask, sides: tuple[int, int]) -> Array:
    given = np.asarray(mask, np.float64)
    return given.repeat(sides[0] // given.shape[0], axis=0).repeat(sides[1] // given.shape[1], axis=1)
