"""Arrow schemas of what moves: the batches between stages, from one listed image to its latent, and from codes to pictures.

Pictures and latents travel as FixedSizeList columns; their shape is in field metadata.
"""

import json

import pyarrow as pa

from schemas.codec import LatentSpec
from schemas.tables import latent_field


def listing_schema() -> pa.Schema:
    """One listed image, before anything is read.

    `uri` names the object that holds the bytes. `offset` and `length` cut a byte range out of it (tar members), `row` a
    row of a Parquet file; null for whole files. `size` is the encoded size in bytes where the listing tells it.
    """
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("source_version", pa.string(), nullable=False),
            pa.field("size", pa.int64()),
            pa.field("offset", pa.int64()),
            pa.field("row", pa.int64()),
        ]
    )


def work_schema(labels: pa.StructType | None) -> pa.Schema:
    """A listed image that is to be done: its place `seq` in this run's work, and its labels.

    `label_error` is set when a label could not be read as its declared type: the image becomes a failure row.
    """
    fields = [pa.field("seq", pa.int64(), nullable=False), *listing_schema(), pa.field("label_error", pa.string())]
    return pa.schema(fields + ([pa.field("labels", labels)] if labels is not None and len(labels) else []))


def pixels_schema(height: int, width: int, labels: pa.StructType | None) -> pa.Schema:
    """A decoded image in the codec's size: uint8 RGB, row-major H×W×3. `error` is set, and `pixels` zero, for a bad row."""
    return pa.schema(
        [
            pa.field("seq", pa.int64(), nullable=False),
            pa.field("id", pa.string(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            pa.field("source_version", pa.string(), nullable=False),
            pa.field("content_hash", pa.string()),
            pa.field("width", pa.int32()),
            pa.field("height", pa.int32()),
            pa.field("error", pa.string()),
            pa.field("message", pa.string()),
            picture_field(height, width),
            *([pa.field("labels", labels)] if labels is not None and len(labels) else []),
        ]
    )


def picture_field(height: int, width: int) -> pa.Field:
    """The `pixels` column: uint8 RGB, row-major H×W×3, its shape in the metadata."""
    shape = json.dumps([height, width, 3]).encode()
    return pa.field("pixels", pa.list_(pa.uint8(), height * width * 3), metadata={b"shape": shape})


def encoded_schema(latents: pa.Schema) -> pa.Schema:
    """What the encode stage hands to the writer: the latents columns (nullable) with `seq`, `error` and `message` in front.

    Rows with an `error` go to failures, the others to latents.
    """
    status = [
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
    ]
    return pa.schema(status + [f.with_nullable(True) if f.name != "id" else f for f in latents])


def codes_schema(spec: LatentSpec) -> pa.Schema:
    """Codes of a code set, expanded in a worker: what a render decodes.

    `id` is `<code set>/<strip>/<frame>` made safe for paths; `seq` alone says which picture a code belongs to (stages/code_sets/codes.py).
    `strength` is what was asked, `moved` what was done: the length ‖z′ − z‖ of the step from the row's own latent (an analogy's c, a
    walk's start), in latent units, after any clipping or calibration; null where a code is no step from one latent (interpolations, draws).
    `flags` names what is odd about a code (`clipped`, `antipodal`, …), empty when nothing is. `latent` is null for a code that
    could not be made: decoding passes it on with null `pixels`, and its renders row says why.
    """
    return pa.schema(
        [
            pa.field("seq", pa.int64(), nullable=False),
            pa.field("id", pa.string(), nullable=False),
            pa.field("parents", pa.list_(pa.string()), nullable=False),
            pa.field("operation", pa.string(), nullable=False),  # canonical JSON of the step, without strengths
            pa.field("strip", pa.string(), nullable=False),
            pa.field("frame", pa.int32(), nullable=False),
            pa.field("frames", pa.int32(), nullable=False),
            pa.field(
                "title", pa.string(), nullable=False
            ),  # what changes along the strip: a direction's name, or the path's method
            pa.field("strength", pa.float64()),
            pa.field("unit", pa.string()),
            pa.field("moved", pa.float64()),
            pa.field("flags", pa.list_(pa.string()), nullable=False),
            latent_field("latent", spec, "float32"),
        ]
    )
