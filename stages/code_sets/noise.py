"""Random numbers of code sets: one stream a row, named by the row and the step, so no batch and no worker changes a draw."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schemas.identity import row_seed


def streams(names: Sequence[str], *, step: str, seed: int) -> list[np.random.Generator]:
    """One generator a name. A longer use of a stream begins with the same numbers as a shorter one."""
    return [np.random.Generator(np.random.Philox(row_seed(name, step, seed))) for name in names]


def normal_rows(rows: Sequence[np.random.Generator], dim: int) -> npt.NDArray[np.float64]:
    """The next `dim` standard normal numbers of every stream, (n, dim)."""
    return np.array([stream.standard_normal(dim) for stream in rows]).reshape(len(rows), dim)


def draw_name(seq: int) -> str:
    """What a draw without parents is called: its place in the code set."""
    return f"draw {seq}"
