"""Decode: codes in, the same codes with their pictures out.

A code without a latent keeps its row and has null `pixels`. So does one whose latent is not finite, or on which the codec
raises; its `flags` then say `non_finite` or `codec_error`.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from schemas.batches import picture_field
from schemas.codec import CodecSpec
from schemas.errors import FailureCode, JobError, SpaceMismatch
from schemas.tables import latent_spec
from stages.codecs.base import Codec
from stages.codecs.factory import open_codec
from stages.codecs.weights import Weights
from stages.columns import column_of
from stages.guarded import Guarded
from stages.tensors import tensor_of


class Decode:
    """Map stage: `codes_schema` batch → the same with a `pixels` column (uint8 H×W×3, shape in the field's metadata)."""

    def __init__(self, spec: CodecSpec, *, weights: Weights | None, allow_code: bool = False) -> None:
        self._spec = spec
        self._weights = weights
        self._allow_code = allow_code
        self._codec: Codec | None = None

    def open(self, device: str) -> None:
        """Builds the codec. Raises JobError when it does not fit its weights, or cannot decode."""
        codec = open_codec(self._spec, self._weights, device=device, allow_code=self._allow_code)
        if "decode" not in codec.can:
            raise JobError.one("codec.family", self._spec.family, "this codec cannot decode.", "remove the render step")
        self._codec = codec
        self._forward = Guarded(lambda latents: (codec.decode(latents),))

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Raises SpaceMismatch when the codes were made for another codec's latents."""
        assert self._codec is not None, "open() comes before the first batch"
        column, field = batch.column("latent"), batch.schema.field("latent")
        if (made_for := latent_spec(field)) != self._codec.latent:
            raise SpaceMismatch.one(
                "codes",
                str(made_for),
                f"the codec has {self._codec.latent}.",
                "make the codes from this codec's latents",
            )
        latents = tensor_of(column, field)
        known = column.is_valid().to_numpy(zero_copy_only=False)
        finite = torch.isfinite(latents).flatten(1).all(dim=1).numpy()
        good = np.flatnonzero(known & finite)
        outcome = self._forward(latents if len(good) == len(batch) else latents[torch.from_numpy(good)])
        flags = {int(row): FailureCode.NON_FINITE for row in np.flatnonzero(known & ~finite)}
        flags |= {int(good[at]): FailureCode.CODEC_ERROR for at in outcome.errors}
        if flags:
            batch = _flagged(batch, flags)
        pictures = picture_field(*self._codec.picture)
        pixels = _column(outcome.outputs, good[outcome.rows], len(batch), pictures)
        return pa.RecordBatch.from_arrays([*batch.columns, pixels], schema=batch.schema.append(pictures))


def _column(outputs: tuple[torch.Tensor, ...], rows: npt.NDArray[Any], total: int, field: pa.Field) -> pa.Array:
    """Pictures at `rows`, nulls elsewhere."""
    if not outputs:
        return pa.nulls(total, field.type)
    values = outputs[0].flatten(1).cpu().numpy()
    if len(rows) == total:
        return column_of(values, field)
    spread = np.zeros((total, field.type.list_size), dtype=np.uint8)
    spread[rows] = values
    valid = np.zeros(total, dtype=bool)
    valid[rows] = True
    return column_of(spread, field, valid=valid)


def _flagged(batch: pa.RecordBatch, new: dict[int, FailureCode]) -> pa.RecordBatch:
    """`flags` with the new ones added; only batches with a bad code pay for the loop."""
    at = batch.schema.get_field_index("flags")
    lists = batch.column(at).to_pylist()
    for row, flag in new.items():
        lists[row] = [*(f for f in lists[row] if f != flag), str(flag)]
    return batch.set_column(at, batch.schema.field(at), pa.array(lists, batch.schema.field(at).type))
