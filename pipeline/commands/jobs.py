"""Commands that take a job: demo, validate, plan, run, report."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.parameters import AsJson, JobPath, Overrides, printed


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("out/demo"),
    small: Annotated[bool, typer.Option("--small", help="Fewer images and steps; for a quick look.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make example faces, train a small codec, encode, fit, edit, interpolate, draw, render, report."""
    from pipeline.demo import demo as run_demo
    from pipeline.progress import stdout_for_results
    from pipeline.show import show_run

    with stdout_for_results():
        result = run_demo(out=out, small=small, style="json" if as_json else "auto")
    show_run(result, as_json=as_json)


def validate(job: JobPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a job file without reading the source or the store."""
    from pipeline.job_file import load_job

    parsed, _ = load_job(job, overrides=overrides)
    printed(parsed.model_dump_json(indent=2) if as_json else f"{job} is a valid job of {len(parsed.steps)} steps.")


def plan(
    job: JobPath,
    overrides: Overrides = None,
    retry_failures: Annotated[bool, typer.Option("--retry-failures", help="Count failed images as to do.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a job would do: rows, bytes, how many are done already. Touches nothing."""
    from pipeline.job_file import load_job
    from pipeline.plan import make_plan
    from pipeline.show import show_plan

    parsed, _ = load_job(job, overrides=overrides)
    show_plan(make_plan(parsed, retry_failures=retry_failures), as_json=as_json)


def run(
    job: JobPath,
    overrides: Overrides = None,
    executor: Annotated[
        str | None, typer.Option(help="local or ray; the job's own settings of that one are kept.")
    ] = None,
    retry_failures: Annotated[
        bool, typer.Option("--retry-failures", help="Try images again that failed before.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a job. The same command again goes on where it was."""
    from pipeline.job_file import load_job
    from pipeline.progress import show_progress, stdout_for_results
    from pipeline.run import run_job
    from pipeline.show import show_run

    parsed, text = load_job(job, overrides=overrides, executor=executor)
    with stdout_for_results(), show_progress("json" if as_json else "auto") as report:
        result = run_job(parsed, report=report, given=text, retry_failures=retry_failures)
    show_run(result, as_json=as_json)


def report(
    job: JobPath,
    to: Annotated[str, typer.Option("--to", help="URL of the HTML file to write.")] = "report.html",
    overrides: Overrides = None,
) -> None:
    """Write the HTML report of a job's dataset as it is now, without running anything."""
    from pipeline.checks.machine import refuse_place
    from pipeline.job_file import load_job
    from pipeline.report_again import report_again

    parsed, text = load_job(job, overrides=overrides)
    refuse_place("--to", to)
    report_again(parsed, given=text, to=to)
    printed(to)
