"""The encode step: listing → what the tables lack → pixels → latents → commits → a recount that must come out even."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.codec import OnWorker
from pipeline.commit import Committer
from pipeline.context import Context
from pipeline.executors.base import MapJob
from pipeline.ledger import Status, Tally
from pipeline.listing import Listing, recount
from pipeline.relabel import relabel
from pipeline.sink import EncodeSink
from pipeline.sources.read import ImageReader
from pipeline.work import WorkSplits, write_work
from schemas.errors import AccountingError, TooManyFailures
from schemas.steps import EncodeStep
from schemas.tables import FAILURES, latents_schema

ROUNDS = 3
KEEP_VERSIONS, KEEP_FOR = 100, timedelta(days=1)
"""Older versions go, but for the one that the catalog names: manifests of many commits outweigh the data."""


def encode(step: EncodeStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns its counts. Raises AccountingError when a listed image is in no table or in two."""
    held = listing = ctx.listing_now()  # `held` keeps the spilled rows on disk
    _tell_labels(ctx, listing)
    if listing.tally.todo(retry_failures=ctx.retry_failures).any() or _stale(listing) or listing.tally.relabelled.any():
        listing = replace(listing, tally=_behind_the_fence(step, ctx, listing))
        _heal(ctx, listing)
    todo = listing.tally.todo(retry_failures=ctx.retry_failures)
    total = int(todo.sum())
    ctx.started_step(step, total=total, already=listing.rows - total)
    relabelled = _relabel(step, ctx, listing, total) if listing.tally.relabelled.any() else 0
    figures = Figures()
    tally = listing.tally
    if relabelled and not total:
        tally = recount(listing, latents=ctx.latents, failures=ctx.failures)
    for _ in range(ROUNDS if total else 0):
        _round(step, ctx, listing, todo, figures)
        tally = recount(listing, latents=ctx.latents, failures=ctx.failures)
        todo = tally.todo()
        if not todo.any():
            break
        ctx.notice(f"{int(todo.sum())} rows came back from no worker; doing them again")
    counts = _account(ctx, held, tally)
    ctx.publish()
    if figures.commits:
        for table in (ctx.latents, ctx.failures):
            table.trim_versions(keep=KEEP_VERSIONS, older_than=KEEP_FOR, token=ctx.lease.token)
    return counts | {"already": listing.rows - total, "relabelled": relabelled} | figures.as_dict()


def _behind_the_fence(step: EncodeStep, ctx: Context, listing: Listing) -> Tally:
    """Takes the tables over, and counts again.

    Before the fence an earlier holder whose lease ran out may still commit; what it brought in must be seen, or its rows
    would be written twice. Behind the fence nobody else can commit, and this run has written nothing yet, so what no
    version names was left by a writer or driver that died.
    """
    ctx.latents.create(_schema(step, ctx, listing))
    ctx.failures.create(FAILURES)
    for table in (ctx.latents, ctx.failures):
        table.fence(ctx.lease.token)
        table.clean_orphans(timedelta(0), token=ctx.lease.token)
    return recount(listing, latents=ctx.latents, failures=ctx.failures)


def _relabel(step: EncodeStep, ctx: Context, listing: Listing, total: int) -> int:
    """Writes changed labels; returns of how many images. Behind the fence, and before any commit of this step moves rows."""
    asked = f"{int(listing.tally.relabelled.sum()):,}"
    ctx.progress(step, computed=0, committed=0, failed=0, total=total, note=f"writing new labels of {asked} images")
    version = ctx.latents.version
    located = recount(listing, latents=ctx.latents, failures=ctx.failures, located_at=version)
    done = relabel(ctx, listing, located, version=version)
    ctx.progress(step, computed=0, committed=0, failed=0, total=total, note=f"new labels of {done:,} images written")
    return done


def _schema(step: EncodeStep, ctx: Context, listing: Listing) -> pa.Schema:
    return latents_schema(
        ctx.codec.latent,
        dtype=step.latent_dtype,
        labels=listing.labels,
        logvar=step.store_logvar and ctx.codec.has_logvar,
        metadata=ctx.codec.metadata(),
    )


def _stale(listing: Listing) -> bool:
    return bool(listing.tally.stale_failures or listing.tally.stale_latents)


@dataclass
class Figures:
    """What the rounds of one encode step add up to."""

    encoded: int = 0
    commits: int = 0
    bytes: int = 0
    first_commit_at: float | None = None
    worker_seconds: dict[str, float] = field(default_factory=dict)

    def add(self, committer: Committer) -> None:
        self.encoded += committer.committed
        self.commits += committer.commits
        self.bytes += committer.bytes
        self.first_commit_at = self.first_commit_at or committer.first_commit_at
        for kind, seconds in committer.seconds.items():
            self.worker_seconds[kind] = self.worker_seconds.get(kind, 0.0) + seconds

    def as_dict(self) -> dict[str, Any]:
        seconds = {kind: round(spent, 3) for kind, spent in self.worker_seconds.items()}
        return {name: getattr(self, name) for name in ("encoded", "commits", "bytes", "first_commit_at")} | {
            "worker_seconds": seconds
        }


def _round(step: EncodeStep, ctx: Context, listing: Listing, todo: npt.NDArray[np.bool_], figures: Figures) -> None:
    from stages.encode import Encode  # torch: a run with nothing to do never loads it

    codec = ctx.codec
    schema = _schema(step, ctx, listing)
    height, width = codec.spec.preprocess.size
    row_bytes = height * width * 3
    url = ctx.work_url(f"{step.name}.arrow")
    work = write_work(listing, url, todo=todo, row_bytes=row_bytes, options=ctx.file_options)
    committer = Committer(
        work,
        latents=ctx.latents,
        failures=ctx.failures,
        lease=ctx.lease,
        run_id=ctx.run_id,
        rows=step.commit_rows,
        seconds=step.commit_seconds,
    )
    reader = ImageReader(ctx.job.source, codec.spec.preprocess)
    job = MapJob(
        splits=WorkSplits(work.spill, reader, step.batch_size),
        stage=OnWorker(codec, partial(Encode, latents=schema, run_id=ctx.run_id)),
        sink=EncodeSink(ctx.latents, ctx.failures, schema, ctx.run_id),
        batch_rows=step.batch_size,
        row_bytes=row_bytes,
    )
    try:
        for receipt in ctx.executor.map(job):
            committer.take(receipt)
            ctx.progress(
                step,
                read=ctx.executor.rows_read(),
                computed=committer.taken,
                committed=committer.committed,
                failed=committer.failed,
                total=work.rows,
            )
            _check_failures(ctx, listing, committer.failed)
    finally:
        # Whatever stopped the stream, what workers finished is kept. A lost lease refuses this commit as any other.
        committer.commit()
        figures.add(committer)
    ctx.progress(
        step, computed=committer.taken, committed=committer.committed, failed=committer.failed, total=work.rows
    )


def _tell_labels(ctx: Context, listing: Listing) -> None:
    counts = listing.label_counts
    if counts and (told := counts.told()):
        ctx.notice(f"labels: {told}; {counts.matched:,} match")
    if listing.tally.unreadable:
        ctx.notice(f"labels: {listing.tally.unreadable:,} encoded images keep theirs; the new ones cannot be read")


def _heal(ctx: Context, listing: Listing) -> None:
    """Removes what a death between two commits left: an old failure row beside a latent, or the other way round."""
    for table, positions in ((ctx.failures, listing.tally.stale_failures), (ctx.latents, listing.tally.stale_latents)):
        if positions:
            table.delete_ids(listing.ids_at(positions), token=ctx.lease.token, properties={"run": ctx.run_id})


def _check_failures(ctx: Context, listing: Listing, failed: int) -> None:
    allowed = ctx.job.max_failures
    if allowed is None:
        return
    limit = allowed * listing.rows if isinstance(allowed, float) and allowed < 1 else allowed
    if failed > limit:
        raise TooManyFailures(
            f"{failed} of {listing.rows} images failed; max_failures = {allowed:g} allows {int(limit)}. "
            "See them with `latentmill failures`; raise max_failures or mend the source."
        )


def _account(ctx: Context, listing: Listing, tally: Tally) -> dict[str, Any]:
    """The books must balance: every listed image in latents or in failures, none in both, none twice."""
    done, failed = tally.counts[Status.DONE], tally.counts[Status.FAILED]
    both = len(tally.stale_failures) + len(tally.stale_latents)
    if tally is not listing.tally and (done + failed != listing.rows or both):
        raise AccountingError(
            f"{listing.rows} images are listed, but {done} are in latents and {failed} in failures ({both} in both). "
            "Run the same command again: it does what is missing. If the sums stay uneven, please report it."
        )
    if tally is not listing.tally and (old := int(tally.relabelled.sum())):
        raise AccountingError(
            f"{old} encoded images still have other labels than the label file gives them. "
            "Run the same command again: it writes what is missing. If they stay, please report it."
        )
    _check_failures(ctx, listing, failed)
    return {"listed": listing.rows, "in_latents": done, "in_failures": failed, "no_longer_listed": tally.unlisted}
