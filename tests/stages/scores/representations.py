"""Codes made of known factors: the five representations of the golden table, and how they are drawn."""

from dataclasses import dataclass

import numpy as np

SIZES = (3, 4, 5, 6)
KINDS = ("identity", "twice", "constant", "rotated", "noise")


def standardised(levels: np.ndarray) -> np.ndarray:
    """Factors with mean 0 and variance 1 over their levels."""
    sizes = np.array(SIZES)
    return (levels - (sizes - 1) / 2) / np.sqrt((sizes**2 - 1) / 12)


def represent(kind: str, levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(n, d) codes. `rotated`: the first two factors by 45°, the others left."""
    z = standardised(levels)
    match kind:
        case "identity":
            return z
        case "twice":
            return np.concatenate([z, z], axis=1)
        case "constant":
            return np.concatenate([z, np.full((len(z), 1), 0.3)], axis=1)
        case "rotated":
            first, second = z[:, 0], z[:, 1]
            return np.column_stack([(first - second) / np.sqrt(2), (first + second) / np.sqrt(2), z[:, 2:]])
        case _:
            return rng.standard_normal(z.shape)


@dataclass(frozen=True)
class Drawn:
    """A sampler of one representation."""

    kind: str
    sizes: tuple[int, ...] = SIZES

    def codes(self, levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return represent(self.kind, levels, rng)


def rows(kind: str, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(codes, levels) of n independent draws."""
    levels = rng.integers(0, SIZES, (n, len(SIZES)))
    return represent(kind, levels, rng), levels
