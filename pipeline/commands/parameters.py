"""Arguments and options that several commands share, and how they are read."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import JobError

DEFAULT_STORE = "./out/store"

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


def options_of(pairs: list[str] | None) -> dict[str, str]:
    """`key=value` pairs of the command line. Raises JobError for one that is not."""
    options = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise JobError.one("--store-option", pair, "is not key=value.", "write --store-option aws_region=eu-west-1")
        options[key] = value
    return options


def printed(text: str) -> None:
    """A result, on stdout."""
    sys.stdout.write(text + "\n")
