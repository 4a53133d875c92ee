"""Commands about one attribute: power plans how many labels it needs, probe shows its direction to a person."""

from typing import Annotated

import typer

from pipeline.commands.parameters import DEFAULT_STORE, AsJson, Dataset, StoreOptions, StoreUri, Where, options_of


def power(
    attribute: Annotated[str, typer.Option(help="Label to plan for: smiling, or hair=red.")],
    target_cosine: Annotated[float, typer.Option(help="How well the direction must point, 0 to 1.")] = 0.9,
    estimator: Annotated[
        str, typer.Option(help="mean_difference, balanced_mean_difference, ols, lda, logistic or svm.")
    ] = "mean_difference",
    controls: Annotated[
        str | None, typer.Option(help="ols, balanced: other attributes, a,b; default all bool.", show_default=False)
    ] = None,
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
        options_of(store_option),
        dataset,
        attribute=attribute,
        target_cosine=target_cosine,
        estimator=estimator,
        controls=tuple(controls.split(",")) if controls else None,
        where=where,
        group=group,
    )
    show_power(plan, as_json=as_json)


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
        (store, options_of(store_option), dataset),
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
