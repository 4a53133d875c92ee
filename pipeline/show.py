"""Results on stdout: tables for people, JSON for programs."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.summary_line import first_few, summary_line

if TYPE_CHECKING:
    from pipeline.plan import Plan
    from pipeline.run import RunResult

SHORT = 60


def show_plan(plan: "Plan", *, as_json: bool) -> None:
    """What a job would do."""
    if as_json:
        _json(plan.as_dict())
        return
    console = Console()
    codec = f"codec {plan.fingerprint[:16]}" if plan.fingerprint else "codec still to be trained"
    console.print(
        f"[bold]{plan.dataset}[/]  {plan.listed:,} images listed, {_size(plan.bytes)}, {codec}", highlight=False
    )
    if plan.labels:
        console.print("labels: " + ", ".join(f"{n} ({t})" for n, t in plan.labels.items()), highlight=False)
    if plan.label_counts and (told := plan.label_counts.told()):
        console.print(f"[yellow]{told}[/]", highlight=False)
    table = Table(
        "step", "stage", "in all", "done", "to do", "to read", "note", box=None, pad_edge=False, header_style="bold"
    )
    for step in plan.steps:
        numbers = [_count(step.total), _count(step.done), _count(step.todo)]
        table.add_row(step.step, step.stage, *numbers, _size(step.bytes) if step.bytes else "", step.note)
    console.print(table)


def show_run(result: "RunResult", *, as_json: bool) -> None:
    """What a run did."""
    if as_json:
        _json({"run_id": result.run_id, "seconds": round(result.seconds, 3), "steps": result.steps})
        return
    console = Console()
    table = Table("step", "seconds", "what it did", box=None, pad_edge=False, header_style="bold")
    for name, counts in result.steps.items():
        table.add_row(name, f"{counts['seconds']:.1f}", summary_line(counts))
    console.print(table)
    console.print(f"run {result.run_id} is done in {result.seconds:.1f} s", highlight=False)
    for counts in result.steps.values():
        if counts["stage"] == "report":
            console.print(f"report: [bold]{counts['written']}[/]", highlight=False, soft_wrap=True)


def show_query(result: Any, *, as_json: bool) -> None:
    """Similar images, nearest first."""
    if as_json:
        _json(result.as_dict())
        return
    show_rows(result.table_rows(), as_json=False)


def show_directions(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Directions with their evidence; intervals in one cell, so that a table fits 80 columns."""

    def between(row: dict[str, Any], name: str) -> str:
        if row[name] is None:
            return ""
        return f"{row[name]:.3g} [{row[f'{name}_low']:.3g}, {row[f'{name}_high']:.3g}]"

    short = [
        {
            "name": row["name"],
            "estimator": row["estimator"],
            "status": row["status"],
            "n": row["n"],
            "with": row["n_positive"],
            "separation, σ": between(row, "separation"),
            "AUC": between(row, "auc"),
            "off by, °": between(row, "angle") or (row["angle_status"] or "").replace("_", " "),
        }
        for row in rows
    ]
    if all(row["angle_status"] is None for row in rows):  # nothing was resampled
        for row in short:
            del row["off by, °"]
    show_rows(rows if as_json else short, as_json=as_json)
    if not as_json:
        odd = [row for row in rows if row["status"] != "ok"]
        _show_why((row["name"], f"{row['status']}: {row['message'] or 'no more is known'}") for row in odd)


def _show_why(told: Iterable[tuple[str, str]]) -> None:
    """Below a table: what a status that is not ok means, once for all (name, reason) that have it."""
    names: dict[str, list[str]] = {}
    for name, reason in told:
        names.setdefault(reason, []).append(name)
    console = Console()
    for reason, of in names.items():
        console.print(
            f"[yellow]{first_few(list(dict.fromkeys(of)))}[/]: {escape(reason)}", highlight=False, soft_wrap=True
        )


def show_measurements(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Measurements; value and interval in one cell; below, the reasons where a number is missing or flagged."""

    def told(row: dict[str, Any]) -> str:
        if row["value"] is None:
            return ""
        between = "" if row["low"] is None else f" [{row['low']:.3g}, {row['high']:.3g}]"
        return f"{row['value']:.4g} {row['unit']}".strip() + between

    short = [
        {
            "step": row["step"],
            "measure": row["metric"],
            "of": row["subject"],
            "on": row["target"],
            "value": told(row),
            "n": row["n"],
            "status": row["status"],
        }
        for row in rows
    ]
    show_rows(rows if as_json else short, as_json=as_json)
    if not as_json:
        odd = [row for row in rows if row["status"] != "ok" and row["message"]]
        _show_why(
            (" ".join(filter(None, (row["step"], row["metric"], row["subject"] or row["target"]))), row["message"])
            for row in odd
        )


def show_failures(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Failed images: what a terminal has room for, so that no code to filter on is cut short."""
    show_rows(rows if as_json else [{k: row[k] for k in ("id", "error", "message")} for row in rows], as_json=as_json)


def show_runs(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Runs, newest first: when, how long, how they ended."""
    short = [
        {
            "run": row["run_id"],
            "dataset": row["dataset"],
            "state": row["state"],
            "started": row["started_at"],
            "seconds": (row["ended_at"] - row["started_at"]).total_seconds() if row["ended_at"] else None,
            "message": (row["message"] or "")[:SHORT],
        }
        for row in rows
    ]
    show_rows(rows if as_json else short, as_json=as_json)


def show_rows(rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Rows with the same keys, as a table or as a JSON list."""
    if as_json:
        _json(list(rows))
        return
    console = Console()
    if not rows:
        console.print("none")
        return
    table = Table(*rows[0], box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(_cell(v) for v in row.values()))
    console.print(table)


def _cell(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S")
        case dict():
            return ", ".join(f"{k}={_cell(v)}" for k, v in value.items() if v is not None and not isinstance(v, dict))
        case _:
            return str(value)


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _size(size: float | None) -> str:
    value = float(size or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
