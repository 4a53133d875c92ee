"""The page of a probe: the strips of one direction, what it stands on, and how to say what one sees."""

from collections.abc import Mapping
from typing import Any

from stages.report.data import StripTable
from stages.report.figures import interval
from stages.report.markup import Markup, tag
from stages.report.shell import page
from stages.report.strips import strips


def probe_page(table: StripTable, *, dataset: str, fingerprint: str, evidence: Mapping[str, Any]) -> str:
    """One self-contained HTML file. `evidence`: the direction's row of the directions table."""
    facts = [tag("span", name, " ", tag("b", value)) for name, value in _facts(dataset, evidence)]
    facts.append(tag("span", "codec ", tag("code", fingerprint[:16])))
    head = tag(
        "header",
        tag(
            "div",
            tag("p", "what does this direction do?", class_="over"),
            tag("h1", table.title, style="font-size:clamp(1.2rem,3vw,1.7rem)"),
            tag("p", facts, class_="meta"),
        ),
    )
    ask = tag(
        "p",
        "Does every row change in the same way, and in nothing else? Then ",
        tag("code", f"latentmill probe {table.title} --verdict keep"),
        ", or ",
        tag("code", "--verdict rename --as NAME"),
        ", or ",
        tag("code", "--verdict reject --note WHY"),
        ".",
        class_="more",
    )
    return page(f"{table.title} · probe", head, tag("section", strips(table), ask))


def _facts(dataset: str, evidence: Mapping[str, Any]) -> list[tuple[str, str | Markup]]:
    found: list[tuple[str, str | Markup]] = [("dataset", dataset), ("estimator", evidence["estimator"])]
    if evidence.get("n"):
        found.append(("n", f"{evidence['n']:,}"))
    if evidence.get("auc") is not None:
        bounds = interval(evidence["auc_low"], evidence["auc_high"], 3)
        found.append(("held-out AUC", f"{evidence['auc']:.3f} ({bounds})"))
    return found
