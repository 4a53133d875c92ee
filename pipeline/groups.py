"""What is to be told of the groups of a step's rows: rows that have none and stand on their own, and groups too few to resample."""

import numpy as np

from pipeline.store.table import Table
from pipeline.store.where import both


def ungrouped(table: Table, group: str | None, where: str | None, *, version: int) -> str:
    """What to tell of selected rows that `group` does not name; empty where it names all. Reads one label, or the ids."""
    if group is None or "`" in group:  # a filter has no way to write such a name
        return ""
    from stages.grouping import BY_ID  # torch: only for jobs that group rows

    if group.startswith(BY_ID):
        named = "contains(id, '" + group.removeprefix(BY_ID).replace("'", "''") + "')"
    else:
        named = f"labels.`{group}` IS NOT NULL"
    rows = table.count_rows(where, version)
    alone = rows - table.count_rows(both(where, f"({named})"), version)
    if not alone:
        return ""
    if alone < rows:
        return f"{alone} of {rows} rows have no group `{group}`: each of them stands on its own"
    return f"no row has a group `{group}`: every row stands on its own, and intervals are those without groups"


def few_groups(table: Table, group: str | None, where: str | None, *, version: int) -> str:
    """What to tell of groups too few for intervals by group; empty where there are enough. Reads until it has seen enough of them."""
    if group is None:
        return ""
    from stages.grouping import group_hashes
    from stages.scores.grouped import FEWEST_GROUPS

    seen: set[int] = set()
    for batch in table.scan(["id"] if group.startswith("id:") else ["id", "labels"], where=where, version=version):
        seen.update(np.unique(group_hashes(batch, group)).tolist())
        if len(seen) >= FEWEST_GROUPS:
            return ""
    if not seen:
        return ""
    return (
        f"only {len(seen)} group{'s' * (len(seen) != 1)} by `{group}`: intervals that resample fewer than {FEWEST_GROUPS} "
        "are too narrow to be relied on"
    )
