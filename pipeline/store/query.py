"""Nearest rows of a vector: by index where there is one of the same metric, exactly otherwise.

Filters apply before the search, so k rows come back whenever k rows match. Rows added after the index was built are
searched exactly and merged (Lance's `fast_search`, which would miss them, is never used).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.store.engine import ColumnOrdering, asking
from pipeline.store.replace import key_of
from schemas.errors import JobError, SpaceMismatch

SETTINGS = "latentmill.index"
Vector = Sequence[float] | npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class IndexSettings:
    """How the index of a table is to be searched, as measured when it was built. `refine` re-ranks k × refine rows."""

    kind: str
    metric: str
    nprobes: int | None = None
    refine: int | None = None


FLAT = IndexSettings("flat", "l2")


def settings_of(dataset: Any) -> IndexSettings:
    """What the index step wrote into the table's config; exact l2 search when there was none."""
    text = dataset.config().get(SETTINGS)
    return IndexSettings(**json.loads(text)) if text else FLAT


def save_settings(dataset: Any, settings: IndexSettings) -> None:
    dataset.update_config({SETTINGS: json.dumps(asdict(settings))})


def vector_column(schema: pa.Schema) -> str:
    """The column that is searched: `vector` where a table has one, else `latent`."""
    return "vector" if "vector" in schema.names else "latent"


def choose(dataset: Any, *, exact: bool, metric: str | None, nprobes: int | None, refine: int | None) -> IndexSettings:
    """How to search `dataset`: as its index was measured, but for what the caller asks otherwise.

    A metric that is not the index's means exact search.
    """
    built = settings_of(dataset)
    wanted = metric or built.metric
    if exact or wanted != built.metric:
        return IndexSettings("flat", wanted)
    return IndexSettings(built.kind, wanted, nprobes or built.nprobes, refine or built.refine)


def search(
    dataset: Any,
    vector: Vector,
    *,
    k: int,
    settings: IndexSettings,
    where: str | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """The k nearest rows with `_distance` (squared l2, or 1 − cos), nearest first, ties by id.

    `columns` default to all but vectors. `where` must have been checked. Raises SpaceMismatch when the vector has another
    length than the table's, JobError for k < 1 or numbers that are not finite.
    """
    column = vector_column(dataset.schema)
    query = _checked(vector, k, dataset.schema.field(column).type.list_size)
    indexed = settings.kind != "flat"
    nearest: dict[str, Any] = {"column": column, "q": query, "k": k, "metric": settings.metric, "use_index": indexed}
    if indexed and settings.nprobes:
        nearest["minimum_nprobes"] = settings.nprobes
    if indexed and settings.refine:
        nearest["refine_factor"] = settings.refine
    names = list(columns or (f.name for f in dataset.schema if not pa.types.is_fixed_size_list(f.type)))
    with asking(dataset.uri, "searching"):
        scanner = dataset.scanner(columns=[*names, "_distance"], nearest=nearest, filter=where, prefilter=True)
        found = scanner.to_table()
    return found.sort_by([("_distance", "ascending"), *([("id", "ascending")] if "id" in names else [])])


def ordered(
    dataset: Any, columns: Sequence[str], *, where: str | None, by: str, descending: bool, limit: int
) -> pa.Table:
    """The first `limit` rows in the order of column `by`, nulls last, ties by id. `where` must have been checked."""
    order = [ColumnOrdering(by, ascending=not descending), ColumnOrdering(key_of(dataset.schema))]
    with asking(dataset.uri, "listing"):
        return dataset.scanner(columns=list(columns), filter=where, order_by=order, limit=limit).to_table()


def _checked(vector: Vector, k: int, dim: int) -> npt.NDArray[np.float32]:
    query = np.asarray(vector, np.float32).reshape(-1)
    if k < 1:
        raise JobError.one("k", k, "must be at least 1.", "ask for one row or more")
    if len(query) != dim:
        raise SpaceMismatch.one(
            "vector", f"{len(query)} numbers", f"the table's latents have {dim}.", "encode it with the table's codec"
        )
    if not np.isfinite(query).all():
        raise JobError.one("vector", "NaN or infinity", "has no neighbours.", "give finite numbers")
    return query
