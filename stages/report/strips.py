"""Strips of codes as tables: an image a row, a strength a column; draws without parents as a sheet of pictures."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from stages.code_sets.calibrated import EFFECT_UNREACHED
from stages.code_sets.codes import UNSIGNED
from stages.code_sets.trust import CLIPPED
from stages.report.data import Picture, Strip, StripTable
from stages.report.figures import percent, plain, signed
from stages.report.markup import Markup, image, tag
from stages.report.paths import explained, frames_in_words

UNITS = {"sigma": "σ", "latent": "", "effect": "", "t": "", "mean": "", "part": "", "step": "", "psi": "ψ"}
IN_WORDS = {
    "sigma": "standard deviations of the data",
    "latent": "latent units",
    "effect": "units of the direction's score",
    "quantile": "quantiles of the data's own coordinate",
}
TITLES = {
    ("analogy", "raw"): "Analogies",
    ("analogy", "lol"): "Analogies, kept on the shell",
    ("walk", "pcn"): "Random walks that keep to the distribution",
    ("walk", "isotropic"): "Plain random walks",
    ("sample", "prior"): "Draws from the prior",
    ("sample", "gaussian"): "Draws from the Gaussian of the rows",
    ("sample", "gmm"): "Draws from a mixture of Gaussians",
    ("sample", "flow"): "Draws from a normalising flow",
    ("sample", "categorical"): "Draws of tokens, by how often codes occur",
    ("sample", "bigram"): "Draws of tokens, by what follows what",
}
"""Of tables whose title is a method's name."""


def strips(table: StripTable) -> Markup:
    """A table of strips: an image a row, a strength a column. The unedited column is ringed."""
    heads = _source_heads(table)
    alone = not heads and len(table.strengths) == 1
    shown = _sheet(table) if alone else tag("div", _table(table, heads), class_="scroll")
    head = tag(
        "div",
        tag("h3", TITLES.get((table.kind, table.title), table.title)),
        tag("span", _told(table), class_="over"),
        class_="head",
    )
    return tag("div", head, shown, explained(table), class_="card")


def moved_in_words(
    moved: float | None, *, strength: float | None, unit: str, flags: Sequence[str], operation: dict[str, Any]
) -> str:
    """How far a code went that was stopped on its way, or whose length was solved for its row; nothing for the others.

    In the unit of the strength where that is a multiple of the length, else in latent units.
    """
    by_row = operation.get("calibrate") == "row"
    if moved is None or not (by_row or CLIPPED in flags):
        return ""
    scale = {"latent": 1.0, "sigma": operation.get("sigma"), "effect": operation.get("effect")}.get(unit)
    if by_row or not scale or operation.get("mode") != "add":
        return f"{'not reached, ' if EFFECT_UNREACHED in flags else ''}moved {plain(moved)}"
    return f"at {signed(math.copysign(moved / scale, strength or 1.0))}{UNITS[unit]}"


def _table(table: StripTable, heads: tuple[str, ...]) -> Markup:
    head = [tag("th", class_="name", scope="col"), *(tag("th", name, scope="col") for name in heads)]
    head += [_strength(s, table.unit) for s in table.strengths]
    body = tag("tbody", [_strip(s, table, sources=len(heads)) for s in table.strips])
    columns = f"--frames:{len(table.strengths) + len(heads)}"
    return tag("table", tag("thead", tag("tr", head)), body, class_="strips", style=columns)


def _source_heads(table: StripTable) -> tuple[str, ...]:
    """What stands above the pictures that a strip was made from, where these are shown."""
    most = max((len(s.sources) for s in table.strips), default=0)
    return () if not most else ("original",) if most == 1 else tuple("abcdefgh"[:most])


def _sheet(table: StripTable) -> Markup:
    """One picture a strip, side by side."""
    return tag(
        "div", [_frame(s.frames[0], ", ".join((*s.ids, s.note)), note=s.note) for s in table.strips], class_="draws"
    )


def _told(table: StripTable) -> str:
    """One line under the title: which step, and what its columns count."""
    part = f" · {len(table.strips):,} of {table.total:,}" if table.total else ""
    return f"{table.step} · {_TOLD[table.kind](table, table.operation)}{part}"


def _interpolated(table: StripTable, operation: dict[str, Any]) -> str:
    return frames_in_words(table)


def _traversed(table: StripTable, operation: dict[str, Any]) -> str:
    how = {"add": "added", "set_projection": "set", "set_coordinate": "set"}.get(table.mode, table.mode)
    by_row = ", each picture by the length that shows it" if operation.get("calibrate") == "row" else ""
    return f"{how}, in {IN_WORDS.get(table.unit, table.unit)}{by_row}{_rank_error(operation)}"


def _rank_error(operation: dict[str, Any]) -> str:
    """How far quantiles that come from a sample may be off; nothing for those of all rows."""
    error = operation.get("rank_error")
    return f", from a sample: each within ±{percent(error, 1)} of the rows, in 99 of 100 cases" if error else ""


def _edited(table: StripTable, operation: dict[str, Any]) -> str:
    if "tokens" in operation:
        return "codes put in the place of the image's own; columns: the share of them that is done"
    sign = {"sigma": " σ", "effect": " in its score"}.get(str(operation.get("unit")), "")
    changes = [
        f"{c.get('direction', 'coordinate {}'.format(c.get('coordinate')))} {_amount(c['strength'], operation)}{sign}{_within(c)}"
        for c in operation.get("changes", ())
    ]
    how = "added" if table.mode == "add" else "set" if operation.get("unit") == "quantile" else "set from the mean"
    how += _rank_error(next(iter(operation.get("changes", ())), {}))
    how += ", then the nearest codes" if operation.get("quantised") else ""
    return f"{', '.join(changes)}, {how}; columns: how much of it is done"


def _within(change: dict[str, Any]) -> str:
    """Where in the latent a change holds; nothing for one that holds everywhere. Places as the job gives them, both ends included."""
    said = []
    if layers := change.get("layers"):
        said.append(f"layers {layers[0]} to {layers[1] - 1}")
    if channels := change.get("channels"):
        said.append(f"channels {', '.join(map(str, channels))}")
    if region := change.get("region"):
        top, left, bottom, right = region
        said.append(f"cells of rows {top} to {bottom - 1}, columns {left} to {right - 1}")
    return f" (only {' and '.join(said)})" if said else ""


def _amount(strength: float, operation: dict[str, Any]) -> str:
    return _quantile(strength) if operation.get("unit") == "quantile" else signed(strength)


def strength_in_words(strength: float, unit: str) -> str:
    """Which code of a strip: `+1 σ`, `quantile .05`, `ψ .7`, `step 10`, `.5 of the way`."""
    match unit:
        case "quantile":
            return _quantile(strength)
        case "psi":
            return f"ψ {_share(strength)}"
        case "step" | "mean":
            return f"{unit} {plain(strength)}"
        case "t" | "part":
            return f"{_share(strength)} of the {'way' if unit == 't' else 'edit'}"
        case "sigma":
            return f"{signed(strength)} σ"
        case "latent":
            return f"{signed(strength)} in latent units"
        case _:
            return f"{signed(strength)} in its score" if unit == "effect" else f"{signed(strength)} {unit}".rstrip()


def _quantile(share: float) -> str:
    """`quantile .05`"""
    return f"quantile {_share(share)}"


def _share(share: float) -> str:
    return plain(share).removeprefix("0") if 0 < share < 1 else plain(share)


def _analogy(table: StripTable, operation: dict[str, Any]) -> str:
    return "what leads from a to b is done to c; columns: how much of it"


def _walked(table: StripTable, operation: dict[str, Any]) -> str:
    return f"β = {plain(operation.get('size', 0.0))}; columns: steps from the start"


def _sampled(table: StripTable, operation: dict[str, Any]) -> str:
    heat = f"temperature {plain(operation.get('temperature', 1.0))}"
    return heat + ("; columns: truncation ψ" if len(table.strengths) > 1 else "")


_TOLD: dict[str, Callable[[StripTable, dict[str, Any]], str]] = {
    "traverse": _traversed,
    "interpolate": _interpolated,
    "edit": _edited,
    "analogy": _analogy,
    "walk": _walked,
    "sample": _sampled,
}


def _strength(value: float, unit: str) -> Markup:
    tone = "nil" if unit in UNSIGNED or value == 0 else "pos" if value > 0 else "neg"
    if unit == "quantile":
        return tag("th", _quantile(value), scope="col", class_="nil")
    text = plain(value) if unit in UNSIGNED else signed(value)
    sign = UNITS.get(unit, unit)
    return tag("th", text, tag("small", sign) if sign else None, scope="col", class_=tone)


def _strip(strip: Strip, table: StripTable, *, sources: int) -> Markup:
    name = (" + " if table.unit == "mean" else " → ").join(strip.ids)
    joined = [" : ".join(strip.ids[:2]) + " = " + strip.ids[2]] if table.kind == "analogy" else strip.ids
    label = [tag("span", i, class_="id plus" if table.unit == "mean" else "id") for i in joined]
    note = tag("span", strip.note.replace("_", " "), class_="note") if strip.note else None
    found = tag("small", strip.found) if strip.found else None
    cells = []
    for i in range(sources):
        source = strip.sources[i] if i < len(strip.sources) else None
        cells.append(tag("td", _frame(source, f"{name}, original"), class_="source"))
    captions = strip.captions or [""] * len(strip.frames)
    for value, picture, caption in zip(table.strengths, strip.frames, captions, strict=True):
        unedited = table.unit == "part" or (table.unit not in UNSIGNED and table.mode == "add")
        zero = "zero" if value == 0 and unedited else None
        below = tag("small", caption) if caption else None
        cells.append(
            tag(
                "td",
                _frame(picture, f"{name}, {table.title} {_amount(value, {'unit': table.unit})}"),
                below,
                class_=zero,
            )
        )
    return tag("tr", tag("th", label, note, found, scope="row"), cells)


def _frame(picture: Picture | None, alt: str, *, note: str = "") -> Markup:
    if picture is None:
        return tag("span", "–", class_="blank", title=note.replace("_", " ") or "no picture")
    return image(picture, alt)
