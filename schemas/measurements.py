"""Measurements: what diagnose, evaluate, compare and their like find out, a number a row, in one table of the store.

One long table rather than one a stage: a new measure needs no new schema, and every number has its interval, its n and
its reason in the same place.
"""

from dataclasses import dataclass

import pyarrow as pa

from schemas.tables import PRIMARY_KEY, TIMESTAMP

OK = "ok"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number about a codec, a direction or a dataset.

    `metric`: what was measured (`active_units`, `effect`, `mig`). `subject`: of what (a direction, a coordinate; empty: of
    the whole dataset). `target`: on what (an attribute, a slice). `low`, `high`: its interval. `threshold`: the value it was
    held against. `status`: `ok`, or a typed reason why `value` is missing or flagged. `detail`: JSON, for curves and
    histograms.
    """

    metric: str
    value: float | None = None
    subject: str = ""
    target: str = ""
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: str = ""
    threshold: float | None = None
    status: str = OK
    message: str = ""
    detail: str = ""


MEASUREMENTS = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False, metadata=PRIMARY_KEY),  # run/step/metric/subject/target
        pa.field("dataset", pa.string(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("step", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("dataset_version", pa.int64(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("n", pa.int64()),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("threshold", pa.float64()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("at", TIMESTAMP, nullable=False),
    ]
)
