"""The plan: what a job would do, found out without touching anything.

Data's way: job → listing held against the tables → one line a step. Every problem that needs the bucket, the labels, the
weights or the store shows up here, all at once, before an executor starts (design §5.6).
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from pipeline.checks.machine import check_device, check_places
from pipeline.checks.named_rows import check_filters_leave_rows, check_named_rows
from pipeline.checks.steps import check_steps
from pipeline.codec import CodecRef, weights_exist, weights_url
from pipeline.ledger import Status
from pipeline.listing import LabelCounts, Listing, list_source
from pipeline.steps.train import is_trained
from pipeline.store.store import Store
from pipeline.store.table import Table
from schemas.errors import JobError, Problem
from schemas.job import Job
from schemas.steps import EncodeStep, Step, TrainStep
from schemas.tables import label_types, labels_type


@dataclass(frozen=True)
class StepPlan:
    """One step's share: rows in all, done already and to do; encoded bytes to read; None where only the run can tell."""

    step: str
    stage: str
    total: int | None = None
    done: int | None = None
    todo: int | None = None
    bytes: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Plan:
    """What a job would do. `listing` feeds the run, so the source is listed once."""

    dataset: str
    fingerprint: str | None
    listed: int
    bytes: int
    labels: dict[str, str]
    label_counts: LabelCounts | None
    steps: tuple[StepPlan, ...]
    listing: Listing | None = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `--json` and golden files."""
        return {
            "dataset": self.dataset,
            "fingerprint": self.fingerprint,
            "listed": self.listed,
            "bytes": self.bytes,
            "labels": self.labels,
            "label_counts": asdict(self.label_counts) if self.label_counts else None,
            "steps": [asdict(s) for s in self.steps],
        }


def make_plan(job: Job, *, retry_failures: bool = False) -> Plan:
    """Plans a job. Raises JobError with every problem, SourceError or StoreError when those cannot be reached."""
    problems = [*_reach(job), *check_places(job), *check_device(job)]
    codec, trains = _codec(job, problems)
    if problems:
        raise JobError(problems)
    store = _store(job)
    latents, failures = _tables(job, store, codec)
    listing = None
    if any(isinstance(s, EncodeStep) for s in job.steps):
        listing = list_source(job.source, latents=latents, failures=failures)
    known = _labels(listing, latents)
    problems += check_steps(job, codec, known, store, has_rows=listing is not None or latents is not None)
    problems += check_named_rows(job, listing, latents, retry_failures=retry_failures)
    problems += check_filters_leave_rows(job, listing, latents, retry_failures=retry_failures)
    if problems:
        raise JobError(problems)
    lines = tuple(
        _line(job, step, listing, latents, trains=trains, retry_failures=retry_failures) for step in job.steps
    )
    return Plan(
        dataset=job.dataset,
        fingerprint=codec.fingerprint if codec else None,
        listed=listing.rows if listing else 0,
        bytes=listing.bytes if listing else 0,
        labels=dict(known),
        label_counts=listing.label_counts if listing else None,
        steps=lines,
        listing=listing,
    )


def _reach(job: Job) -> Iterator[Problem]:
    """URLs that only this process could see cannot be given to other processes."""
    if job.executor.kind == "ray":
        for name, url in (("store", job.store), ("source.images", job.source.images)):
            if url.startswith("memory://"):
                yield Problem(name, url, "Ray workers cannot see this process's memory.", "use executor.kind: local")


def _codec(job: Job, problems: list[Problem]) -> tuple[CodecRef | None, bool]:
    """The codec if its weights are there, and whether a train step of this job makes them."""
    trains = [s for s in job.steps if isinstance(s, TrainStep)]
    for step in trains:
        if step.to and step.to != weights_url(job.codec):
            problems.append(
                Problem(
                    f"{step.name}.to",
                    step.to,
                    "the job encodes with other weights.",
                    "leave `to` out, or make it equal to codec.weights",
                )
            )
    finished = [_attempt(problems, partial(is_trained, step, job.codec)) for step in trains]
    if trains and not all(finished):
        return None, True
    if not weights_exist(job.codec):
        fix = "add a `train` step, or point it at a folder with config.json and model.safetensors"
        problems.append(Problem("codec.weights", weights_url(job.codec), "no weights are there.", fix))
        return None, False
    return _attempt(problems, partial(CodecRef.resolve, job.codec, allow_code=job.allow_code)), False


def _attempt(problems: list[Problem], check: Callable[[], Any]) -> Any:
    """The check's answer; its problems join the others instead of hiding them."""
    try:
        return check()
    except JobError as error:
        problems += error.problems
        return None


def _store(job: Job) -> Store | None:
    """The store if it is there. Planning must not create it."""
    return (
        Store.open(job.store, options=job.store_options, create=False)
        if Store.is_there(job.store, options=job.store_options)
        else None
    )


def _tables(job: Job, store: Store | None, codec: CodecRef | None) -> tuple[Table | None, Table | None]:
    if store is None or codec is None:
        return None, None
    latents = store.latents(job.dataset, codec.fingerprint)
    failures = store.failures(job.dataset, codec.fingerprint)
    return (latents if latents.exists() else None), (failures if failures.exists() else None)


def _labels(listing: Listing | None, latents: Table | None) -> dict[str, Any]:
    if listing is not None:
        return label_types(listing.labels or labels_type({}))
    if latents is not None and "labels" in latents.schema.names:
        return label_types(latents.schema.field("labels").type)
    return {}


def _line(
    job: Job, step: Step, listing: Listing | None, latents: Table | None, *, trains: bool, retry_failures: bool
) -> StepPlan:
    name = str(step.name)
    match step:
        case TrainStep():
            done = 0 if trains else step.steps
            return StepPlan(name, step.stage, step.steps, done, step.steps - done, note="optimiser steps")
        case EncodeStep() if listing is not None:
            todo = listing.tally.todo(retry_failures=retry_failures)
            mended = int(listing.tally.mended.sum())
            failed = listing.tally.counts[Status.FAILED] - mended
            changed = listing.tally.counts[Status.CHANGED] + listing.tally.counts[Status.CHANGED_FAILED]
            relabelled = int(listing.tally.relabelled.sum())
            notes = [
                f"{failed} failed before" if failed and not retry_failures else "",
                f"{mended:,} whose labels can be read now" if mended else "",
                f"{changed} changed" if changed else "",
                f"{relabelled:,} with new labels" if relabelled else "",
            ]
            rows = int(todo.sum())
            return StepPlan(
                name,
                step.stage,
                listing.rows,
                listing.rows - rows,
                rows,
                listing.bytes_of(todo),
                ", ".join(filter(None, notes)),
            )
        case _:
            rows_known = latents is not None and (listing is None or not listing.tally.todo().any())
            total = _selected(step, latents) if rows_known and latents else None
            limit = getattr(step, "limit", None)
            if step.stage in ("report", "render"):
                return StepPlan(name, step.stage, note=f"to {step.to}")
            return StepPlan(name, step.stage, min(total, limit) if total is not None and limit else total)


def _selected(step: Step, latents: Table) -> int | None:
    """Rows that the step's filter leaves; None where it needs columns that steps above have yet to write."""
    try:
        return latents.count_rows(getattr(step, "where", None))
    except JobError:  # the filter itself was found good by `check_steps`
        return None
