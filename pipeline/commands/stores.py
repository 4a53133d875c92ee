"""Commands that list what a store holds: query, failures, directions, measurements, runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.parameters import DEFAULT_STORE, AsJson, Dataset, StoreOptions, StoreUri, Where, options_of


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
    """Find the most similar images, or list rows: `--where "anomaly > 3" --order -anomaly`.

    The table shows the anomaly, or the scores that were asked by; `--json` has them all.
    """
    from pipeline.query import Query, run_query
    from pipeline.show import show_query

    if html is not None:
        from pipeline.checks.machine import refuse_place

        refuse_place("--html", str(html))
    asked = Query(store, options_of(store_option), dataset, image, image_id, k, where, exact, order)
    result = run_query(asked)
    show_query(result, as_json=as_json)
    if html is not None:
        from pipeline.gallery import write_gallery

        write_gallery(result, html)
        sys.stderr.write(f"gallery: {html}\n")


def failures(
    store: StoreUri = DEFAULT_STORE,
    dataset: Dataset = None,
    store_option: StoreOptions = None,
    where: Annotated[str | None, typer.Option("--where", help="SQL filter: \"error = 'truncated'\"")] = None,
    limit: Annotated[int, typer.Option(help="At most this many rows.", min=1)] = 50,
    as_json: AsJson = False,
) -> None:
    """List images that could not be used, with code and message; `--json` has their URLs and runs, too."""
    from pipeline.readers import list_failures
    from pipeline.show import show_failures

    show_failures(list_failures(store, options_of(store_option), dataset, where=where, limit=limit), as_json=as_json)


def directions(
    store: StoreUri = DEFAULT_STORE, dataset: Dataset = None, store_option: StoreOptions = None, as_json: AsJson = False
) -> None:
    """List fitted directions with their evidence."""
    from pipeline.readers import list_directions
    from pipeline.show import show_directions

    show_directions(list_directions(store, options_of(store_option), dataset), as_json=as_json)


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

    found = list_measurements(store, options_of(store_option), dataset, where=where)
    show_measurements(found, as_json=as_json)


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

    show_runs(list_runs(store, options_of(store_option), dataset, limit=limit), as_json=as_json)
