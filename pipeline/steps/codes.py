"""Code-set steps: they decide which rows and which way, write the selection, and leave the codes to workers."""

from collections.abc import Sequence
from math import isfinite
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from pipeline.code_set import CodeSet, on_codec, select_draws, select_given, select_rows
from pipeline.context import Context
from pipeline.measurements import store_non_finite
from pipeline.selection import no_row_left, selection_clause
from pipeline.spill import Spill
from pipeline.steps.draws import Chosen, analogy_of, sample_of, walk_of
from pipeline.steps.token_codes import replacement_of
from pipeline.steps.trust import moments_of, trust_of
from pipeline.store.table import Table
from schemas.errors import JobError, SpaceMismatch
from schemas.job import did_you_mean
from schemas.steps import (
    AnalogyStep,
    CodeSetStep,
    EditStep,
    InterpolateStep,
    SampleStep,
    TraverseStep,
    WalkStep,
)
from stages.code_sets.axes import CoordinateMoments, Direction, check_coordinate, needs_moments
from stages.code_sets.edit import Edit
from stages.code_sets.interpolate import Interpolate, interpolate_problems, needs_data_mean
from stages.code_sets.pairing import explicit_pairs, nearest_pairs, random_pairs
from stages.code_sets.parents import CodeStage
from stages.code_sets.quantiles import CoordinateQuantiles, CoordinateSample
from stages.code_sets.spread import coordinate_moments
from stages.code_sets.token_edits import TokenStep
from stages.code_sets.token_paths import TokenPath
from stages.code_sets.token_problems import discrete_problems
from stages.code_sets.tokens import TokenStage
from stages.code_sets.traverse import Traverse
from stages.directions.effect import effect_length
from stages.rows import finite_rows


def define(step: CodeSetStep, ctx: Context) -> dict[str, Any]:
    """Resolves the step into a code set that a render step finds in the context; returns its size."""
    latents, version = ctx.latents, ctx.latents_version
    stage, parents = _stage(step, ctx, latents, version)
    selection = _selection(step, ctx, parents, latents, version)
    if not selection.rows:
        raise _too_few(step, stage.parents)
    ctx.started_step(step, total=selection.rows)
    name = str(step.name)
    ctx.code_sets[name] = CodeSet(name, stage, ctx.codec.latent, selection, latents, version)
    ctx.progress(step, computed=selection.rows, committed=selection.rows, failed=0, total=selection.rows)
    return {"rows": selection.rows, "strips": selection.rows * stage.strips, "frames": stage.frames}


def _too_few(step: CodeSetStep, parents: int) -> JobError:
    if parents < 2:
        return no_row_left(step, to=" to work on")
    reason = f"too few rows are left: every strip is made of {parents} different images."
    return JobError.one(f"{step.name}.where", step.where, reason, "loosen the filter, or raise the limit")


def _stage(step: CodeSetStep, ctx: Context, latents: Table, version: int) -> tuple[CodeStage, Chosen]:
    # The plan has said so too, unless a `train` step made the codec since.
    if problems := list(discrete_problems(step, ctx.codec.latent, at=str(step.name))):
        raise JobError(problems)
    match step:
        case TraverseStep():
            return _traverse(step, ctx, latents, version), None
        case InterpolateStep():
            return _interpolate(step, ctx, latents, version), _pairs(step, ctx, latents, version)
        case EditStep():
            return _edit(step, ctx, latents, version), None
        case AnalogyStep():
            return analogy_of(step, ctx, latents, version)
        case WalkStep():
            return walk_of(step, ctx, latents, version)
        case SampleStep():
            return sample_of(step, ctx, latents, version)
        case _:
            assert_never(step)


def _selection(step: CodeSetStep, ctx: Context, chosen: Chosen, latents: Table, version: int) -> Spill:
    url = ctx.work_url(f"{step.name}.arrow")
    if isinstance(chosen, int):
        return select_draws(chosen, url, options=ctx.file_options)
    if chosen is not None:
        return select_given(chosen, rows_of(chosen, latents, version), url, options=ctx.file_options)
    clause = selection_clause(step, latents, version)
    rows = latents.count_rows(clause, version=version)
    batches = latents.scan(["id", "_rowid"], where=clause, version=version)
    return select_rows(batches, url, options=ctx.file_options, rows=rows)


def _traverse(step: TraverseStep, ctx: Context, latents: Table, version: int) -> CodeStage:
    directions = [resolve_direction(name, ctx) for name in step.directions]
    coordinates = _known_of(step.coordinates, step, ctx, latents, version)
    trust = trust_of(step.trust, step, ctx, latents, version)
    return on_codec(Traverse(step, directions, ctx.codec.latent, coordinates=coordinates, trust=trust), ctx.codec)


def _interpolate(step: InterpolateStep, ctx: Context, latents: Table, version: int) -> CodeStage:
    spec = ctx.codec.latent
    if spec.codebook is not None:
        return on_codec(TokenStage(step, spec, TokenPath(step, spec)), ctx.codec)
    has_logvar = "logvar" in latents.schema.names
    if problems := list(interpolate_problems(step, spec, has_logvar=has_logvar, at=str(step.name))):
        raise JobError(problems)
    mean = _moments(step, ctx, latents, version).mean if needs_data_mean(step, spec) else None
    return on_codec(Interpolate(step, spec, mean=mean), ctx.codec)


def _edit(step: EditStep, ctx: Context, latents: Table, version: int) -> CodeStage:
    if step.tokens is not None:
        return on_codec(replacement_of(step, step.tokens, ctx, latents, version), ctx.codec)
    directions = [resolve_direction(c.direction, ctx) for c in step.changes if c.direction is not None]
    named = tuple(c.coordinate for c in step.changes if c.coordinate is not None)
    coordinates = _known_of(named, step, ctx, latents, version)
    trust = trust_of(step.trust, step, ctx, latents, version)
    spec = ctx.codec.latent
    edit = Edit(step, directions, spec, coordinates=coordinates, trust=trust)
    return on_codec(edit if spec.codebook is None else TokenStage(step, spec, TokenStep(step, spec, edit)), ctx.codec)


def _known_of(
    coordinates: tuple[int, ...], step: TraverseStep | EditStep, ctx: Context, latents: Table, version: int
) -> CoordinateMoments | CoordinateQuantiles | None:
    """What the step needs to know of the data's coordinates, in one pass; None where it needs nothing."""
    if coordinates and step.unit == "quantile":
        for j in coordinates:  # the plan has looked too, unless a `train` step made the codec since
            check_coordinate(j, ctx.codec.latent, at=str(step.name))
        splits = latents.splits(columns=["id", "latent"], version=version)
        drawn = ctx.executor.reduce(splits, CoordinateSample(coordinates))
        store_non_finite(step, ctx, splits.rows - drawn.rows, of="quantiles", n=drawn.rows, version=version)
        return CoordinateQuantiles.of(drawn, coordinates)
    return _moments(step, ctx, latents, version) if coordinates and needs_moments(step.unit, step.mode) else None


def _moments(step: CodeSetStep, ctx: Context, latents: Table, version: int) -> CoordinateMoments:
    return coordinate_moments(moments_of(step, ctx, latents, version))


def resolve_direction(name: str, ctx: Context) -> Direction:
    """The stored direction of that name for this dataset and codec; errors as `stored_direction`."""
    row = stored_direction(name, ctx)
    effect = effect_length(row["estimator"], row["raw_norm"])
    return Direction(name, np.array(row["vector"]), float(row["sigma"]), np.array(row["mean"]), effect)


def stored_direction(name: str, ctx: Context) -> dict[str, Any]:
    """The directions table's row of that name for this dataset and codec.

    Raises SpaceMismatch when it exists for another codec only, JobError when it is unknown or its fit did not succeed.
    """
    table = ctx.store.directions()
    columns = ["name", "fingerprint", "status", "vector", "sigma", "mean", "attribute", "estimator", "auc"]
    columns += ["raw_norm", "intercept", "n", "n_positive", "n_negative"]
    rows: list[dict[str, Any]] = (
        [r for b in table.scan(columns, where=f"dataset = '{ctx.job.dataset}'") for r in b.to_pylist()]
        if table.exists()
        else []
    )
    mine = {r["name"]: r for r in rows if r["fingerprint"] == ctx.codec.fingerprint}
    row = mine.get(name)
    if row is None:
        others = [r["fingerprint"] for r in rows if r["name"] == name]
        if others:
            reason = f"was fitted for codec {others[0][:16]}; this job's codec is {ctx.codec.fingerprint[:16]}."
            raise SpaceMismatch.one("directions", name, reason, "put a `fit` step above, or use that codec")
        raise JobError.one("directions", name, "no such direction.", did_you_mean(name, mine))
    if row["status"] != "ok":
        raise JobError.one("directions", name, f"its fit ended as `{row['status']}`.", "see `latentmill directions`")
    return row


def _pairs(step: InterpolateStep, ctx: Context, latents: Table, version: int) -> Sequence[Sequence[str]]:
    if step.sets is not None:
        return list(dict.fromkeys(step.sets))  # the same set twice would be one picture written twice
    clause = selection_clause(step, latents, version)
    ids = (i for batch in latents.scan(["id"], where=clause, version=version) for i in batch.column("id").to_pylist())
    match step.pairs:
        case "random":
            return random_pairs(ids, count=step.count, seed=step.seed)
        case "nearest":
            search = _Neighbours(latents, version, clause)
            found = nearest_pairs(ids, count=step.count, seed=step.seed, search=search)
            if search.alone:
                ctx.notice(f"{step.name}: {search.alone} images passed over: without finite numbers none is nearest")
            return found
        case given:
            return explicit_pairs(given)


class _Neighbours:
    """The search callback of `nearest_pairs`. `alone`: how many images had no neighbours, for want of finite latents."""

    def __init__(self, latents: Table, version: int, where: str | None) -> None:
        self._latents, self._version, self._where = latents, version, where
        self.alone = 0

    def __call__(self, ids: Sequence[str], k: int) -> list[list[str]]:
        vectors, finite = finite_rows(self._latents.take(ids, ["latent"], version=self._version).column("latent"))
        self.alone += int((~finite).sum())
        return [self._near(v, k) if good else [] for v, good in zip(vectors, finite, strict=True)]

    def _near(self, vector: npt.NDArray[np.float32], k: int) -> list[str]:
        found = self._latents.search(vector, k=k, where=self._where, version=self._version)
        # Infinity is searched too, and is as far as can be.
        return [
            i for i, far in zip(found["id"].to_pylist(), found["_distance"].to_pylist(), strict=True) if isfinite(far)
        ]


def rows_of(parents: Sequence[Sequence[str]], latents: Table, version: int) -> list[list[int]]:
    """Where the parents of each row stand in the table. Raises JobError for ids the table lacks."""
    ids = list(dict.fromkeys(i for row in parents for i in row))
    found = latents.take(ids, ["_rowid"], version=version).column("_rowid").to_pylist() if ids else []
    row_of = dict(zip(ids, found, strict=True))
    return [[row_of[i] for i in row] for row in parents]
