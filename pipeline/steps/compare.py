"""The compare step: this job's codec against another one's latents of the same images, and directions carried over.

The other codec is never run: its latents and its directions are in the store. Directions that cannot be carried over are
stored all the same, without a vector and with the reason, so whoever asks for one is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.codec import CodecRef
from pipeline.context import Context
from pipeline.directions import store_directions
from pipeline.measurements import store_measurements
from pipeline.selection import no_row_left, selection_clause
from pipeline.steps.fit import drive
from pipeline.store.store import Store
from schemas.codec import LatentSpec
from schemas.errors import JobError
from schemas.job import Job
from schemas.measurements import Measurement
from schemas.steps import CompareStep
from schemas.tables import latent_spec

if TYPE_CHECKING:
    from stages.comparison.compare import Comparison
    from stages.directions.direction import Direction

MAX_COMPARED = 4096
"""Numbers of both latents together; `stages.comparison.paired.MAX_DIM`, known here without loading it."""
PORTED = "ported"


@dataclass(frozen=True)
class OtherCodec:
    """A codec of which the store holds latents of the dataset."""

    fingerprint: str
    latent: LatentSpec


def compare_codecs(step: CompareStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns how many images both codecs have, the verdict, and how many directions were carried over."""
    from pipeline.joined import JoinedSplits, Side, join
    from pipeline.row_cosines import CosineColumn
    from stages.comparison.compare import Settings, compare

    other = other_codec(step, ctx.store, ctx.job, here=ctx.codec)
    mine, theirs = ctx.latents, ctx.store.latents(ctx.job.dataset, other.fingerprint)
    version = mine.version
    ours = Side(mine, version, selection_clause(step, mine, version))
    others = Side(theirs, theirs.version)
    if not mine.count_rows(ours.where, version):
        raise no_row_left(step, to=" to compare")
    pairs = join(ours, others, ctx.work_url(f"{step.name}.arrow"), options=ctx.file_options)
    if not pairs.rows:
        reason = f"has latents of none of the images that are selected from {mine.name}."
        raise JobError.one(
            f"{step.name}.fingerprint", other.fingerprint[:16], reason, "encode the same images with both"
        )
    ctx.started_step(step, total=pairs.rows)
    settings = Settings(
        dim=ctx.codec.latent.dim,
        other=other.latent.dim,
        holdout=step.holdout,
        permutations=step.permutations,
        max_disparity=step.max_disparity,
        replicates=step.replicates,
        confidence=step.confidence,
        seed=step.seed,
    )
    splits = JoinedSplits(pairs, ours, others, settings.dim + settings.other)
    column = CosineColumn(step, ctx)
    found: Comparison = drive(compare(settings), ctx.executor, splits, reduce=column.reduce)
    column.put(version)
    directions, measured = _ported(step, ctx, other, found)
    if directions:
        store_directions(ctx, directions, version=version)
    about = Measurement(
        "compared",
        float(pairs.rows),
        subject=other.fingerprint,
        n=pairs.rows,
        status=found.status,
        message=found.message,
    )
    said = f"each image's own: column {step.cosine_column}" if column.urls else ""
    listed = [replace(m, message=said) if m.metric == "row_cosine" else m for m in found.measurements]
    store_measurements(step, ctx, [about, *listed, *measured], version=version)
    ctx.progress(step, computed=pairs.rows, committed=pairs.rows, failed=0, total=pairs.rows)
    if found.message:
        ctx.notice(f"{step.name}: {found.status}, {found.message}")
    carried = sum(d.status == "ok" for d in directions.values())
    return {
        "rows": pairs.rows,
        "with": other.fingerprint[:16],
        "status": found.status,
        "message": found.message,
        "ported": carried,
        "refused": len(directions) - carried,
        "columns": [step.cosine_column] if column.urls else [],
    }


def other_codec(step: CompareStep, store: Store, job: Job, *, here: CodecRef) -> OtherCodec:
    """The other codec of a compare step. Raises JobError when the store holds no latents of it, or of more than one."""
    if step.codec is not None:
        found = [CodecRef.resolve(step.codec, allow_code=job.allow_code).fingerprint]
        at, value = "codec", found[0][:16]
    else:
        at, value = "fingerprint", str(step.fingerprint)
        found = sorted({p for p in _fingerprints(store, job.dataset) if p.startswith(value)})
    found = [p for p in found if store.latents(job.dataset, p).exists()]
    if not found:
        known = ", ".join(sorted(p[:16] for p in _fingerprints(store, job.dataset) if p != here.fingerprint)) or "none"
        reason = f"the store has no latents of dataset {job.dataset} by this codec."
        raise JobError.one(at, value, reason, f"encode with it first; codecs there are: {known}")
    if len(found) > 1:
        raise JobError.one(
            at, value, f"fits {len(found)} codecs.", f"say more of it: {', '.join(p[:20] for p in found)}"
        )
    if found[0] == here.fingerprint:
        raise JobError.one(at, value, "is this job's own codec.", "name the other one")
    schema = store.latents(job.dataset, found[0]).schema
    return OtherCodec(found[0], latent_spec(schema.field("latent")))


def ported_name(step: CompareStep, name: str) -> str:
    """`ported.smiling`, or `STEP.smiling` of a step that was given a name."""
    return f"{PORTED if step.name in (None, 'compare') else step.name}.{name}"


def _fingerprints(store: Store, dataset: str) -> set[str]:
    """Codecs that runs on this dataset have used."""
    runs = store.runs()
    if not runs.exists():
        return set()
    where = f"dataset = '{dataset}' AND fingerprint IS NOT NULL"
    return {row["fingerprint"] for b in runs.scan(["fingerprint"], where=where) for row in b.to_pylist()}


def _ported(
    step: CompareStep, ctx: Context, other: OtherCodec, found: "Comparison"
) -> "tuple[dict[str, Direction], list[Measurement]]":
    table = ctx.store.directions()
    if not table.exists():
        return {}, []
    columns = ["name", "attribute", "attributes", "status", "vector", "raw_norm", "intercept", "estimator"]
    where = f"dataset = '{ctx.job.dataset}' AND fingerprint = '{other.fingerprint}' AND status = 'ok'"
    rows = [r for b in table.scan(columns, where=where) for r in b.to_pylist()]
    wanted = rows if step.directions == "all" else [r for r in rows if r["name"] in step.directions]
    directions, measured = {}, []
    for row in sorted(wanted, key=lambda r: str(r["name"])):
        direction, said = _port(step, other, found, row)
        directions[ported_name(step, row["name"])] = direction
        measured.append(said)
    return directions, measured


def _port(
    step: CompareStep, other: OtherCodec, found: "Comparison", row: Mapping[str, Any]
) -> "tuple[Direction, Measurement]":
    from stages.comparison.compare import REFUSED, agreement, tails_of
    from stages.comparison.port import port
    from stages.directions.direction import Direction

    shared = {"attribute": row["attribute"], "attributes": tuple(row["attributes"] or ()), "estimator": PORTED}
    origin = f"from codec {other.fingerprint[:16]}, fitted there as {row['estimator']}"
    name = ported_name(step, row["name"])
    ported, tails, vector = None, 1.0, np.array(row["vector"], np.float64)
    if found.status == "ok":
        assert found.alignment is not None and found.everything is not None and found.held_out is not None
        ported = port(
            vector,
            found.alignment,
            everything=found.everything,
            held_out=found.held_out,
            raw_norm=row["raw_norm"],
            intercept=row["intercept"],
        )
    if ported is None or found.everything is None or found.held_out is None:
        why = found.message or "this space has nothing along it"
        direction = Direction(status=REFUSED, message=f"{origin}; {why}", confidence=step.confidence, **shared)
        return direction, Measurement("ported_agreement", subject=name, status=REFUSED, message=why)
    if found.sample is not None:
        x, y = np.split(found.sample.astype(np.float64), [len(ported.vector)], axis=1)
        tails = tails_of(x @ ported.vector, y @ vector)
    said = agreement(
        ported.agreement, found.held_out.n, subject=name, kept=ported.kept, confidence=step.confidence, tails=tails
    )
    if said.status == REFUSED:
        why = f"{origin}; {said.message}"
        return Direction(status=REFUSED, message=why, confidence=step.confidence, **shared), said
    direction = Direction(
        status="ok",
        message=origin,
        confidence=step.confidence,
        vector=ported.vector,
        raw_norm=ported.raw_norm,
        intercept=ported.intercept,
        mean=found.everything.x_mean,
        sigma=ported.sigma,
        n=found.everything.n,
        **shared,
    )
    return direction, said
