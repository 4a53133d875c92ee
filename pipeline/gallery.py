"""`latentmill query --html`: the answers of a query as a page of pictures."""

from pathlib import Path

from pipeline.query import QueryResult
from pipeline.thumbnails import picture_of
from stages.report.data import GalleryData, Hit
from stages.report.gallery import gallery


def write_gallery(result: QueryResult, to: Path) -> None:
    """Writes one self-contained HTML file. Pictures that are gone show as missing."""
    asked = result.asked
    hits = tuple(
        Hit(row["id"], row.get("distance"), picture_of(row["uri"], None), row.get("labels") or {})
        for row in result.rows
    )
    page = gallery(
        GalleryData(
            dataset=result.dataset,
            fingerprint=result.fingerprint,
            asked=asked.image_id or asked.image or f"by {asked.order or 'id'}",
            picture=picture_of(result.asked_uri, None) if result.asked_uri else None,
            hits=hits,
            where=asked.where or "",
            listed=asked.lists,
        )
    )
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(page, encoding="utf-8")
