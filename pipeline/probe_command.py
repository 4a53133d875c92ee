"""What the command line gives `latentmill probe`, checked; at a terminal, the verdict is asked for."""

import sys
from collections.abc import Callable
from typing import cast, get_args

from pipeline.probe import Probe, Said, Verdict, record_verdict, write_sheet
from pipeline.show import show_rows
from schemas.errors import JobError
from schemas.steps import Unit

UNITS = ("sigma", "latent")


def run_probe(
    place: tuple[str, dict[str, str], str | None],
    direction: str,
    *,
    to: str | None,
    verdict: tuple[str | None, str | None, str, str],
    strengths: str,
    unit: str,
    rows: int,
    where: str | None,
    as_json: bool,
    ask: Callable[..., str],
) -> None:
    """Writes the sheet, records the verdict, and tells both. Without either asked for, the sheet is `probe-<direction>.html`.

    `ask`: a prompt that returns what was typed, used at a terminal only.
    """
    said, name, note, by = verdict
    asked = Probe(*place, direction, _strengths(strengths), _unit(unit), rows, where)
    given = None if said is None else Verdict(_said(said), name, note, by)
    if given is None and (name or note or by):
        raise JobError.one("--verdict", None, "a name, note or person without a verdict.", "add --verdict keep")
    told = {}
    if to is not None or given is None:
        to = to or f"probe-{direction.replace('/', '_')}.html"
        told = {"sheet": to, "images": len(write_sheet(asked, to))}
        if given is None and not as_json and sys.stdin.isatty():
            sys.stderr.write(f"look at {to}\n")
            given = _asked(ask)
    if given is not None:
        told |= record_verdict(asked, given)
    show_rows([told], as_json=as_json)


def _asked(ask: Callable[..., str]) -> Verdict | None:
    said = ask("keep, reject, rename or skip", default="skip")
    if said == "skip":
        return None
    verdict = _said(said)
    name = ask("new name") if verdict == "rename" else None
    return Verdict(verdict, name, ask("note", default=""), ask("your name", default=""))


def _said(text: str) -> Said:
    if text not in get_args(Said):
        raise JobError.one("--verdict", text, "is no verdict.", f"say {', '.join(get_args(Said))}")
    return cast(Said, text)


def _unit(text: str) -> Unit:
    if text not in UNITS:
        raise JobError.one("--unit", text, "is no unit of a probe.", f"say {' or '.join(UNITS)}")
    return cast(Unit, text)


def _strengths(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise JobError.one("--strengths", text, "are not numbers.", "write --strengths=-3,0,3") from None
    if not all(abs(s) < 1e6 for s in found):
        raise JobError.one("--strengths", text, "are not finite, small numbers.", "write --strengths=-3,0,3")
    return found
