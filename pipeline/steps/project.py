"""The project step: a position for every row by PCA, and maps of a stratified sample by UMAP and t-SNE, as columns."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.context import Context
from pipeline.measurements import left_out, store_measurements
from pipeline.selection import selection_clause
from pipeline.steps.fit import drive
from pipeline.store.column_values import Computed
from pipeline.store.table import Table
from schemas.errors import JobError, Problem
from schemas.measurements import Measurement
from schemas.steps import ProjectStep
from schemas.tables import is_computed
from stages.components.over_latents import OverLatents
from stages.components.principal import Limits, Principal, principal
from stages.projection.columns import Positions, column_names, position_fields
from stages.projection.maps import MIN_ROWS, Floats, MapSettings, mapped, missing_package, trust
from stages.projection.strata import Strata
from stages.row_hash import hash_ids
from stages.rows import finite_rows

SAMPLE_VALUES = 2**25
SHOWN = 1500
"""Points a page shows: more are a blot, and every one is text in the page."""


def project(step: ProjectStep, ctx: Context) -> dict[str, Any]:
    """Runs the step; returns rows, sampled rows and what each map's trustworthiness is."""
    latents = ctx.latents
    version = latents.version
    clause = selection_clause(step, latents, version)
    dim = ctx.codec.latent.dim
    splits = latents.splits(columns=["id", "latent"], where=clause, version=version)
    ctx.started_step(step, total=splits.rows)
    count = max(2, step.components)
    found: Principal = drive(
        principal(OverLatents, dim=dim, count=count, limits=Limits(), seed=step.seed), ctx.executor, splits
    )
    if found.n < MIN_ROWS or found.eigen.rank < 2:
        status = "too_few" if found.n < MIN_ROWS else "constant"
        reason = f"{found.n} finite rows" if status == "too_few" else "the latents do not vary in two directions"
        told = [
            Measurement("trustworthiness", subject=m, n=found.n, status=status, message=reason) for m in step.methods
        ]
        store_measurements(step, ctx, told, version=version)
        ctx.notice(f"{step.name}: {reason}; no map is drawn")
        return {"rows": found.n, "sampled": 0, "status": status}
    ids, groups = _sample(step, latents, clause, version, dim, spoilt=found.non_finite > 0)
    if step.by and not any(group is not None for group in groups.values()):
        ctx.notice(
            f"{step.name}: no row carries a value of `{step.by}`; the sample is not stratified, the map has one colour"
        )
    latent = finite_rows(latents.take(ids, ["latent"], version=version).column("latent"))[0].astype(np.float64)
    axes = found.eigen.vectors[: found.eigen.rank]
    scores = (latent - found.mean) @ axes.T
    settings = MapSettings(step.neighbours, step.perplexity, step.seed)
    # One worker draws all maps, so that a driver without cores or memory to spare stays one.
    maps = dict(ctx.executor.stream(partial(_maps, step.methods, scores, latent, settings)))
    _write(
        step,
        ctx,
        Positions(str(step.name), found.mean, axes[:2], tuple(ids), {m: p for m, (p, _) in maps.items() if m != "pca"}),
    )
    told = [_told(step, m, maps[m], ids, groups, found) for m in step.methods]
    store_measurements(step, ctx, [*told, *left_out(found.non_finite, "non_finite", n=found.n)], version=version)
    ctx.publish()
    ctx.progress(step, computed=splits.rows, committed=splits.rows, failed=0, total=splits.rows)
    trusted = {m: round(float(maps[m][1]), 4) for m in step.methods}
    return {"rows": found.n, "sampled": len(ids), "non_finite": found.non_finite, "trustworthiness": trusted}


def check_project(step: ProjectStep, at: str, labels: dict[str, Any]) -> Iterator[Problem]:
    """Packages that are not installed, and a label that cannot part rows."""
    for method in step.methods:
        if package := missing_package(method):
            fix = "pip install 'latentmill[project]', or leave it out of `methods`"
            yield Problem(f"{at}.methods", method, f"{package} is not installed.", fix)
    if step.by is not None and labels.get(step.by) == "float":
        yield Problem(f"{at}.by", step.by, "a number parts rows into no groups.", "name a bool, int or category label")


def _maps(
    methods: tuple[str, ...], scores: Floats, sample: Floats, settings: MapSettings, device: str
) -> Iterator[tuple[str, tuple[Floats, float]]]:
    for method in dict.fromkeys(("pca", *methods)):
        positions = mapped(method, scores, settings)  # type: ignore[arg-type]
        yield method, (positions, trust(sample, positions, settings))


def _sample(
    step: ProjectStep, latents: Table, clause: str | None, version: int, dim: int, *, spoilt: bool
) -> tuple[list[str], dict[str, Any]]:
    """Ids of the sample in hash order, and the group of each. `spoilt`: some rows have no finite latent, and take no place."""
    capacity = max(MIN_ROWS, min(step.sample, SAMPLE_VALUES // dim))
    strata, group_of = Strata(capacity), {}
    columns = ["id", *(["labels"] if step.by else []), *(["latent"] if spoilt else [])]
    for batch in latents.scan(columns, where=clause, version=version):
        if spoilt:
            batch = batch.filter(pa.array(finite_rows(batch.column("latent"))[1]))
        ids = batch.column("id")
        groups = batch.column("labels").field(step.by).to_pylist() if step.by else [None] * len(ids)
        try:
            strata.add(ids.to_pylist(), hash_ids(ids), groups)
        except ValueError as error:
            raise JobError.one(f"{step.name}.by", step.by, f"{error}.", "name a label with few values") from None
    chosen = strata.taken()
    if step.by:
        group_of = {i: group for group, held in strata.groups.items() for _, i in held}
    return chosen, {i: group_of.get(i) for i in chosen}


def _write(step: ProjectStep, ctx: Context, positions: Positions) -> None:
    latents = ctx.latents
    fields = position_fields(str(step.name), step.methods)
    for one in fields:
        if one.name in latents.schema.names and not is_computed(latents.schema.field(one.name)):
            raise JobError.one(
                f"{step.name}.name", step.name, f"the table has a column {one.name}.", "use another name"
            )
    latents.fence(ctx.lease.token)
    ctx.put_columns(Computed(fields, ("id", "latent"), positions), fold=ctx.executor.reduce)


def _told(
    step: ProjectStep,
    method: str,
    drawn: tuple[Floats, float],
    ids: list[str],
    groups: dict[str, Any],
    found: Principal,
) -> Measurement:
    positions, trusted = drawn
    shown = slice(0, SHOWN)
    values = [groups[i] for i in ids[shown]]
    points = [[round(float(x), 4), round(float(y), 4)] for x, y in positions[shown]]
    detail = {
        "points": points,
        "groups": ["" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in values],
        "by": step.by or "",
    }
    if method == "pca":
        detail["shares"] = [float(v) / found.total for v in found.eigen.values[:2]]
    columns = " and ".join(column_names(str(step.name), method))
    return Measurement(
        "trustworthiness", trusted, method, n=len(ids), message=f"columns {columns}", detail=json.dumps(detail)
    )
