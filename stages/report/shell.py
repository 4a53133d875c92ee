"""The frame of every page. Its policy lets the browser show what is inside the file and ask for nothing else."""

from stages.report.markup import Markup, tag
from stages.report.style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, *content: object) -> str:
    """A whole HTML document."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    body = tag("body", tag("main", *content, tag("footer", "Made by Latentmill. This file is complete in itself.")))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"
