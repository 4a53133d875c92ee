"""The measurements table: written by measuring steps, read by the command line and by the report."""

from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.context import Context
from pipeline.store.store import Store
from schemas.measurements import MEASUREMENTS, Measurement
from schemas.steps import Step

FIGURE = {"": "value", "_low": "low", "_high": "high", "_status": "status", "_message": "message"}
"""Ends of the names of a figure and of what belongs to it, and where a measurement has them."""
RESAMPLED = ("angle", "stability")
"""What a fit measures beside its directions, each of which the report and the command line show with its direction."""
_NAMES = [f.name for f in fields(Measurement)]


def store_measurements(step: Step, ctx: Context, found: Iterable[Measurement], *, version: int) -> None:
    """Writes what `step` found on `version` of the latents; the same step of the same run replaces what it wrote.

    Raises LeaseLost when another run has taken the dataset over.
    """
    ctx.lease.confirm()
    shared = {
        "dataset": ctx.job.dataset,
        "fingerprint": ctx.codec.fingerprint,
        "run_id": ctx.run_id,
        "step": str(step.name),
        "stage": step.stage,
        "dataset_version": version,
        "at": datetime.now(UTC),
    }
    rows = []
    for one in found:
        key = "/".join((ctx.run_id, str(step.name), one.metric, one.subject, one.target))
        rows.append(asdict(one) | shared | {"key": key})
    if rows:
        ctx.store.measurements().upsert(pa.Table.from_pylist(rows, MEASUREMENTS))


def left_out(count: int, reason: str, *, n: int, subject: str = "") -> list[Measurement]:
    """What `count` rows beside the `n` measured ones lacked, as a measurement with the status `reason`; none of no rows."""
    return [Measurement("left_out", float(count), subject, reason, n=n, status=reason)] if count else []


def store_non_finite(step: Step, ctx: Context, count: int, *, of: str, n: int, version: int) -> None:
    """Writes that `count` rows without a finite latent are not in what `n` rows made: the `of` behind a code set.

    A page that is drawn again writes nothing: its run has stored the count.
    """
    if count and ctx.pinned is None:
        store_measurements(step, ctx, left_out(count, "non_finite", n=n, subject=of), version=version)


def read_measurements(ctx: Context) -> dict[tuple[str, str], list[Measurement]]:
    """What the run's steps found: (step, stage) → measurements, in the order they were written."""
    table = ctx.store.measurements()
    found: dict[tuple[str, str], list[Measurement]] = {}
    if table.exists():
        for batch in table.scan(["step", "stage", *_NAMES], where=f"run_id = '{ctx.run_id}'"):
            for row in batch.to_pylist():
                of = (row.pop("step"), row.pop("stage"))
                found.setdefault(of, []).append(Measurement(**row))
    return found


def resampled_fits(store: Store, where: str) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """By run and direction name what resampling its fit told: `angle` to the truth in degrees, and `stability`.

    Of each `value`, `low`, `high`, `status` and `message`; empty where the fit was not resampled.
    """
    table = store.measurements()
    found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    if table.exists():
        columns = ["run_id", "step", "subject", "metric", "value", "low", "high", "status", "message"]
        told = ", ".join(f"'{metric}'" for metric in RESAMPLED)
        for batch in table.scan(columns, where=f"{where} AND stage = 'fit' AND metric IN ({told})"):
            for row in batch.to_pylist():
                of = (row["run_id"], named(row["step"], row["subject"]))
                found.setdefault(of, {})[row["metric"]] = row
    return found


def named(step: str | None, attribute: str) -> str:
    """The name of a fitted direction: `smiling`, or `myfit.smiling` when the step was given a name of its own."""
    return attribute if step in (None, "fit") else f"{step}.{attribute}"
