"""What telling data, model and scorer apart needs beside decoded pictures: repeated fits, and the scorer's own response.

One pass over all labelled latents, which gives both where the scorer is a readout of latents. A scorer of one's own looks at
untouched pictures of the source: as many as the step's `originals`, by a hash of the id.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.context import Context
from pipeline.ledger import Status
from pipeline.listing import Listing, recount
from pipeline.sources.read import ImageReader
from pipeline.spill import Spill
from pipeline.work import WorkSplits, write_work
from schemas.codec import Preprocess
from schemas.measurements import Measurement
from schemas.source import SourceSpec
from schemas.steps import EvaluateStep
from stages.attributes import Column
from stages.evaluation.attribution import both_kinds
from stages.evaluation.design import Design
from stages.evaluation.effects import Effects
from stages.evaluation.on_labels import fits
from stages.evaluation.originals import Originals, Scored
from stages.evaluation.readout import Readout
from stages.evaluation.refits import MAX_DIM, Refit, Refits, gradient
from stages.evaluation.response import NO_LABEL, TOO_MANY_LABELS, ScorerResponse
from stages.row_hash import fractions, hash_ids

BATCH_ROWS = 64
SALT = "originals"
IN_SAMPLE = "measured on rows that the readout was fitted on: a score that knows nothing seems to answer, too"


@dataclass(frozen=True)
class Evidence:
    """`refits`: None where the fits could not be repeated. `left`: originals that did not count, and why."""

    refits: Refits | None
    response: ScorerResponse
    left: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class _Pictures:
    """Pictures of the source in pieces. Implements `executors.base.Splits`."""

    spill: Spill
    source: SourceSpec
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.spill)

    def read(self, index: int) -> Iterator[pa.RecordBatch]:
        # A reader serves one thread at a time, and a reduce reads in several: each piece has its own.
        yield from WorkSplits(self.spill, ImageReader(self.source, self.preprocess), BATCH_ROWS).read(index)


def can_refit(design: Design, columns: dict[int, Column]) -> bool:
    """Whether the fits behind data-or-model can be repeated: both kinds are there, and every score is a label."""
    return (
        bool(both_kinds(design.edits, design.targets))
        and len(design.edits[0].vector) <= MAX_DIM
        and len(columns) == len(design.attributes)
    )


def evidence(
    step: EvaluateStep, ctx: Context, design: Design, state: Effects, columns: dict[int, Column], version: int
) -> Evidence:
    """`columns`: position among the scores → the label of that name."""
    names = tuple(design.attributes[j] for j in columns)
    slopes = gradient(state.response) if state.response is not None else None
    readout = design.readout
    asked = len(columns) > 1 and any(t in columns for t in design.targets if t is not None)
    parts = [] if slopes is None else [slopes]
    kept_apart = None
    if readout is not None and asked:
        kept_apart = readout.held_out or readout.stand_in
        kept_apart = None if kept_apart is None else kept_apart.only(list(columns))
        # Scores of all rows by one fit, unless those of rows kept apart take their place.
        mine = list(columns) if readout.held_out is None else []
        parts.append(readout.coefficients[mine])
    response = ScorerResponse.none(NO_LABEL, "fewer than two scores have a label of their name")
    refits, count = None, len(columns)
    if (parts or asked) and not fits(count, 3 * count, replicates=design.replicates):
        reason = f"{count} labels under {design.replicates} replicates are more than is kept: evaluate fewer at a time"
        return Evidence(None, ScorerResponse.none(TOO_MANY_LABELS, reason))
    if parts:
        stage = Refit(
            tuple(columns.values()),
            np.concatenate(parts),
            design.edits[0].mean,
            design.replicates,
            design.seed,
            design.group,
            kept_apart,
        )
        splits = ctx.latents.splits(columns=["id", "latent", "labels"], version=version)
        sums = ctx.executor.reduce(splits, stage)
        if slopes is not None:
            refits = Refits.of(sums[..., : 1 + 2 * count])
        if readout is not None and asked:
            response = _of_readout(readout, sums, names, step.confidence)
    if readout is not None or not asked:
        return Evidence(refits, response)
    if not step.originals:
        return Evidence(refits, ScorerResponse.none("not_measured", "`originals: 0` asks for no untouched pictures"))
    return _with_originals(refits, _scored(step, ctx, design, columns), names, step.confidence)


def _of_readout(
    readout: Readout, sums: npt.NDArray[np.float64], names: tuple[str, ...], confidence: float
) -> ScorerResponse:
    """`sums`: of the labels, and last the scores of one fit, if the readout has no others, and those of rows kept apart."""
    count, end = len(names), sums.shape[2]
    labels = np.arange(1 + count)

    def last(back: int) -> npt.NDArray[np.float64]:
        at = end - back * count
        return sums[..., np.r_[labels, at : at + count]]

    if readout.held_out is not None:
        return ScorerResponse.of(names, last(1), confidence=confidence, held_out=True)
    if readout.stand_in is None:
        return ScorerResponse.of(names, last(1), confidence=confidence, said=IN_SAMPLE)
    return ScorerResponse.of(names, last(2), confidence=confidence, said=IN_SAMPLE, stand_in=last(1))


def _with_originals(refits: Refits | None, scored: Scored, names: tuple[str, ...], confidence: float) -> Evidence:
    n = int(scored.sums[0, 0, 0])
    counts: dict[str, Any] = {
        "original_unread": scored.unread,
        "original_unscored": scored.unscored,
        "original_unlabelled": scored.unlabelled,
    }
    left = tuple(Measurement("left_out", float(c), target=name, n=n, status=name) for name, c in counts.items() if c)
    return Evidence(refits, ScorerResponse.of(names, scored.sums, confidence=confidence), left)


def _scored(step: EvaluateStep, ctx: Context, design: Design, columns: dict[int, Column]) -> Scored:
    listing = ctx.listing_now()
    stage = Originals(
        tuple(columns.values()),
        tuple(columns),
        step.scorer,
        step.scorer_options,
        scores=len(design.attributes),
        replicates=design.replicates,
        seed=design.seed,
        group=design.group,
        allow_code=ctx.job.allow_code,
    )
    done = recount(listing, latents=ctx.latents, failures=ctx.failures).status == Status.DONE
    known = {field.name for field in listing.labels} if listing.labels is not None else set()
    if not done.any() or not {column.label for column in columns.values()} <= known:
        return stage.start()
    preprocess = ctx.codec.spec.preprocess
    height, width = preprocess.size
    work = write_work(
        listing,
        ctx.work_url(f"{step.name}.arrow"),
        todo=_some(listing, done, step.originals),
        row_bytes=height * width * 3,
        options=ctx.file_options,
    )
    return ctx.executor.reduce(_Pictures(work.spill, ctx.job.source, preprocess), stage)


def _some(listing: Listing, done: npt.NDArray[np.bool_], count: int) -> npt.NDArray[np.bool_]:
    """The `count` encoded images with the smallest hash of their id."""
    if int(done.sum()) <= count:
        return done
    places = np.concatenate([fractions(hash_ids(batch.column("id")), SALT) for _, batch in listing.batches()])
    places[~done] = np.inf
    chosen = np.zeros(len(done), bool)
    chosen[np.argpartition(places, count - 1)[:count]] = True
    return chosen
