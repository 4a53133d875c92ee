"""Holes held against every image of a table, by its vector index: what is empty in a sample may be full in the whole.

The map of holes stands on a bounded sample. Here draws of the reference, and images of the sample beside them, are asked for their
nearest image among all. Draws from where images are lie as near to one as images lie to each other (latent-science §8.6).
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipeline.store.query import vector_column
from pipeline.store.table import Table
from schemas.measurements import OK, Measurement
from stages.diagnosis.aggregate import wilson
from stages.diagnosis.evidence import Evidence
from stages.diagnosis.findings_reference import SHARE_OF_EXPECTED

SEARCHED_WHOLE = 200_000
"""Rows up to which a table without an index is searched, and then for the emptiest draws alone."""
SEARCHED = 256
"""Draws, and images beside them, that are looked up in an index."""
USUAL = 0.95
"""Share of images whose distance to their nearest neighbour counts as usual."""


def of_all_images(latents: Table, version: int, evidence: Evidence, found: list[Measurement]) -> list[Measurement]:
    """`hole_depth` and, where the table has an index, `indexed_precision`; nothing of large tables without one."""
    if vector_column(latents.schema) != "latent":
        return []  # what the index knows is another space than the draws'
    cells = next((m for m in found if m.metric == "hole_cells"), None)
    indexed = latents.indexed(version)
    if cells is None or not (indexed or latents.count_rows(version=version) <= SEARCHED_WHOLE):
        return []
    lookup = _Lookup(latents, version)
    worst = [w["draw"] for w in json.loads(cells.detail)["worst"]]
    return [*_depth(lookup, evidence, worst), *(_precision(lookup, evidence) if indexed else ())]


class _Lookup:
    """Distances to the nearest of all images, in latent units, and which image that is."""

    def __init__(self, latents: Table, version: int) -> None:
        self._latents, self._version = latents, version

    def __call__(self, vectors: Any, *, own: bool = False) -> list[tuple[float, str]]:
        """`own`: the vectors are images of the table, and none is its own neighbour."""
        found = []
        for vector in vectors:
            rows = self._latents.search(vector, k=1 + own, version=self._version, columns=["id"], metric="l2")
            row = rows.to_pylist()[-1]
            found.append((math.sqrt(max(row["_distance"], 0.0)), row["id"]))
        return found


def _depth(lookup: _Lookup, evidence: Evidence, worst: list[int]) -> Iterator[Measurement]:
    """How far the emptiest draws are from the nearest of all images, in distances of two neighbouring images."""
    empty = lookup(evidence.draws[worst])
    usual = float(np.median([d for d, _ in lookup(evidence.sample.latents[: len(worst)], own=True)]))
    distances = [d for d, _ in empty]
    if not usual > 0:
        return
    yield Measurement(
        "hole_depth",
        float(np.median(distances)) / usual,
        target=evidence.reference,
        low=min(distances) / usual,
        high=max(distances) / usual,
        n=len(worst),
        unit="times the usual distance",
        message="from the emptiest draws to the nearest of all images; the usual distance is that of two neighbouring images",
        detail=json.dumps({"nearest": [{"distance": round(d, 5), "id": i} for d, i in empty]}),
    )


def _precision(lookup: _Lookup, evidence: Evidence) -> Iterator[Measurement]:
    """The share of draws that are as near to one of all images as nearly all images are to their nearest."""
    images = [d for d, _ in lookup(evidence.sample.latents[:SEARCHED], own=True)]
    reach = float(np.quantile(images, USUAL))
    draws = np.array([d for d, _ in lookup(evidence.draws[:SEARCHED])])
    inside, n = int((draws <= reach).sum()), len(draws)
    low, high = wilson(inside, n)
    threshold = SHARE_OF_EXPECTED * USUAL
    empty = high < threshold
    yield Measurement(
        "indexed_precision",
        inside / n,
        target=evidence.reference,
        low=low,
        high=high,
        n=n,
        threshold=threshold,
        status="holes" if empty else OK,
        message=f"{100 * inside / n:.1f} % of the draws are as near to one of all images as {100 * USUAL:.0f} % of images are to their nearest"
        + (f"; less than {100 * threshold:.0f} % is a sign of holes." if empty else ""),
    )
