"""Every step's `where`, held while planning against the table as it will be when the step runs.

The table may not exist yet, or lack what steps above will compute; an empty one of the same columns understands the same filters.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.store.table import Table
from pipeline.store.where import checked_by_columns
from schemas.codec import LatentSpec
from schemas.errors import JobError, Problem
from schemas.steps import CompareStep, DiagnoseStep, ProjectStep, SelectionStep, Step
from schemas.tables import computed_field, labels_type, latents_schema


class Filters:
    """Checks steps from the top down. `latents`: the table, if it is there; `spec`: None when a `train` step comes first."""

    def __init__(self, latents: Table | None, spec: LatentSpec | None, labels: dict[str, Any]) -> None:
        # Labels are those of the source: where the table's differ, that is a problem of its own.
        struct = labels_type(labels)
        held = latents.schema if latents is not None else _new(spec or LatentSpec(shape=(1,), space="z"))
        fields = [f for f in held if f.name != "labels"]
        self._columns = pa.schema(fields + ([pa.field("labels", struct)] if len(struct) else []))

    def check(self, step: Step, at: str) -> Iterator[Problem]:
        """What is wrong with the step's filter; and takes note of the columns that the step will write."""
        if isinstance(step, SelectionStep):
            try:
                checked_by_columns(self._columns, step.where, field=f"{at}.where")
            except JobError as error:
                yield from error.problems
        for name in written_by(step):
            if name not in self._columns.names:
                self._columns = self._columns.append(computed_field(name, pa.float32(), by=step.stage))


def written_by(step: Step) -> tuple[str, ...]:
    """Names of the columns that a step computes for rows that are there."""
    match step:
        case DiagnoseStep():
            from stages.diagnosis.scores import score_names

            return score_names(step.scores)
        case ProjectStep():
            from stages.projection.columns import all_names  # loads scikit-learn: only for jobs that draw maps

            return all_names(str(step.name), step.methods)
        case CompareStep():
            return (step.cosine_column,)
        case _:
            return ()


def _new(spec: LatentSpec) -> pa.Schema:
    return latents_schema(spec, dtype="float32", labels=None, logvar=True, metadata={})
