"""Small pictures of originals, for pages. A file that cannot be read or shown has none, and the page says so."""

from pipeline import artifacts
from schemas.codec import Preprocess
from schemas.errors import LatentmillError, RowFailure
from stages.images import decode
from stages.report.data import Picture

MAX_BYTES = 32 * 2**20
MAX_PIXELS = 50_000_000


def picture_of(uri: str, options: artifacts.Options, preprocess: Preprocess | None = None) -> Picture | None:
    """The picture at `uri`, cropped as the codec saw it; None when it is no longer there or is not a file of its own."""
    try:
        data = artifacts.read_bytes(uri, options)
    except (OSError, LatentmillError):
        return None
    seen = (preprocess or Preprocess()).model_copy(update={"size": (192, 192), "fast_jpeg": True})
    decoded = decode(data, preprocess=seen, max_pixels=MAX_PIXELS, max_bytes=MAX_BYTES, uri=uri)
    return None if isinstance(decoded, RowFailure) else Picture.of(decoded.pixels)
