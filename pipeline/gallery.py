"""`latentmill query --html`: the answers of a query as a page of pictures."""

from pathlib import Path

from pipeline.query import QueryResult, picture_options
from pipeline.thumbnails import picture_of
from stages.report.data import GalleryData, Hit, Picture
from stages.report.gallery import gallery


def write_gallery(result: QueryResult, to: Path) -> None:
    """Writes one self-contained HTML file. Pictures that are gone show as missing."""
    asked = result.asked

    def picture(uri: str) -> Picture | None:
        return picture_of(uri, picture_options(asked, result.source, uri))

    hits = tuple(
        Hit(row["id"], row.get("distance"), picture(row["uri"]), row.get("labels") or {}) for row in result.rows
    )
    page = gallery(
        GalleryData(
            dataset=result.dataset,
            fingerprint=result.fingerprint,
            asked=asked.image_id or asked.image or f"by {asked.order or 'id'}",
            picture=picture(result.asked_uri) if result.asked_uri else None,
            hits=hits,
            where=asked.where or "",
            listed=asked.lists,
        )
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(page, encoding="utf-8")
