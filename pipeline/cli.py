"""The command line. Results go to stdout, progress to stderr; exit codes follow design §7.

Commands import what they need when they run: `--help` loads no torch, ray or lancedb.
"""

import json
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.errors import JobError, LatentmillError

app = typer.Typer(
    name="latentmill",
    help="Turn image datasets into latent datasets: encode, query, edit, render.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

DEFAULT_STORE = "./out/store"
INTERRUPTED = 130

JobPath = Annotated[Path, typer.Argument(help="Job file (YAML).", metavar="JOB", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a field: --set executor.kind=local", metavar="PATH=VALUE")
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable: results on stdout, events on stderr.")]
StoreUri = Annotated[str, typer.Option("--store", envvar="LATENTMILL_STORE", help="Store URI: a path, s3://…, gs://…")]
StoreOptions = Annotated[
    list[str] | None, typer.Option("--store-option", help="Object-store option of the store, key=value.")
]
Dataset = Annotated[
    str | None, typer.Option("--dataset", help="Dataset name; may be left out when the store holds one.")
]
Where = Annotated[str | None, typer.Option("--where", help='SQL filter: "labels.smiling = true AND width >= 64"')]


@app.command()
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


@app.command()
def validate(job: JobPath, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Check a job file without reading the source or the store."""
    from pipeline.job_file import load_job

    parsed, _ = load_job(job, overrides=overrides)
    _print(parsed.model_dump_json(indent=2) if as_json else f"{job} is a valid job of {len(parsed.steps)} steps.")


@app.command()
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


@app.command()
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


@app.command()
def query(
    store: StoreUri = DEFAULT_STORE,
    image: Annotated[str | None, typer.Option(help="Path or URL of a picture to compare with.")] = None,
    image_id: Annotated[str | None, typer.Option("--id", help="Id of an image in the dataset.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many.", min=1)] = 10,
    where: Where = None,
    dataset: Dataset = None,
    store_option: StoreOptions = None,
    order: Annotated[
        str | None, typer.Option(help="List rows by this column instead; -COLUMN: greatest first.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Search every row, not the index.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Also write a picture gallery.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find the most similar images, or list rows: `--where "anomaly > 3" --order -anomaly`."""
    from pipeline.query import Query, run_query
    from pipeline.show import show_query

    asked = Query(store, _options(store_option), dataset, image, image_id, k, where, exact, order)
    result = run_query(asked)
    show_query(result, as_json=as_json)
    if html is not None:
        from pipeline.gallery import write_gallery

        write_gallery(result, html)
        sys.stderr.write(f"gallery: {html}\n")


@app.command()
def failures(
    store: StoreUri = DEFAULT_STORE,
    dataset: Dataset = None,
    store_option: StoreOptions = None,
    where: Annotated[str | None, typer.Option("--where", help="SQL filter: \"error = 'truncated'\"")] = None,
    limit: Annotated[int, typer.Option(help="At most this many rows.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """List images that could not be used, with code and message."""
    from pipeline.readers import list_failures
    from pipeline.show import show_rows

    show_rows(list_failures(store, _options(store_option), dataset, where=where, limit=limit), as_json=as_json)


@app.command()
def directions(
    store: StoreUri = DEFAULT_STORE, dataset: Dataset = None, store_option: StoreOptions = None, as_json: AsJson = False
) -> None:
    """List fitted directions with their evidence."""
    from pipeline.readers import list_directions
    from pipeline.show import show_directions

    show_directions(list_directions(store, _options(store_option), dataset), as_json=as_json)


@app.command()
def measurements(
    store: StoreUri = DEFAULT_STORE,
    dataset: Dataset = None,
    store_option: StoreOptions = None,
    where: Annotated[str | None, typer.Option("--where", help="SQL filter: \"metric = 'effect'\"")] = None,
    as_json: AsJson = False,
) -> None:
    """List what the newest run measured: every number with its interval and n."""
    from pipeline.readers import list_measurements
    from pipeline.show import show_measurements

    found = list_measurements(store, _options(store_option), dataset, where=where)
    show_measurements(found, as_json=as_json)


@app.command()
def power(
    attribute: Annotated[str, typer.Option(help="Label to plan for: smiling, or hair=red.")],
    target_cosine: Annotated[float, typer.Option(help="How well the direction must point, 0 to 1.")] = 0.9,
    estimator: Annotated[str, typer.Option(help="mean_difference.")] = "mean_difference",
    store: StoreUri = DEFAULT_STORE,
    dataset: Dataset = None,
    store_option: StoreOptions = None,
    where: Where = None,
    group: Annotated[
        str | None, typer.Option(help="Rows that belong together: a label, or id:/ for one folder.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How many labels a direction needs, from the table's own separation and noise, checked by subsampling."""
    from pipeline.power import plan_power
    from pipeline.show_power import show_power

    plan = plan_power(
        store,
        _options(store_option),
        dataset,
        attribute=attribute,
        target_cosine=target_cosine,
        estimator=estimator,
        where=where,
        group=group,
    )
    show_power(plan, as_json=as_json)


@app.command()
def probe(
    direction: Annotated[str, typer.Argument(help="Name of a stored direction.", show_default=False)],
    to: Annotated[str | None, typer.Option("--to", help="Sheet to write, .png or .html.")] = None,
    verdict: Annotated[str | None, typer.Option(help="keep, reject or rename.")] = None,
    name: Annotated[str | None, typer.Option("--as", help="Name of what is kept or renamed.")] = None,
    note: Annotated[str, typer.Option(help="What you saw.")] = "",
    by: Annotated[str, typer.Option(help="Who says so.")] = "",
    strengths: Annotated[str, typer.Option(help="Comma-separated.")] = "-3,-1.5,0,1.5,3",
    unit: Annotated[str, typer.Option(help="sigma or latent.")] = "sigma",
    rows: Annotated[int, typer.Option(help="Images, chosen by a hash of the id.", min=1, max=64)] = 6,
    where: Where = None,
    store: StoreUri = DEFAULT_STORE,
    dataset: Dataset = None,
    store_option: StoreOptions = None,
    as_json: AsJson = False,
) -> None:
    """Look at what a direction does to some images, and record your verdict."""
    from pipeline.probe_command import run_probe

    run_probe(
        (store, _options(store_option), dataset),
        direction,
        to=to,
        verdict=(verdict, name, note, by),
        strengths=strengths,
        unit=unit,
        rows=rows,
        where=where,
        as_json=as_json,
        ask=typer.prompt,
    )


@app.command()
def runs(
    store: StoreUri = DEFAULT_STORE,
    dataset: Dataset = None,
    store_option: StoreOptions = None,
    limit: Annotated[int, typer.Option(help="At most this many, newest first.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    from pipeline.readers import list_runs
    from pipeline.show import show_runs

    show_runs(list_runs(store, _options(store_option), dataset, limit=limit), as_json=as_json)


@app.command()
def report(
    job: JobPath,
    to: Annotated[str, typer.Option("--to", help="URL of the HTML file to write.")] = "report.html",
    overrides: Overrides = None,
) -> None:
    """Write the HTML report of a job's dataset as it is now, without running anything."""
    from pipeline.job_file import load_job
    from pipeline.report_again import report_again

    parsed, text = load_job(job, overrides=overrides)
    report_again(parsed, given=text, to=to)
    _print(to)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check this machine: libraries, GPU, Ray."""
    from pipeline.doctor import examine
    from pipeline.show import show_rows

    show_rows(examine(), as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a job file, for editors."""
    from schemas.job import job_json_schema

    _print(json.dumps(job_json_schema(), indent=2))


def main() -> None:
    """Entry point: runs the command line and turns errors into messages and exit codes."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    sys.exit(run_command(app))


def run_command(command: Callable[..., Any]) -> int:
    """Runs it; returns the exit code of design §7. Bugs keep their traceback."""
    try:
        command()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        if code == INTERRUPTED:  # typer has turned Ctrl-C into it
            sys.stderr.write("stopped; the same command goes on where this was.\n")
        return code
    except BrokenPipeError:
        with suppress(OSError):
            sys.stdout.close()
        return 0
    except LatentmillError as error:
        sys.stderr.write(_told(error))
        return error.exit_code
    return 0


def _told(error: LatentmillError) -> str:
    if isinstance(error, JobError):
        count = len(error.problems)
        head = "The job has a problem:" if count == 1 else f"The job has {count} problems:"
        return "\n".join([head, *(f"  - {p}" for p in error.problems)]) + "\n"
    return f"{error}\n"


def _options(pairs: list[str] | None) -> dict[str, str]:
    options = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise JobError.one("--store-option", pair, "is not key=value.", "write --store-option aws_region=eu-west-1")
        options[key] = value
    return options


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
