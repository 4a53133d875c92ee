"""Similar images: a picture or an id → its latent → nearest rows of the dataset as the catalog shows it.

Without either: the rows that a filter names, in the order of a column, such as the largest anomaly scores.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import artifacts
from pipeline.codec import CodecRef
from pipeline.readers import DatasetView, Source, open_dataset
from schemas.errors import JobError, RowFailure, SpaceMismatch


@dataclass(frozen=True)
class Query:
    """A question to a store: what is like `image` (path or URL) or `image_id`, or which rows meet `where`.

    `order`: a column to list by, `-` in front for the greatest first.
    """

    store: str
    options: dict[str, str]
    dataset: str | None
    image: str | None = None
    image_id: str | None = None
    k: int = 10
    where: str | None = None
    exact: bool = False
    order: str | None = None

    @property
    def lists(self) -> bool:
        """Whether rows are listed, and none is compared with."""
        return self.image is None and self.image_id is None


@dataclass(frozen=True)
class QueryResult:
    """Rows nearest first, or in the order asked: id, distance, uri, width, height, computed columns, labels."""

    asked: Query
    dataset: str
    fingerprint: str
    version: int
    rows: list[dict[str, Any]]
    asked_uri: str | None
    computed: tuple[str, ...]
    source: Source | None = None

    def as_dict(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "fingerprint": self.fingerprint, "version": self.version, "rows": self.rows}

    def table_rows(self) -> list[dict[str, Any]]:
        """Rows for a terminal: of the computed columns those that were asked by, else the anomaly; labels in one cell; no uri.

        Maps and scores together are a dozen columns, and a terminal shows the first letters of each.
        """
        words = set(re.findall(r"\w+", f"{self.asked.where or ''} {self.asked.order or ''}"))
        shown = [name for name in self.computed if name in words] or [n for n in self.computed if n == "anomaly"]
        keep = ("id", "distance", *shown)
        labels = [{"labels": _in_words(row["labels"])} if row.get("labels") else {} for row in self.rows]
        return [{k: row[k] for k in keep if k in row} | said for row, said in zip(self.rows, labels, strict=True)]


def _in_words(labels: dict[str, Any]) -> str:
    """What an image has and how much of it: a bool that is false, or nothing at all, is not said."""

    def told(name: str, value: Any) -> str:
        return name if value is True else f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"

    return ", ".join(told(name, value) for name, value in labels.items() if value is not None and value is not False)


def run_query(asked: Query) -> QueryResult:
    """Answers it. Raises JobError for a question that cannot be asked, SpaceMismatch when the codec is not the table's."""
    if asked.image is not None and asked.image_id is not None:
        raise JobError.one("query", None, "give a picture or an id, not both.", "use --image PATH or --id ID")
    if asked.lists and asked.where is None and asked.order is None:
        fix = "use --image PATH, --id ID, --where FILTER or --order COLUMN"
        raise JobError.one("query", None, "give a picture, an id, a filter or an order.", fix)
    if asked.order is not None and not asked.lists:
        fix = "leave --order out, or the picture"
        raise JobError.one("--order", asked.order, "similar images come nearest first.", fix)
    view = open_dataset(asked.store, asked.options, asked.dataset)
    computed = tuple(view.table.computed_at(view.version))
    source, uri = view.source(), None
    if asked.lists:
        found = view.table.listed(
            ["id", *SHOWN, *computed], where=asked.where, order=asked.order, limit=asked.k, version=view.version
        )
    else:
        vector, uri = (
            _stored(view, asked.image_id)
            if asked.image_id
            else (_encoded(view, asked, source, str(asked.image)), asked.image)
        )
        # One more than asked: an image of the dataset is its own nearest neighbour and is left out.
        found = view.table.search(
            vector, k=asked.k + (asked.image_id is not None), where=asked.where, version=view.version, exact=asked.exact
        )
    rows = [_row(row, computed) for row in found.to_pylist() if row["id"] != asked.image_id]
    return QueryResult(asked, view.name, view.fingerprint, view.version, rows[: asked.k], uri, computed, source)


def picture_options(asked: Query, source: Source | None, uri: str) -> artifacts.Options:
    """How a picture at `uri` is reached: as the dataset's source is, where it lies there or the store has no say; else as the store."""
    as_store = artifacts.options_for(uri, asked.store, artifacts.from_store_options(asked.options))
    if source is None or not source.options:
        return as_store
    there = artifacts.options_for(uri, source.images, source.options)
    return there if artifacts.place_of(uri) == artifacts.place_of(source.images) or not as_store else as_store


SHOWN = ("uri", "width", "height", "labels")


def _row(found: dict[str, Any], computed: tuple[str, ...]) -> dict[str, Any]:
    distance = {"distance": found["_distance"]} if "_distance" in found else {}
    shown = {k: found[k] for k in (*SHOWN[:3], *computed, SHOWN[3]) if k in found}
    return {"id": found["id"], **distance, **shown}


def _stored(view: DatasetView, image_id: str) -> tuple[npt.NDArray[np.float32], str]:
    row = view.table.take([image_id], ["latent", "uri"], version=view.version)
    latent = row.column("latent").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(latent, np.float32), row.column("uri")[0].as_py()


def _encoded(view: DatasetView, asked: Query, source: Source | None, image: str) -> npt.NDArray[np.float32]:
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
        data = artifacts.read_bytes(image, picture_options(asked, source, image))
    except FileNotFoundError:
        raise JobError.one("--image", image, "there is no such file.", "give the path or URL of a picture") from None
    except OSError as error:  # a folder, a name no disk takes, no permission
        reason = f"cannot be read: {error.strerror or type(error).__name__}."
        raise JobError.one("--image", image, reason, "give the path or URL of a picture") from None
    decoded = decode(data, preprocess=spec.preprocess, max_pixels=10**9, max_bytes=2**31, uri=image)
    if isinstance(decoded, RowFailure):
        raise JobError.one("--image", image, f"{decoded.code}: {decoded.message}.", "give another picture")
    import torch

    picture = torch.from_numpy(np.array(decoded.pixels[None]))  # a copy: of memory that may not be written torch warns
    mean = open_codec(spec, codec.load(), device="cpu").encode(picture).mean
    return np.asarray(mean.float().cpu().numpy(), np.float32).reshape(-1)
