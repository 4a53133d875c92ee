"""Images that a job names by id, and filters that leave none: found while planning, not after everything is encoded.

An id is good when the source lists it or the table holds it. A filter is judged where the table is as the step will find it:
nothing is left to encode, no labels have changed, and no step above writes a column that the filter reads.
"""

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.filters import written_by
from pipeline.ledger import Status
from pipeline.listing import Listing
from pipeline.selection import id_in
from pipeline.store.table import Table
from schemas.errors import JobError, Problem
from schemas.job import Job
from schemas.steps import (
    CODE_SETS,
    AnalogyStep,
    EditStep,
    InterpolateStep,
    SelectionStep,
    Step,
)

REFUSING = (*CODE_SETS, "compare", "diagnose", "disentanglement", "evaluate", "fidelity")
"""Stages that cannot run without rows. Others store a status that says so."""
MAX_SHOWN = 3


def check_named_rows(
    job: Job, listing: Listing | None, latents: Table | None, *, retry_failures: bool
) -> Iterator[Problem]:
    """A problem for each field that names images which are neither listed nor stored, or which have failed for good."""
    named = [(f"steps.{i} ({s.stage}).{place}", ids) for i, s in enumerate(job.steps) for place, ids in _named_in(s)]
    wanted = {i for _, ids in named for i in ids}
    if not wanted:
        return
    good, failed = _listed(wanted, listing, retry_failures=retry_failures)
    missing = wanted - good - failed
    if missing and latents is not None:
        rows = latents.scan(["id"], where=id_in(sorted(missing)))
        missing -= {i for batch in rows for i in batch.column("id").to_pylist()}
    for field, ids in named:
        if gone := sorted(missing & set(ids)):
            yield Problem(
                field, _some(gone), "no image of the dataset has this id.", "use ids as the source lists them"
            )
        if spoiled := sorted(failed & set(ids)):
            fix = "`latentmill failures` says why; name another, or mend it and run with --retry-failures"
            yield Problem(field, _some(spoiled), "could not be encoded before, and has no latent.", fix)


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:MAX_SHOWN]) + (f" and {len(ids) - MAX_SHOWN} more" if len(ids) > MAX_SHOWN else "")


def check_filters_leave_rows(
    job: Job, listing: Listing | None, latents: Table | None, *, retry_failures: bool
) -> Iterator[Problem]:
    """A problem for each filter that is known to leave no row to a step that needs some."""
    if latents is None or (listing is not None and _will_change(listing, retry_failures=retry_failures)):
        return
    written: set[str] = set()
    for i, step in enumerate(job.steps):
        where = step.where if isinstance(step, SelectionStep) and step.stage in REFUSING else None
        if where is not None and not any(re.search(rf"\b{re.escape(name)}\b", where) for name in written):
            try:
                rows = latents.count_rows(where)
            except JobError:  # reads a column that a step above has yet to write, or is wrong, which has been said
                rows = 1
            if not rows:
                yield Problem(f"steps.{i} ({step.stage}).where", where, "no row is left.", "loosen the filter")
        written |= set(written_by(step))


def _will_change(listing: Listing, *, retry_failures: bool) -> bool:
    return bool(listing.tally.todo(retry_failures=retry_failures).any() or np.any(listing.tally.relabelled))


def _named_in(step: Step) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The fields of a step that name images, and the ids."""
    if isinstance(step, SelectionStep) and step.ids:
        yield "ids", step.ids
    match step:
        case InterpolateStep():
            if isinstance(step.pairs, tuple):
                yield "pairs", tuple(i for pair in step.pairs for i in pair)
            yield "sets", tuple(i for one in step.sets or () for i in one)
        case AnalogyStep() if isinstance(step.triples, tuple):
            yield "triples", tuple(i for triple in step.triples for i in triple)
        case EditStep(tokens=tokens) if tokens is not None:
            yield "tokens.of", (tokens.of,) if tokens.of is not None else ()
            yield "tokens.histogram", tokens.histogram if isinstance(tokens.histogram, tuple) else ()
        case _:
            pass


def _listed(wanted: set[str], listing: Listing | None, *, retry_failures: bool) -> tuple[set[str], set[str]]:
    """Of the ids those that are listed and have latents, or will be tried; and those that failed and will not be."""
    good: set[str] = set()
    failed: set[str] = set()
    if listing is None:
        return good, failed
    looked_for = pa.array(sorted(wanted), pa.string())
    lost = (listing.tally.status == Status.FAILED) & ~listing.tally.todo(retry_failures=retry_failures)
    for start, batch in listing.batches():
        ids = batch.column("id")
        at = np.flatnonzero(pc.is_in(ids, value_set=looked_for.cast(ids.type)).to_numpy(zero_copy_only=False))
        for i, name in zip(at, ids.take(pa.array(at)).to_pylist(), strict=True):
            (failed if lost[start + i] else good).add(name)
    return good, failed
