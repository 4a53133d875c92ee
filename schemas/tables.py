"""Arrow schemas of everything that stays: the tables of design §4, and the columns that they share with batches.

Latents are FixedSizeList columns (Arrow's own type, which Lance indexes); their shape is in field metadata. Ray Data's tensor
extension type is never used: Lance cannot index it.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.source import LabelType

PRIMARY_KEY = {b"lance-schema:unenforced-primary-key": b"true"}
COMPUTED = b"latentmill:computed"
TIMESTAMP = pa.timestamp("us", tz="UTC")
ARROW_LABEL: dict[LabelType, pa.DataType] = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "category": pa.string(),
}


def labels_type(labels: Mapping[str, LabelType]) -> pa.StructType:
    """Struct of nullable typed labels, in sorted order so that the type does not depend on a file's column order."""
    return pa.struct([pa.field(name, ARROW_LABEL[labels[name]], nullable=True) for name in sorted(labels)])


def label_types(struct: pa.StructType) -> dict[str, LabelType]:
    """The inverse of `labels_type`."""
    names: dict[pa.DataType, LabelType] = {v: k for k, v in ARROW_LABEL.items()}
    return {field.name: names[field.type] for field in struct}


def key_field() -> pa.Field:
    return pa.field("id", pa.string(), nullable=False, metadata=PRIMARY_KEY)


def latent_field(name: str, spec: LatentSpec, dtype: str) -> pa.Field:
    """A latent column: FixedSizeList of float16 or float32, with its shape, space and prior in the metadata."""
    meta = {
        b"shape": json.dumps(list(spec.shape)).encode(),
        b"space": spec.space.encode(),
        b"spec": spec.model_dump_json().encode(),
    }
    return pa.field(name, pa.list_(pa.float16() if dtype == "float16" else pa.float32(), spec.dim), metadata=meta)


def latent_spec(field: pa.Field) -> LatentSpec:
    """The LatentSpec that `latent_field` wrote into a field."""
    return LatentSpec.model_validate_json(field.metadata[b"spec"])


def codes_field(spec: LatentSpec) -> pa.Field:
    """The `codes` column of a discrete family: an index into its codebook for every token, int32; the grid in the metadata."""
    meta = {b"shape": json.dumps(list(spec.token_shape)).encode(), b"codebook": str(spec.codebook).encode()}
    return pa.field("codes", pa.list_(pa.int32(), math.prod(spec.token_shape)), metadata=meta)


def latents_schema(
    spec: LatentSpec, *, dtype: str, labels: pa.StructType | None, logvar: bool, metadata: Mapping[str, str]
) -> pa.Schema:
    """The latents table. `metadata` carries the fingerprint, the codec spec as given, and library versions."""
    fields = [
        key_field(),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("source_version", pa.string(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        latent_field("latent", spec, dtype),
        *([latent_field("logvar", spec, dtype)] if logvar else []),
        *([codes_field(spec)] if spec.codebook is not None else []),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        *([pa.field("labels", labels)] if labels is not None and len(labels) else []),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("encoded_at", TIMESTAMP, nullable=False),
    ]
    return pa.schema(fields, metadata=dict(metadata))


def computed_field(name: str, kind: pa.DataType, *, by: str) -> pa.Field:
    """A column that a step (`by`) computes for rows that are there already; null in rows that came later."""
    return pa.field(name, kind, metadata={COMPUTED: by.encode()})


def is_computed(field: pa.Field) -> bool:
    """Whether a step wrote this column beside what encoding writes."""
    return bool(field.metadata and COMPUTED in field.metadata)


FAILURES = pa.schema(
    [
        key_field(),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("source_version", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("error", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("at", TIMESTAMP, nullable=False),
    ]
)
"""Failures of one dataset under one fingerprint; an id leaves this table when a later run encodes it."""


def directions_schema() -> pa.Schema:
    """Directions of a store. `vector` is variable length here: codecs of different sizes share the table.

    `key` = fingerprint:name. `separation` is the distance between class means along the unit direction in pooled σ, with
    its interval; `auc` comes from held-out rows, with its interval; `standard_error` is per coordinate of `vector`'s raw form.
    `separation` comes from held-out rows too, unless none were held out. `message` says what `status` alone does not.
    """
    floats = pa.list_(pa.float64())
    return pa.schema(
        [
            pa.field("key", pa.string(), nullable=False, metadata=PRIMARY_KEY),
            pa.field("name", pa.string(), nullable=False),
            pa.field("dataset", pa.string(), nullable=False),
            pa.field("attribute", pa.string(), nullable=False),
            pa.field("attributes", pa.list_(pa.string())),
            pa.field("estimator", pa.string(), nullable=False),
            pa.field("space", pa.string(), nullable=False),
            pa.field("fingerprint", pa.string(), nullable=False),
            pa.field("status", pa.string(), nullable=False),
            pa.field("message", pa.string()),
            pa.field("vector", floats),  # unit length, so `latent` strengths are distances
            pa.field("raw_norm", pa.float64()),  # length of the fitted coefficients before they were made unit
            pa.field("standard_error", floats),
            pa.field("intercept", pa.float64()),  # score = vector·z·raw_norm + intercept, for classifiers
            pa.field("mean", floats),  # mean of the data, where projections are measured from
            pa.field("sigma", pa.float64()),  # std of the data along `vector`: one `sigma` of strength
            pa.field("n", pa.int64()),
            pa.field("n_positive", pa.int64()),
            pa.field("n_negative", pa.int64()),
            pa.field("separation", pa.float64()),
            pa.field("separation_low", pa.float64()),
            pa.field("separation_high", pa.float64()),
            pa.field("auc", pa.float64()),
            pa.field("auc_low", pa.float64()),
            pa.field("auc_high", pa.float64()),
            pa.field("confidence", pa.float64()),
            pa.field("dataset_version", pa.int64()),
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("at", TIMESTAMP, nullable=False),
        ]
    )


FIT_STATES = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False, metadata=PRIMARY_KEY),  # dataset:fingerprint:step:pass
        pa.field("about", pa.string(), nullable=False),  # fingerprint of the pass and its selection of rows
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("dataset_version", pa.int64(), nullable=False),
        pa.field("contents", pa.string(), nullable=False),  # fingerprint of the latents at that version
        pa.field("growth", pa.float64(), nullable=False),  # of rounding errors since all rows were read
        pa.field("state", pa.large_binary(), nullable=False),  # stages.directions.kept
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("at", TIMESTAMP, nullable=False),
    ]
)
"""Statistics of fits, so that the next one reads only what changed."""


RENDERS = pa.schema(
    [
        key_field(),  # <render step>/<code set>/<strip>[/<frame>]: the deterministic name of what was written
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("parents", pa.list_(pa.string()), nullable=False),
        pa.field("operation", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("strengths", pa.list_(pa.float64())),
        pa.field("unit", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("content_hash", pa.string()),
        pa.field("status", pa.string(), nullable=False),  # done, or the reason it could not be rendered
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        pa.field("recipe", pa.string(), nullable=False),  # fingerprint of codes + codec + layout: done already if equal
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("at", TIMESTAMP, nullable=False),
        # `moved` of every code in the picture, in order; null in rows that were written before there was this column
        computed_field("moved", pa.list_(pa.float64()), by="render"),
    ]
)

RUNS = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False, metadata=PRIMARY_KEY),
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),  # running, done, failed
        pa.field("job_given", pa.string(), nullable=False),
        pa.field("job_resolved", pa.string(), nullable=False),
        pa.field("versions", pa.string(), nullable=False),  # JSON: code and libraries
        pa.field("fingerprint", pa.string()),
        pa.field("tables", pa.string(), nullable=False),  # JSON: table → [version in, version out]
        pa.field("summary", pa.string(), nullable=False),  # JSON: counts and timings per step
        pa.field("message", pa.string()),
        pa.field("started_at", TIMESTAMP, nullable=False),
        pa.field("ended_at", TIMESTAMP),
    ]
)

CATALOG = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False, metadata=PRIMARY_KEY),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("table", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field(
            "token", pa.int64(), nullable=False
        ),  # of the lease it was swapped under: an older one cannot swap back
        pa.field("at", TIMESTAMP, nullable=False),
    ]
)

CATALOG_HISTORY = pa.schema(
    [pa.field("key", pa.string(), nullable=False, metadata=PRIMARY_KEY), *(f.remove_metadata() for f in CATALOG)]
)
"""Every state a dataset's catalog row was given; `key` = dataset/token/table/version."""

LEASES = pa.schema(
    [
        pa.field("dataset", pa.string(), nullable=False, metadata=PRIMARY_KEY),
        pa.field("token", pa.int64(), nullable=False),  # the fencing token: grows by one with every new holder
        pa.field("holder", pa.string(), nullable=False),  # empty when free
        pa.field("host", pa.string(), nullable=False),
        pa.field("pid", pa.int64(), nullable=False),
        pa.field("process", pa.string(), nullable=False),  # boot, PID namespace and start time, to see a holder's death
        pa.field("since", TIMESTAMP, nullable=False),
        pa.field("expires", TIMESTAMP, nullable=False),
    ]
)


def with_shape(field: pa.Field) -> tuple[int, ...]:
    """The shape that a FixedSizeList field carries in its metadata."""
    shape: list[Any] = json.loads(field.metadata[b"shape"])
    return tuple(int(s) for s in shape)
