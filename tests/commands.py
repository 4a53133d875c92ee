"""The command line in this process: torch and LanceDB are imported once for all tests, not once a command."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from pipeline.cli import app, run_command


def latentmill(*arguments: str, cwd: Path) -> CompletedProcess[str]:
    """What `latentmill` prints, and its exit code, when it is called in that folder."""
    said, told = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as here, redirect_stdout(said), redirect_stderr(told):
        here.chdir(cwd)
        here.setenv("COLUMNS", "200")
        here.delenv("LATENTMILL_STORE", raising=False)
        code = run_command(lambda: app(list(arguments), prog_name="latentmill"))
    return CompletedProcess(arguments, code, said.getvalue(), told.getvalue())
