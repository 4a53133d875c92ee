"""The command line. Results go to stdout, progress to stderr; exit codes follow design §7.

Commands (pipeline/commands) import what they need when they run: `--help` loads no torch, ray or lancedb.
"""

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import typer

from pipeline.commands import attributes, jobs, machine, stores
from schemas.errors import JobError, LatentmillError

app = typer.Typer(
    name="latentmill",
    help="Turn image datasets into latent datasets: encode, query, edit, render.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

INTERRUPTED = 130

COMMANDS = (
    jobs.demo,
    jobs.validate,
    jobs.plan,
    jobs.run,
    stores.query,
    stores.failures,
    stores.directions,
    stores.measurements,
    attributes.power,
    attributes.probe,
    stores.runs,
    jobs.report,
    machine.doctor,
    machine.schema,
)
"""In the order in which help lists them."""

for command in COMMANDS:
    app.command()(command)


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
        head = "There is a problem:" if count == 1 else f"There are {count} problems:"
        return "\n".join([head, *(f"  - {p}" for p in error.problems)]) + "\n"
    return f"{error}\n"
