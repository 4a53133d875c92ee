"""One execution of a job: lease → plan → steps in order → books → run record.

The lease is taken before the plan, so what the plan counts is what the run finds. Every step gets its own spec and the
shared context. What a killed run leaves is found by the next one from the tables alone.
"""

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.context import Context, Report
from pipeline.executors.base import Executor
from pipeline.plan import Plan, make_plan
from pipeline.store.store import Store
from pipeline.versions import library_versions
from schemas.errors import LatentmillError
from schemas.events import RunFinished, StepFinished
from schemas.job import Job
from schemas.steps import (
    AnalogyStep,
    CompactStep,
    CompareStep,
    ComponentsStep,
    ComposeStep,
    DiagnoseStep,
    DisentanglementStep,
    EditStep,
    EncodeStep,
    EvaluateStep,
    FidelityStep,
    FitStep,
    IndexStep,
    InterpolateStep,
    ProjectStep,
    RenderStep,
    ReportStep,
    SampleStep,
    Step,
    TrainStep,
    TraverseStep,
    WalkStep,
)
from schemas.tables import RUNS


@dataclass(frozen=True)
class RunResult:
    """What a finished run tells: its id, its plan, and each step's counts and seconds."""

    run_id: str
    seconds: float
    plan: Plan
    steps: dict[str, dict[str, Any]]


def run_job(
    job: Job,
    *,
    report: Report,
    given: str | None = None,
    retry_failures: bool = False,
    executor: Executor | None = None,
) -> RunResult:
    """Runs a job to its end. `given` is the job as the user wrote it; `executor` overrides the job's (and is not closed).

    Raises JobError before anything runs, LeaseHeld when another run commits to the dataset, TooManyFailures,
    AccountingError, and whatever a step raises; the run record says which.
    """
    started = time.time()
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    store = Store.open(job.store, options=job.store_options)
    with store.lease(job.dataset, run_id=run_id) as lease:
        plan = make_plan(job, retry_failures=retry_failures)
        ctx = Context(
            job=job,
            store=store,
            lease=lease,
            run_id=run_id,
            report=report,
            retry_failures=retry_failures,
            listing=plan.listing,
            given_executor=executor,
            started=started,
            given=given or job.model_dump_json(indent=2),
        )
        ctx.clear_work()
        record = _Record(ctx)
        record.write("running")
        try:
            for step in job.steps:
                _run_step(step, ctx)
        except BaseException as error:
            # Recorded and passed on: also an interrupt leaves a run that says what stopped it.
            message = str(error) if isinstance(error, LatentmillError) else f"{type(error).__name__}: {error}"
            record.write("failed", message)
            report(RunFinished(run_id=run_id, state="failed", seconds=time.time() - started, message=message))
            raise
        finally:
            ctx.close()
        record.write("done")
    seconds = time.time() - started
    report(RunFinished(run_id=run_id, state="done", seconds=seconds))
    return RunResult(run_id, seconds, plan, ctx.summary)


def _run_step(step: Step, ctx: Context) -> None:
    started = time.perf_counter()
    ctx.lease.confirm()
    told = len(ctx.notices)
    counts = _stage(step)(step, ctx)
    seconds = time.perf_counter() - started
    notices = {"notices": ctx.notices[told:]} if len(ctx.notices) > told else {}  # a report drawn later shows them
    ctx.summary[str(step.name)] = {"stage": step.stage, "seconds": round(seconds, 3), **counts, **notices}
    ctx.report(StepFinished(step=str(step.name), stage=step.stage, seconds=seconds, counts=counts))


def _stage(step: Step) -> Callable[[Any, Context], dict[str, Any]]:
    """The function of a step's stage. Imports are here, so a run loads only what its steps need."""
    match step:
        case TrainStep():
            from pipeline.steps.train import train

            return train
        case EncodeStep():
            from pipeline.steps.encode import encode

            return encode
        case IndexStep():
            from pipeline.steps.index import index

            return index
        case CompactStep():
            from pipeline.steps.compact import compact

            return compact
        case FitStep():
            from pipeline.steps.fit import fit_directions

            return fit_directions
        case ComponentsStep():
            from pipeline.steps.components import find_components

            return find_components
        case ComposeStep():
            from pipeline.steps.compose import compose_directions

            return compose_directions
        case TraverseStep() | InterpolateStep() | EditStep() | AnalogyStep() | WalkStep() | SampleStep():
            from pipeline.steps.codes import define

            return define
        case EvaluateStep():
            from pipeline.steps.evaluate import evaluate

            return evaluate
        case DisentanglementStep():
            from pipeline.steps.disentanglement import disentanglement

            return disentanglement
        case CompareStep():
            from pipeline.steps.compare import compare_codecs

            return compare_codecs
        case FidelityStep():
            from pipeline.steps.fidelity import fidelity

            return fidelity
        case DiagnoseStep():
            from pipeline.steps.diagnose import diagnose

            return diagnose
        case ProjectStep():
            from pipeline.steps.project import project

            return project
        case RenderStep():
            from pipeline.steps.render import render

            return render
        case ReportStep():
            from pipeline.steps.report import write_report

            return write_report


class _Record:
    """The run's row in the runs table, written when it starts and when it ends."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._started = datetime.fromtimestamp(ctx.started, UTC)

    def write(self, state: str, message: str | None = None) -> None:
        ctx = self._ctx
        row = {
            "run_id": ctx.run_id,
            "dataset": ctx.job.dataset,
            "state": state,
            "job_given": ctx.given,
            "job_resolved": ctx.job.model_dump_json(),
            "versions": json.dumps(library_versions()),
            "fingerprint": ctx.resolved_fingerprint,
            "tables": json.dumps(ctx.tables),
            "summary": json.dumps(ctx.summary, default=str),
            "message": message,
            "started_at": self._started,
            "ended_at": None if state == "running" else datetime.now(UTC),
        }
        ctx.store.runs().upsert(pa.Table.from_pylist([row], RUNS))
