"""Similar images: a picture or an id → its latent → nearest rows of the dataset as the catalog shows it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import artifacts
from pipeline.codec import CodecRef
from pipeline.readers import DatasetView, open_dataset
from schemas.errors import JobError, RowFailure, SpaceMismatch


@dataclass(frozen=True)
class Query:
    """A question to a store: one of `image` (path or URL) and `image_id`."""

    store: str
    options: dict[str, str]
    dataset: str | None
    image: str | None = None
    image_id: str | None = None
    k: int = 10
    where: str | None = None
    exact: bool = False


@dataclass(frozen=True)
class QueryResult:
    """Rows nearest first: id, distance, uri, width, height, labels."""

    asked: Query
    dataset: str
    fingerprint: str
    version: int
    rows: list[dict[str, Any]]
    asked_uri: str

    def as_dict(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "fingerprint": self.fingerprint, "version": self.version, "rows": self.rows}

    def table_rows(self) -> list[dict[str, Any]]:
        """Rows for a terminal: labels in one cell, no uri."""
        keep = ("id", "distance", "labels")
        return [{k: row[k] for k in keep if k in row} for row in self.rows]


def run_query(asked: Query) -> QueryResult:
    """Answers it. Raises JobError for a question that cannot be asked, SpaceMismatch when the codec is not the table's."""
    if (asked.image is None) == (asked.image_id is None):
        raise JobError.one("query", None, "give a picture or an id.", "use --image PATH or --id ID, one of them")
    view = open_dataset(asked.store, asked.options, asked.dataset)
    if asked.image_id is not None:
        vector, uri = _stored(view, asked.image_id)
    else:
        vector, uri = _encoded(view, str(asked.image)), str(asked.image)
    # One more than asked: an image of the dataset is its own nearest neighbour and is left out.
    found = view.table.search(
        vector, k=asked.k + (asked.image_id is not None), where=asked.where, version=view.version, exact=asked.exact
    )
    rows = [_row(row) for row in found.to_pylist() if row["id"] != asked.image_id]
    return QueryResult(asked, view.name, view.fingerprint, view.version, rows[: asked.k], uri)


def _row(found: dict[str, Any]) -> dict[str, Any]:
    keep = ("uri", "width", "height", "labels")
    return {"id": found["id"], "distance": found["_distance"], **{k: found[k] for k in keep if k in found}}


def _stored(view: DatasetView, image_id: str) -> tuple[npt.NDArray[np.float32], str]:
    row = view.table.take([image_id], ["latent", "uri"], version=view.version)
    latent = row.column("latent").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(latent, np.float32), row.column("uri")[0].as_py()


def _encoded(view: DatasetView, image: str) -> npt.NDArray[np.float32]:
    """The latent of a picture outside the dataset, made by the codec that made the table."""
    from stages.codecs.factory import open_codec
    from stages.images import decode

    spec = view.codec_spec()
    codec = CodecRef.resolve(spec)
    if codec.fingerprint != view.fingerprint:
        raise SpaceMismatch.one(
            "query --image",
            image,
            f"the table was made by codec {view.fingerprint[:16]}, the weights there now are {codec.fingerprint[:16]}.",
            "put the old weights back, or encode the dataset again",
        )
    try:
        data = artifacts.read_bytes(image)
    except FileNotFoundError:
        raise JobError.one("--image", image, "there is no such file.", "give the path or URL of a picture") from None
    decoded = decode(data, preprocess=spec.preprocess, max_pixels=10**9, max_bytes=2**31, uri=image)
    if isinstance(decoded, RowFailure):
        raise JobError.one("--image", image, f"{decoded.code}: {decoded.message}.", "give another picture")
    import torch

    mean = open_codec(spec, codec.load(), device="cpu").encode(torch.from_numpy(decoded.pixels[None])).mean
    return np.asarray(mean.float().cpu().numpy(), np.float32).reshape(-1)
