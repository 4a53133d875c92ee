"""The gallery of a similarity query: the picture asked about, and the nearest ones with distance, id and labels."""

from stages.report.data import GalleryData, Hit
from stages.report.figures import plain
from stages.report.markup import Markup, image, tag
from stages.report.shell import page


def gallery(data: GalleryData) -> str:
    """One self-contained HTML file."""
    asked = image(data.picture, data.asked) if data.picture else tag("span", "–", class_="blank")
    facts = [tag("span", "dataset ", tag("b", data.dataset)), tag("span", "codec ", tag("code", data.fingerprint[:16]))]
    if data.where:
        facts.append(tag("span", "where ", tag("code", data.where)))
    head = tag(
        "header",
        asked,
        tag(
            "div",
            tag("p", _count(data), class_="over"),
            tag("h1", data.asked, style="font-size:clamp(1.2rem,3vw,1.7rem)"),
            tag("p", facts, class_="meta"),
        ),
        class_="asked",
    )
    hits = tag("ol", [_hit(h, rank) for rank, h in enumerate(data.hits, 1)], class_="hits")
    return page(f"{data.asked} · similar images", head, hits)


def _count(data: GalleryData) -> str:
    if data.listed:
        return f"{len(data.hits)} rows" if data.hits else "no rows"
    return f"{len(data.hits)} nearest to" if data.hits else "nothing found near"


def _hit(hit: Hit, rank: int) -> Markup:
    shown = image(hit.picture, hit.id) if hit.picture else tag("span", "no picture", class_="blank")
    return tag(
        "li",
        shown,
        tag(
            "div",
            tag("div", tag("b", rank), _distance(hit), class_="top"),
            tag("span", hit.id, class_="id"),
            tag("div", [_chip(name, value) for name, value in hit.labels.items() if value is not None], class_="chips"),
            class_="text",
        ),
        class_="card hit",
    )


def _distance(hit: Hit) -> Markup | None:
    return None if hit.distance is None else tag("span", f"distance {hit.distance:.3f}")


def _chip(name: str, value: object) -> Markup | None:
    """A label: true ones by name alone, false ones not at all, others as `name: value`."""
    match value:
        case True:
            return tag("span", name, class_="yes")
        case False:
            return None
        case float():
            return tag("span", f"{name}: {plain(value)}")
        case _:
            return tag("span", f"{name}: {value}")
