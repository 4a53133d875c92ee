"""Between FixedSizeList columns and matrices. Pictures and latents travel as columns; numpy works on rows.

A null row keeps its place on both sides, so row i of the matrix is always row i of the batch.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def matrix_of(column: pa.FixedSizeListArray) -> npt.NDArray[Any]:
    """The values of a FixedSizeList column as (rows, list size), without a copy; rows that are null hold anything."""
    size = column.type.list_size
    # `flatten()` would drop null rows and shift all that follow.
    values = column.values.slice(column.offset * size, len(column) * size)
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(column), size)


def column_of(
    matrix: npt.NDArray[Any], field: pa.Field, *, valid: npt.NDArray[np.bool_] | None = None
) -> pa.FixedSizeListArray:
    """(rows, list size) as a column of `field`'s type; rows where `valid` (rows,) is False become null."""
    values = pa.array(np.ascontiguousarray(matrix).reshape(-1), field.type.value_type)
    mask = None if valid is None or valid.all() else pa.array(~valid)
    return pa.FixedSizeListArray.from_arrays(values, type=field.type, mask=mask)
