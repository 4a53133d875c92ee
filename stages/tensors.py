"""FixedSizeList columns as torch tensors, without a copy: a batch of pictures or latents is a view of Arrow's buffer."""

import pyarrow as pa
import torch
from torch.utils import dlpack

from schemas.tables import with_shape


def tensor_of(column: pa.FixedSizeListArray, field: pa.Field) -> torch.Tensor:
    """(rows, *shape) over the column's own memory: never write into it. The shape is in `field`'s metadata.

    A row that is null keeps its place and holds anything.
    """
    size = column.type.list_size
    # DLPack, because torch.from_numpy warns of every read-only buffer.
    flat = dlpack.from_dlpack(column.values.slice(column.offset * size, len(column) * size))
    return flat.view(len(column), *with_shape(field))
