"""Encode: pictures in, posterior means out, and a reason for every row that has none.

Rows keep their order. A row that arrives with an error keeps it; one whose latent is not finite in the table's dtype gets
`non_finite`; one on which the codec raises gets `codec_error`. Columns are built whole, never row by row.
"""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from schemas.batches import encoded_schema
from schemas.codec import CodecSpec, LatentSpec
from schemas.errors import FailureCode, JobError, SpaceMismatch
from schemas.tables import latent_spec
from stages.codecs.factory import open_codec
from stages.codecs.weights import Weights
from stages.columns import column_of
from stages.guarded import Guarded, Outcome
from stages.tensors import tensor_of

Failures = dict[int, str]
STORED = {pa.float16(): torch.float16, pa.float32(): torch.float32, pa.int32(): torch.int32}


class Encode:
    """Map stage: `pixels_schema` batch → `encoded_schema(latents)` batch of the same rows.

    `latents` is the schema of the latents table: its dtype and its `logvar` column decide what is kept. `encoded_at` None
    stamps each batch with the clock; a fixed time makes two runs equal to the byte.
    """

    def __init__(
        self,
        spec: CodecSpec,
        *,
        weights: Weights | None,
        latents: pa.Schema,
        run_id: str,
        encoded_at: datetime | None = None,
        allow_code: bool = False,
    ) -> None:
        self._spec = spec
        self._weights = weights
        self._schema = encoded_schema(latents)
        self._run_id = run_id
        self._encoded_at = encoded_at
        self._allow_code = allow_code
        self._names = [name for name in ("latent", "logvar", "codes") if name in latents.names]
        self._forward: Guarded | None = None

    def open(self, device: str) -> None:
        """Builds the codec. Raises JobError when it does not fit its weights, SpaceMismatch when not the table."""
        codec = open_codec(self._spec, self._weights, device=device, allow_code=self._allow_code)
        if "encode" not in codec.can:
            raise JobError.one("codec.family", self._spec.family, "this codec cannot encode.", "use another codec")
        stored = latent_spec(self._schema.field("latent"))
        if codec.latent != stored:
            raise SpaceMismatch.one(
                "codec",
                f"{self._spec.family} {codec.latent}",
                f"the table holds {stored}.",
                "encode into a table made for this codec",
            )

        def posterior(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
            encoded = codec.encode(pixels)
            made = {"latent": encoded.mean, "logvar": encoded.logvar, "codes": encoded.codes}
            return tuple(_made(name, made[name], codec.latent) for name in self._names)

        self._forward = Guarded(posterior)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        assert self._forward is not None, "open() comes before the first batch"
        good = np.flatnonzero(pc.is_null(batch.column("error")).to_numpy(zero_copy_only=False))
        pixels = tensor_of(batch.column("pixels"), batch.schema.field("pixels"))
        outcome = self._forward(pixels if len(good) == len(batch) else pixels[torch.from_numpy(good)])
        rows = good[outcome.rows]
        raised = {int(good[at]): text for at, text in outcome.errors.items()}
        latents, non_finite = self._latents(outcome, rows, len(batch))
        now = self._encoded_at or datetime.now(UTC)
        columns = {name: batch.column(name) for name in self._schema.names if name in batch.schema.names}
        columns |= latents | {"run_id": self._every_row(batch, self._run_id, "run_id")}
        columns |= {"encoded_at": self._every_row(batch, now, "encoded_at")}
        for code, failures in ((FailureCode.CODEC_ERROR, raised), (FailureCode.NON_FINITE, non_finite)):
            if failures:
                columns |= _with_failures(columns, code, failures)
        return pa.RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)

    def _latents(self, outcome: Outcome, rows: npt.NDArray[Any], total: int) -> tuple[dict[str, pa.Array], Failures]:
        """The latent columns of all `total` rows, null where there is no finite latent, and what is wrong with which row."""
        valid = np.zeros(total, dtype=bool)
        valid[rows] = True
        failures: Failures = {}
        values: dict[str, npt.NDArray[Any]] = {}
        for name, tensor in zip(self._names, outcome.outputs, strict=False):
            dtype = self._schema.field(name).type.value_type
            values[name] = _as_stored(tensor, dtype)
            bad = rows[~np.isfinite(values[name]).all(axis=1)]
            valid[bad] = False
            hint = "; latent_dtype: float32 holds larger numbers" if dtype == pa.float16() else ""
            failures |= {int(row): f"the codec's {name} is NaN or infinite in {dtype}{hint}" for row in bad}
        columns = {}
        for name in self._names:
            field = self._schema.field(name)
            if name not in values:  # not one row of the batch came through
                columns[name] = pa.nulls(total, field.type)
                continue
            spread = values[name]
            if len(rows) < total:
                spread = np.zeros((total, field.type.list_size), dtype=spread.dtype)
                spread[rows] = values[name]
            columns[name] = column_of(spread, field, valid=valid)
        return columns, failures

    def _every_row(self, batch: pa.RecordBatch, value: Any, name: str) -> pa.Array:
        return pa.repeat(pa.scalar(value, self._schema.field(name).type), len(batch))


def _made(name: str, tensor: torch.Tensor | None, spec: LatentSpec) -> torch.Tensor:
    """What the codec made, held against what it declares. Raises ValueError: a row whose codes are not in the codebook fails."""
    if tensor is None:
        raise ValueError(f"the codec declares {name} and gave none")
    if name == "codes" and len(wrong := tensor[(tensor < 0) | (tensor >= (spec.codebook or 0))]):
        raise ValueError(f"code {int(wrong[0])} is not in the codebook of {spec.codebook}")
    return tensor


def _as_stored(tensor: torch.Tensor, dtype: pa.DataType) -> npt.NDArray[Any]:
    """(n, dim) in the table's dtype. Overflow becomes infinity here, so it is seen."""
    return tensor.to("cpu", STORED[dtype]).flatten(1).numpy()


def _with_failures(columns: dict[str, pa.Array], code: FailureCode, failures: Failures) -> dict[str, pa.Array]:
    """`error` and `message` with the new failures put in; messages name the file."""
    at = sorted(failures)
    mask = np.zeros(len(columns["error"]), dtype=bool)
    mask[at] = True
    uris = columns["uri"].take(pa.array(at)).to_pylist()
    messages = [f"{uri}: {failures[row]}" for row, uri in zip(at, uris, strict=True)]
    return {
        "error": pc.replace_with_mask(columns["error"], pa.array(mask), pa.array([str(code)] * len(at), pa.string())),
        "message": pc.replace_with_mask(columns["message"], pa.array(mask), pa.array(messages, pa.string())),
    }
