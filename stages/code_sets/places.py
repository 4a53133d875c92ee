"""Where in a latent something may change: some layers, some channels, a region of cells, a mask over them.

The axis is declared (`LatentSpec.axes`), never guessed. What is not given holds everywhere; what is given holds together.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from schemas.codec import Axis, LatentSpec
from schemas.errors import Problem

Array = npt.NDArray[np.float64]
Mask = Sequence[Sequence[float]]

_WORDS = {"height": "rows of cells", "width": "columns of cells"}
_ORDER = {
    "region": "[top, left, bottom, right], with bottom and right beyond top and left",
    "layers": "[first, last], with last beyond first",
    "channels": "one or more indexes",
}
_DECLARE = "give the codec's LatentSpec `axes`, or leave this out"


def weights(
    spec: LatentSpec,
    *,
    layers: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
    region: Sequence[int] | None = None,
) -> Array:
    """1 for each number of a latent that may change, else 0, in the latent's shape. Only for what has no `place_problems`.

    `layers`: [first, last), `channels`: which, `region`: cells [top, left, bottom, right).
    """
    found = np.ones(spec.shape)
    for axis, (_, chosen) in _ranges(layers, channels, region).items():
        side = spec.named_axes.index(axis)
        found *= _along(spec, np.isin(np.arange(spec.shape[side]), chosen).astype(np.float64), (axis,))
    return found


def mask_weights(spec: LatentSpec, mask: Mask) -> Array:
    """How far each number of a latent may move, from 0 to 1, shaped to broadcast against it. Only for what has no `mask_problems`.

    `mask`: rows of numbers over height and width, each stretched over as many cells as it takes.
    """
    return _along(spec, _stretched(mask, _grid(spec)), ("height", "width"))


def place_problems(
    spec: LatentSpec,
    *,
    at: str,
    layers: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
    region: Sequence[int] | None = None,
) -> Iterator[Problem]:
    """What of these does not fit the latent; `at` names whose they are."""
    given = {"layers": layers, "channels": channels, "region": region}
    said = set()
    for axis, (name, chosen) in _ranges(layers, channels, region).items():
        value = list(given[name] or ())
        if axis not in spec.named_axes:
            problem = Problem(f"{at}.{name}", value, _lacking(spec, axis), _DECLARE)
        else:
            size = spec.shape[spec.named_axes.index(axis)]
            if chosen and all(0 <= i < size for i in chosen):
                continue
            words = _WORDS.get(axis, f"{axis}s")
            problem = Problem(f"{at}.{name}", value, f"there are {size} {words}.", f"stay within 0 to {size}")
            if not chosen:
                problem = Problem(f"{at}.{name}", value, f"it holds no {words}.", f"write {_ORDER[name]}")
        if problem.reason not in said:  # a region lacks its height and its width in one
            yield problem
        said.add(problem.reason)


def mask_problems(spec: LatentSpec, mask: Mask, *, at: str) -> Iterator[Problem]:
    """What of a mask does not fit the latent; `at` names it."""
    if not {"height", "width"} <= set(spec.named_axes):
        yield Problem(at, None, _lacking(spec, "height"), _DECLARE)
        return
    sides, size = _grid(spec), (len(mask), len(mask[0]) if mask else 0)
    if not all(size) or len({len(row) for row in mask}) > 1 or any(a % b for a, b in zip(sides, size, strict=True)):
        reason = f"a mask of {size[0]} rows by {size[1]} does not divide the latent's {sides[0]}×{sides[1]} places."
        yield Problem(at, None, reason, f"write {sides[0]} rows of {sides[1]} numbers, or a divisor of each")
    elif not all(0 <= value <= 1 for row in mask for value in row) or not any(map(any, mask)):
        yield Problem(at, None, "its numbers must be from 0 to 1, not all 0.", "write 1 where the picture should move")


def _ranges(
    layers: Sequence[int] | None, channels: Sequence[int] | None, region: Sequence[int] | None
) -> dict[Axis, tuple[str, Sequence[int]]]:
    """For each axis that is restricted: by which field, and to which places."""
    found: dict[Axis, tuple[str, Sequence[int]]] = {}
    if layers is not None:
        found["layer"] = "layers", range(layers[0], layers[1])
    if channels is not None:
        found["channel"] = "channels", channels
    if region is not None:
        top, left, bottom, right = region
        found |= {"height": ("region", range(top, bottom)), "width": ("region", range(left, right))}
    return found


def _lacking(spec: LatentSpec, axis: Axis) -> str:
    what = "height and width" if axis in ("height", "width") else f"{axis}s"
    return f"latents of shape {list(spec.shape)} ({', '.join(spec.named_axes) or 'undeclared'}) have no {what}."


def _grid(spec: LatentSpec) -> tuple[int, int]:
    named = spec.named_axes
    return spec.shape[named.index("height")], spec.shape[named.index("width")]


def _along(spec: LatentSpec, values: Array, axes: Sequence[Axis]) -> Array:
    """`values` over the named axes, shaped to broadcast against a latent."""
    places = [spec.named_axes.index(axis) for axis in axes]
    ordered = values.transpose(np.argsort(places))
    return ordered.reshape([side if i in places else 1 for i, side in enumerate(spec.shape)])


def _stretched(mask: Mask, sides: tuple[int, int]) -> Array:
    given = np.asarray(mask, np.float64)
    return given.repeat(sides[0] // given.shape[0], axis=0).repeat(sides[1] // given.shape[1], axis=1)
