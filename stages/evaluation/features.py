"""What one image's edits are, as numbers: everything an evaluation measures is a weighted mean of these over images.

Δ is a score of an edited picture less the score of the same image decoded unedited, so every number is paired. Pictures
count in units of 1 (black to white); a path is the pictures of one direction from the lowest strength to the highest, the
unedited one among them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from stages.attributes import Floats
from stages.evaluation.design import Box, Design

Sums = npt.NDArray[np.float64]
CODE_ROUNDING = 1e-6
"""Of a code's length: encoders answer in float32."""


@dataclass(frozen=True)
class Layout:
    """Where each feature lies among the columns of the sums: name → shape."""

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, design: Design) -> "Layout":
        k, a, j, s = len(design.edits), len(design.strengths), len(design.attributes), len(design.slices)
        return cls(
            (
                ("weight", ()),
                ("score", (j,)),  # unedited, about the state's origin
                ("square", (j,)),
                ("delta", (k, a, j)),
                ("moved", (k, a, j)),  # |Δ|
                ("hit", (k, a)),  # the target moved the way it was asked
                ("identity", (k, a)),
                ("beside", (k, a)),  # 1 where something stands beside the direction, which a cosine can be of
                ("inside", (k, a)),  # change of the picture inside the mask, and everywhere
                ("change", (k, a)),
                ("upward", (k,)),  # share of the steps along the path on which the target did not fall
                ("explained", (k,)),  # of Σ Δ² of the target, by a straight line of this image's own
                ("total", (k,)),
                ("moving", (k,)),  # 1 where the path changes the picture at all
                ("step_ratio", (k,)),
                ("bend", (k,)),
                ("slice", (s,)),
                ("slice_slope", (s, k, j)),
            )
        )

    @cached_property
    def width(self) -> int:
        return sum(int(np.prod(shape)) for _, shape in self.shapes)

    def pack(self, features: Mapping[str, Floats], rows: int) -> Sums:
        """(rows, width); every feature (rows, *shape)."""
        return np.concatenate([np.asarray(features[n], np.float64).reshape(rows, -1) for n, _ in self.shapes], axis=1)

    def place(self, name: str) -> slice:
        start = 0
        for other, shape in self.shapes:
            size = int(np.prod(shape))
            if other == name:
                return slice(start, start + size)
            start += size
        raise KeyError(name)

    def view(self, sums: Sums, name: str) -> Floats:
        """(replicates, *shape) of one feature."""
        shape = dict(self.shapes)[name]
        return sums[:, self.place(name)].reshape(len(sums), *shape)


def score_features(design: Design, scores: Floats, origin: Floats, slices: Floats) -> dict[str, Floats]:
    """scores: (n, 1 + k·a, J), the unedited picture first; slices: (n, S) of 0 and 1."""
    n, k, a = len(scores), len(design.edits), len(design.strengths)
    alphas = np.asarray(design.strengths)
    base = scores[:, 0]
    delta = (scores[:, 1:] - base[:, None]).reshape(n, k, a, -1)
    slope = np.einsum("nkaj,a->nkj", delta, alphas) / (alphas @ alphas)
    own = np.zeros((n, k, a))
    for i, target in enumerate(design.targets):
        if target is not None:
            own[:, i] = delta[:, i, :, target]
    path = np.insert(own, int(np.searchsorted(alphas, 0.0)), 0.0, axis=2)
    return {
        "weight": np.ones(n),
        "score": base - origin,
        "square": (base - origin) ** 2,
        "delta": delta,
        "moved": np.abs(delta),
        "hit": np.sign(alphas) * own > 0,
        "upward": (np.diff(path, axis=2) >= 0).mean(axis=2),
        "explained": (own @ alphas) ** 2 / (alphas @ alphas),
        "total": (own**2).sum(axis=2),
        "slice": slices,
        "slice_slope": slices[:, :, None, None] * slope[:, None],
    }


def picture_features(design: Design, pictures: torch.Tensor) -> dict[str, Floats]:
    """pictures: (n, 1 + k·a, height, width, 3) uint8 on any device, the unedited one first."""
    n, k, a = len(pictures), len(design.edits), len(design.strengths)
    found = {name: np.zeros((n, k)) for name in ("moving", "step_ratio", "bend")}
    found |= {name: np.zeros((n, k, a)) for name in ("inside", "change")}
    unedited = pictures[:, :1].float()
    for i, edit in enumerate(design.edits):
        moved = pictures[:, 1 + i * a : 1 + (i + 1) * a].float() - unedited
        if edit.mask is not None:
            change = moved.abs()
            rows, columns = _box(edit.mask, *pictures.shape[2:4])
            found["change"][:, i] = _numbers(change.sum(dim=(2, 3, 4))) / 255
            found["inside"][:, i] = _numbers(change[:, :, rows, columns].sum(dim=(2, 3, 4))) / 255
        flat = moved.flatten(2)
        _path_features(design, _numbers(flat @ flat.transpose(1, 2)) / 255**2, {n: f[:, i] for n, f in found.items()})
    return found


def _path_features(design: Design, products: Floats, into: Mapping[str, Floats]) -> None:
    """products: (n, a, a), inner products of the pictures' differences from the unedited one.

    Lengths of steps and of what changes between steps follow from these: the pictures are gone through once.
    """
    gaps = np.diff(design.path)
    middle = int(np.searchsorted(np.asarray(design.strengths), 0.0))
    steps = np.delete(np.diff(np.eye(len(design.path)), axis=0) / gaps[:, None], middle, axis=1)
    speed = _lengths(steps, products)
    mean = speed.mean(axis=1)
    moving = mean > 0
    safe = np.where(moving, mean, 1.0)
    into["moving"][:] = moving
    into["step_ratio"][:] = np.where(moving, speed.max(axis=1) / safe, 0.0)
    if len(steps) > 1:
        bend = _lengths(np.diff(steps, axis=0), products).mean(axis=1)
        into["bend"][:] = np.where(moving, bend / safe, 0.0)


def _lengths(combinations: Floats, products: Floats) -> Floats:
    """(n, c): lengths of c linear combinations (c, a) of vectors whose inner products are known."""
    squares = np.einsum("ca,nab,cb->nc", combinations, products, combinations)
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def identity_features(design: Design, encoded: Floats) -> dict[str, Floats]:
    """encoded: (n, 1 + k·a, d), the decoded pictures encoded again. Cosine to the unedited one, about the data's mean and
    without the part along the direction: what is left is what should have stayed. Where nothing but rounding is left (one
    number in all, a code at the mean) there is no cosine: 0 and not `beside`.
    """
    n, k, a = len(encoded), len(design.edits), len(design.strengths)
    cosine, beside = np.zeros((n, k, a)), np.zeros((n, k, a))
    for i, edit in enumerate(design.edits):
        codes = encoded[:, [0, *range(1 + i * a, 1 + (i + 1) * a)]]
        rounding = CODE_ROUNDING * (np.linalg.norm(codes, axis=2) + np.linalg.norm(edit.mean))
        here = codes - edit.mean
        here = here - (here @ edit.vector)[..., None] * edit.vector
        norm = np.linalg.norm(here, axis=2)
        left = norm > rounding
        beside[:, i] = left[:, :1] & left[:, 1:]
        product = np.where(beside[:, i] > 0, norm[:, :1] * norm[:, 1:], 1.0)
        cosine[:, i] = np.einsum("nad,nd->na", here[:, 1:], here[:, 0]) / product * beside[:, i]
    return {"identity": cosine, "beside": beside}


def _box(mask: Box, height: int, width: int) -> tuple[slice, slice]:
    top, left, bottom, right = mask
    return (
        slice(round(top * height), max(round(bottom * height), round(top * height) + 1)),
        slice(round(left * width), max(round(right * width), round(left * width) + 1)),
    )


def _numbers(values: torch.Tensor) -> Floats:
    return np.asarray(values.cpu().numpy(), np.float64)


def no_features(design: Design, names: Sequence[str], rows: int) -> dict[str, Floats]:
    """Zeros, for what is not asked."""
    shapes = dict(Layout.of(design).shapes)
    return {name: np.zeros((rows, *shapes[name])) for name in names}
