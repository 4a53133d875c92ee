"""Gathers what a report shows: tables, weights' history, a few strips decoded anew. Drawing is `stages.report`'s.

Everything gathered is bounded by what one page shows: a few rows a code set, a few examples a failure code.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, cast, get_args

import numpy as np

from pipeline import artifacts
from pipeline.code_set import CodeSet
from pipeline.codec import weights_url
from pipeline.context import Context
from pipeline.measurements import FIGURE, RESAMPLED, named, read_measurements, resampled_fits
from pipeline.store.table import Table
from pipeline.summary_line import summary_line
from pipeline.thumbnails import picture_of
from schemas.steps import CodeSetStep, ComponentEstimator
from schemas.tables import directions_schema
from stages.codecs.base import Codec
from stages.codecs.factory import open_codec
from stages.render_plan import Code, codes_of
from stages.report.data import (
    Counts,
    Curve,
    DirectionEvidence,
    FailureExample,
    FailureGroup,
    LineChart,
    Measured,
    Picture,
    ReportData,
    StepTiming,
    Strip,
    StripTable,
)
from stages.report.paths import found_in_words
from stages.report.strips import moved_in_words

EXAMPLES = 3
PREVIEW_BYTES = 2**18
HISTORY = "history.json"
SHEET = 4
"""Times as many draws as strips are shown where a draw is one picture."""


def gather(ctx: Context, *, rows: int, given: str, versions: dict[str, str]) -> ReportData:
    """Everything about this run and its dataset that the page shows. `rows`: strips a direction."""
    fitted = list(_directions(ctx))
    return ReportData(
        dataset=ctx.job.dataset,
        codec_family=ctx.codec.spec.family,
        fingerprint=ctx.codec.fingerprint,
        run_id=ctx.run_id,
        state="done",
        started_at=datetime.fromtimestamp(ctx.started, UTC),
        counts=_counts(ctx.summary),
        figures=_figures(ctx.summary),
        strips=tuple(_strip_tables(ctx, rows)),
        directions=tuple(evidence for _, evidence in fitted),
        failures=tuple(_failures(ctx)),
        charts=tuple(_loss(ctx)),
        measured=tuple(_measured(ctx, shown={d.name for run, d in fitted if run == ctx.run_id})),
        timings=tuple(_timings(ctx.summary)),
        notices=tuple(ctx.notices),
        job_yaml=given,
        versions=versions,
    )


def _counts(summary: dict[str, dict[str, Any]]) -> Counts | None:
    found = next((c for c in summary.values() if c["stage"] == "encode"), None)
    if found is None:
        return None
    rate = found["encoded"] / found["seconds"] if found["encoded"] else None
    already = found["in_latents"] - found["encoded"]
    return Counts(found["listed"], found["encoded"], found["in_failures"], already, found["seconds"], rate)


def _figures(summary: dict[str, dict[str, Any]]) -> dict[str, str]:
    found = next((c for c in summary.values() if c["stage"] == "index"), None)
    return {f"recall@10, {found['kind']}": f"{found['recall']:.3f}"} if found else {}


def _strip_tables(ctx: Context, rows: int) -> Iterator[StripTable]:
    if not ctx.code_sets:
        return
    codec = open_codec(ctx.codec.spec, ctx.codec.load(), device="cpu", allow_code=ctx.codec.allow_code)
    for step in ctx.job.steps:
        code_set = ctx.code_sets.get(str(step.name))
        if code_set is not None:
            yield from _tables_of(ctx, cast(CodeSetStep, step), code_set, codec, rows)


def _tables_of(ctx: Context, step: CodeSetStep, code_set: CodeSet, codec: Codec, rows: int) -> Iterator[StripTable]:
    """One table a direction; the strips of any other step are one table."""
    rows *= SHEET if code_set.stage.frames == 1 and not code_set.stage.parents else 1
    codes = list(codes_of(code_set.expand(0, min(rows, code_set.selection.rows), first_seq=0)))
    frames = code_set.stage.frames
    strips = [codes[i : i + frames] for i in range(0, len(codes), frames)]
    for title in dict.fromkeys(strip[0].title for strip in strips):
        mine = [strip for strip in strips if strip[0].title == title]
        head = mine[0]
        yield StripTable(
            kind=step.stage,
            title=title,
            step=code_set.name,
            mode=getattr(step, "mode", ""),
            unit=head[0].unit or "",
            strengths=tuple(code.strength or 0.0 for code in head),
            strips=tuple(
                _strip(ctx, strip, codec, originals=step.stage != "interpolate" or head[0].unit == "mean")
                for strip in mine
            ),
            operation=json.loads(head[0].operation),
            total=code_set.selection.rows if len(mine) == rows < code_set.selection.rows else None,
        )


def _strip(ctx: Context, codes: list[Code], codec: Codec, *, originals: bool) -> Strip:
    """One strip; the ends of a path need no `originals` beside them, they are its own first and last frame."""
    flags = sorted({flag for code in codes for flag in code.flags})
    parents = codes[0].parents
    sources = tuple(_original(ctx, parent) for parent in parents) if originals else ()
    frames = tuple(_decoded(codec, code) for code in codes)
    operation = json.loads(codes[0].operation)
    captions = tuple(
        moved_in_words(c.moved, strength=c.strength, unit=c.unit or "", flags=c.flags, operation=operation)
        for c in codes
    )
    found = found_in_words(operation.get("found", {}))
    return Strip(parents, frames, sources, ", ".join(flags), found, captions)


def _decoded(codec: Codec, code: Code) -> Picture | None:
    if code.latent is None:
        return None
    import torch

    latent = torch.from_numpy(np.frombuffer(code.latent, np.float32).copy()).reshape(1, *codec.latent.shape)
    return Picture.of(codec.decode(latent)[0].cpu().numpy())


def _original(ctx: Context, image_id: str) -> Picture | None:
    uri = ctx.latents.take([image_id], ["uri"], version=ctx.latents_version).column("uri")[0].as_py()
    return picture_of(uri, ctx.job.source.storage_options, ctx.codec.spec.preprocess)


def _measured(ctx: Context, *, shown: set[str]) -> Iterator[Measured]:
    """What the run measured, without what is `shown` with its direction."""
    for (step, stage), found in read_measurements(ctx).items():
        rows = tuple(
            m for m in found if stage != "fit" or m.metric not in RESAMPLED or named(step, m.subject) not in shown
        )
        if rows:
            yield Measured(step, stage, rows)


def _directions(ctx: Context) -> Iterator[tuple[str, DirectionEvidence]]:
    """Every direction of the codec with its evidence, and the run that fitted it; those of this run first.

    Those carried over come last: what they rest on is in the section of the comparison.
    """
    table = ctx.store.directions()
    fields = [f for f in DirectionEvidence.__dataclass_fields__ if f in directions_schema().names]
    # Components stand on no labels: their section shows what they stand on.
    unlabelled = ", ".join(f"'{name}'" for name in get_args(ComponentEstimator))
    mine = f"dataset = '{ctx.job.dataset}' AND fingerprint = '{ctx.codec.fingerprint}'"
    resampled = resampled_fits(ctx.store, mine)
    rows = list(_rows(table, [*fields, "run_id"], f"{mine} AND estimator NOT IN ({unlabelled})"))
    for row in sorted(rows, key=lambda row: (row["run_id"] != ctx.run_id, row["estimator"] == "ported")):
        run = row.pop("run_id")
        for metric, found in resampled.get((run, row["name"]), {}).items():
            told = {f"{metric}{part}": found[key] for part, key in FIGURE.items()}
            row |= {name: value for name, value in told.items() if name in DirectionEvidence.__dataclass_fields__}
        yield run, DirectionEvidence(**{k: v for k, v in row.items() if v is not None})


def _failures(ctx: Context) -> Iterator[FailureGroup]:
    """Counts of every code, and the first few of each, read once."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[dict[str, Any]]] = {}
    for row in _rows(ctx.failures, ["id", "uri", "error", "message"], None):
        counts[row["error"]] += 1
        if counts[row["error"]] <= EXAMPLES:
            examples.setdefault(row["error"], []).append(row)
    for code, count in counts.most_common():
        shown = (FailureExample(r["id"], r["message"], _preview(ctx, r["uri"])) for r in examples[code])
        yield FailureGroup(code, count, tuple(shown))


def _preview(ctx: Context, uri: str) -> bytes | None:
    """The file's first bytes, if it is a file of its own that can be read."""
    try:
        with artifacts.open_read(uri, artifacts.options_for(uri, uri, ctx.job.source.storage_options)) as file:
            return file.read(PREVIEW_BYTES)
    except OSError:
        return None


def _loss(ctx: Context) -> Iterator[LineChart]:
    url = weights_url(ctx.codec.spec)
    if url is None or not artifacts.exists(artifacts.join(url, HISTORY)):
        return
    history = json.loads(artifacts.read_bytes(artifacts.join(url, HISTORY)))
    names = [n for n in ("loss", "reconstruction", "kl") if history and n in history[0]]
    curves = tuple(Curve(n, tuple((p["step"], p[n]) for p in history)) for n in names)
    yield LineChart("Loss of the training", "optimiser step; figures: the last", "nats per image", curves)


def _timings(summary: dict[str, dict[str, Any]]) -> Iterator[StepTiming]:
    for name, counts in summary.items():
        rows = counts.get("encoded") if counts["stage"] == "encode" else counts.get("rows")
        yield StepTiming(name, counts["stage"], counts["seconds"], rows, summary_line(counts))


def _rows(table: Table, columns: list[str], where: str | None) -> Iterable[dict[str, Any]]:
    if table.exists():
        for batch in table.scan(columns, where=where):
            yield from batch.to_pylist()
