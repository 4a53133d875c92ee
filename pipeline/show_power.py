"""What the power planner found, for a terminal or as JSON."""

import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from stages.directions.power_law import Basis, Plan

BASES = {
    Basis.LAW: "noise by the law of a difference of means",
    Basis.BOOTSTRAP: "noise by bootstrap of a fit on a sample of rows",
    Basis.SUBSAMPLING: "extrapolated from fits on subsamples alone, 1/cos² − 1 ∝ 1/n: too few rows a coefficient for more",
}
CHECKS = {
    Basis.LAW: "check, fits on subsamples against the fit on all rows:",
    Basis.BOOTSTRAP: "check, fits on disjoint subsamples against each other:",
    Basis.SUBSAMPLING: "fits on disjoint subsamples against each other:",
}


def show_power(plan: Plan, *, as_json: bool) -> None:
    """One answer, the numbers it stands on, and the check by subsampling."""
    if as_json:
        sys.stdout.write(json.dumps(asdict(plan), indent=2) + "\n")
        return
    console = Console(highlight=False)
    console.print(f"[bold]{_answer(plan)}[/]", soft_wrap=True)
    beside = f" with {', '.join(plan.controls)}" if plan.controls else ""
    console.print(f"{plan.estimator}{beside}: {BASES[Basis(plan.basis)]}", soft_wrap=True)
    if plan.separation is not None and plan.effective_dimension is not None:
        console.print(
            f"classes are {plan.separation:.3g} σ apart, noise fills {plan.effective_dimension:,.0f} dimensions; "
            f"the {plan.n_positive:,} + {plan.n_negative:,} labels there are reach cosine {plan.cosine_now:.2f}",
            soft_wrap=True,
        )
    if plan.checks:
        table = Table("labels", "fits", "cosine expected", "measured", box=None, pad_edge=False, header_style="bold")
        for c in plan.checks:
            measured = f"{c.measured:.3f} [{c.low:.3f}, {c.high:.3f}]"
            table.add_row(
                f"{c.n_positive:,.0f} + {c.n_negative:,.0f}", str(c.subsamples), f"{c.predicted:.3f}", measured
            )
        console.print(CHECKS[Basis(plan.basis)])
        console.print(table)
    if plan.message:
        console.print(f"[yellow]{plan.message}[/]", soft_wrap=True)


def _answer(plan: Plan) -> str:
    asked = f"{plan.attribute}: cosine {plan.target_cosine:g}"
    if plan.per_class is None:
        return f"{asked}: {plan.status}"
    ends = "" if plan.per_class_low is None else f" [{plan.per_class_low:,}, {plan.per_class_high or '∞'}]"
    if plan.per_class_high:
        ends = f" [{plan.per_class_low:,}, {plan.per_class_high:,}]"
    return (
        f"{asked} needs {plan.per_class:,}{ends} labels of each class, or {plan.in_all:,} in all at the present share"
    )
