"""What a step of a run did, in a line of words: for the terminal and for the report."""

from typing import Any

from schemas.steps import CODE_SETS
from stages.report.figures import plain

SOME = 4
"""Names told of those that ended alike."""


def summary_line(counts: dict[str, Any]) -> str:
    """One step's counts in words."""
    match counts["stage"]:
        case "train":
            loss = f", loss {plain(counts['loss'], 4)}" if counts.get("loss") is not None else ""
            if not counts["trained"]:
                return "weights were trained before"
            left = f", {counts['left_out']:,} could not be read" if counts.get("left_out") else ""
            return f"{counts['trained']:,} steps on {counts['images']:,} images{loss}{left}"
        case "encode":
            rate = f", {counts['encoded'] / counts['seconds']:,.0f}/s" if counts["encoded"] else ""
            relabelled = f", {counts['relabelled']:,} with new labels" if counts.get("relabelled") else ""
            gone = f", {counts['no_longer_listed']:,} no longer listed" if counts["no_longer_listed"] else ""
            return (
                f"{counts['listed']:,} listed = {counts['in_latents']:,} latents + {counts['in_failures']:,} failures "
                f"({counts['encoded']:,} new{rate}){relabelled}{gone}"
            )
        case "index":
            recall = f", recall@10 {counts['recall']:.3f}" if counts.get("recall") is not None else ""
            return f"{counts['kind']} over {counts['rows']:,} rows{recall}"
        case "compact":
            freed = f"{counts['bytes'] / 2**20:,.0f} MiB" if counts["bytes"] else "nothing"
            return f"{counts['fragments']:,} fragments merged, {counts['versions']:,} versions gone, {freed} freed"
        case "fit" | "components" | "compose":
            read = f", {counts['read']:,} read" if "read" in counts else ""
            return (
                f"{_of(counts['directions'], 'direction')} from {_of(counts['rows'], 'row')}{read}{_odd(counts['odd'])}"
            )
        case "diagnose":
            flags = f", flags: {', '.join(counts['flags'])}" if counts["flags"] else ", no flags"
            wrote = f", wrote {', '.join(counts['columns'])}" if counts["columns"] else ""
            return f"{_of(counts['measurements'], 'measurement')} of {_of(counts['rows'], 'row')}{flags}{wrote}"
        case stage if stage in CODE_SETS:
            return f"{_of(counts['strips'], 'strip')} of {_of(counts['frames'], 'code')}"
        case "fidelity":
            left = f", {counts['left_out']:,} could not be made" if counts["left_out"] else ""
            return f"{_of(counts['sets'], 'set')}, {counts['rows']:,} pictures by {counts['extractor']}{left}"
        case "disentanglement":
            chance = f", {counts['at_chance']} no better than chance" if counts["at_chance"] else ""
            missing = f", {counts['missing']} not applicable" if counts["missing"] else ""
            return (
                f"{counts['scores']} scores of {counts['factors']} factors on {counts['rows']:,} rows{chance}{missing}"
            )
        case "project":
            trusted = ", ".join(f"{m} {t:.3f}" for m, t in counts.get("trustworthiness", {}).items())
            return f"{counts['rows']:,} rows placed, trustworthiness {trusted}" if trusted else counts["status"]
        case "render":
            skipped = f", {counts['already']:,} were there" if counts["already"] else ""
            odd = f", {counts['failed']:,} could not be rendered" if counts["failed"] else ""
            return f"{_of(counts['written'], 'frame')} drawn into {counts['to']}{skipped}{odd}"
        case "evaluate":
            left = f", {counts['left_out']:,} left out" if counts["left_out"] else ""
            return f"{_of(counts['pictures'], 'picture')} of {_of(counts['rows'], 'image')}{left}, {counts['measurements']:,} numbers"
        case "compare":
            odd = f", {counts['status']}: {counts['message']}" if counts["message"] else ""
            return f"{_of(counts['rows'], 'image')} in both, {_of(counts['ported'], 'direction')} carried over{odd}"
        case _:
            return str(counts.get("written", ""))


def _of(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count != 1)}"


def _odd(odd: dict[str, str]) -> str:
    """By status, with the names of the first few: a thousand components may have none."""
    names: dict[str, list[str]] = {}
    for name, status in odd.items():
        names.setdefault(status, []).append(name)
    return "".join(f", {status}: {first_few(found)}" for status, found in names.items())


def first_few(names: list[str]) -> str:
    """`a, b, c, d and 3 more`."""
    return ", ".join(names[:SOME]) + (f" and {len(names) - SOME} more" if len(names) > SOME else "")
