"""Which rows a step works on, as one SQL filter over the latents table.

`limit` keeps the rows with the smallest hash of their id: a sample that is the same on every run, does not depend on row
order, and grows by adding rows when the limit grows.
"""

import heapq
from collections.abc import Iterable

from pipeline.store.table import Table
from schemas.errors import JobError
from schemas.identity import fraction_of
from schemas.steps import (
    CodeSetStep,
    CompareStep,
    ComponentsStep,
    ComposeStep,
    DiagnoseStep,
    DisentanglementStep,
    EvaluateStep,
    FidelityStep,
    FitStep,
    ProjectStep,
)

Selecting = (
    CodeSetStep
    | CompareStep
    | ComponentsStep
    | ComposeStep
    | DiagnoseStep
    | DisentanglementStep
    | EvaluateStep
    | FidelityStep
    | FitStep
    | ProjectStep
)


def selection_clause(step: Selecting, table: Table, version: int) -> str | None:
    """The filter of a step's `where`, `ids` and `limit`; None selects every row. Raises JobError for ids the table lacks."""
    where = table.clause(step.where, version, field=f"{step.name}.where")
    clauses = [where] if where else []
    if step.ids is not None:
        table.take(step.ids, ["id"], version=version)  # names the ids that are missing
        clauses.append(id_in(step.ids))
    clause = " AND ".join(clauses) or None
    if step.limit is None:
        return clause
    chosen = smallest_hashes(table, clause, step.limit, version=version)
    if not chosen:
        raise no_row_left(step)
    return id_in(chosen)


def no_row_left(step: Selecting, *, to: str = "") -> JobError:
    """That the filter leaves none; or, of a step without one, that there is none. `to`: what it was to be for."""
    fix = "loosen the filter" if step.where is not None else "no image has a latent: `latentmill failures` says why"
    return JobError.one(f"{step.name}.where", step.where, f"no row is left{to}.", fix)


def smallest_hashes(table: Table, where: str | None, limit: int, *, version: int, salt: str = "limit") -> list[str]:
    """The `limit` ids with the smallest hash, in hash order. Memory grows with `limit`, not with the table."""
    ids = (i for batch in table.scan(["id"], where=where, version=version) for i in batch.column("id").to_pylist())
    return [i for _, i in heapq.nsmallest(limit, ((fraction_of(i, salt), i) for i in ids))]


def id_in(ids: Iterable[str]) -> str:
    """`id IN (…)` with SQL quoting."""
    return "id IN (" + ", ".join("'" + i.replace("'", "''") + "'" for i in ids) + ")"
