"""The frame of every page. Its policy lets the browser show what is inside the file and ask for nothing else."""

from importlib import resources

from stages.report.markup import Markup, tag

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, *content: object) -> str:
    """A whole HTML document."""
    style = resources.files("stages.report") / "style.css"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", title),
        tag("style", Markup(style.read_text(encoding="utf-8"))),
    )
    body = tag("body", tag("main", *content, tag("footer", "Made by Latentmill. This file is complete in itself.")))
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"
