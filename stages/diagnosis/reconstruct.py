"""How well the codec brings a picture back: the root mean square difference of D(E(x)) from x, in grey levels."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from schemas.codec import CodecSpec
from schemas.errors import JobError
from stages.codecs.factory import open_codec
from stages.codecs.weights import Weights
from stages.guarded import Guarded
from stages.tensors import tensor_of

RECONSTRUCTED = pa.schema([pa.field("seq", pa.int64(), nullable=False), pa.field("error", pa.float32())])
"""`error` is null for a picture that could not be read, encoded or decoded."""


class Reconstruct:
    """Map stage: `pixels_schema` batch → `RECONSTRUCTED` rows."""

    def __init__(self, spec: CodecSpec, *, weights: Weights | None, allow_code: bool = False) -> None:
        self._spec, self._weights, self._allow_code = spec, weights, allow_code
        self._forward: Guarded | None = None

    def open(self, device: str) -> None:
        """Raises JobError when the codec cannot both encode and decode."""
        codec = open_codec(self._spec, self._weights, device=device, allow_code=self._allow_code)
        if not {"encode", "decode"} <= codec.can:
            fix = "leave reconstruction out of scores"
            raise JobError.one("codec.family", self._spec.family, "this codec cannot bring pictures back.", fix)

        def errors(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            back = codec.decode(codec.encode(pixels).mean)
            difference = back.to(torch.float32) - pixels.to(back.device, torch.float32)
            return ((difference**2).flatten(1).mean(1).sqrt(),)

        self._forward = Guarded(errors)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        assert self._forward is not None, "open() comes before the first batch"
        good = np.flatnonzero(pc.is_null(batch.column("error")).to_numpy(zero_copy_only=False))
        pixels = tensor_of(batch.column("pixels"), batch.schema.field("pixels"))
        outcome = self._forward(pixels[torch.from_numpy(good)])
        errors = np.full(len(batch), np.nan, np.float32)
        if outcome.outputs:
            errors[good[outcome.rows]] = outcome.outputs[0].cpu().numpy()
        values = pa.array(errors, mask=~np.isfinite(errors))
        return pa.RecordBatch.from_arrays([batch.column("seq"), values], schema=RECONSTRUCTED)
